"""A small valid experiment on disk, whose line numbers the tests of messages rely on."""

from pathlib import Path

REPOSITORY = Path(__file__).parent.parent

CHOICES = {
    "corpus/world": """\
kind: storyworld
seed: 0
stories: {train: 100, valid: 10, dev: 0, test: 20}
mismatched_fraction: 0.5
mismatched_same_pronoun: 0.8
num_texts: 50
voice: en-us
words_per_minute: 170
sample_rate_hz: 16000
""",
    "encoder/mfcc": """\
kind: mfcc-kmeans
seed: 0
sample_rate_hz: 16000
frame_rate_hz: 25
num_coefficients: 13
stacked_frames: 3
num_units: 100
fit_utterances: 50
""",
    "lm/llama": """\
kind: llama-scratch
hidden_size: 64
num_hidden_layers: 2
num_attention_heads: 2
max_position_embeddings: 512
max_steps: 10
batch_size: 4
learning_rate: 1e-3
warmup_steps: 2
weight_decay: 0
autocast: float32
""",
    "vocoder/conv": """\
kind: conv-griffinlim
seed: 0
sample_rate_hz: 16000
num_mels: 80
hop_samples: 160
window_samples: 400
channels: 64
layers: 2
fit_utterances: 50
steps: 10
batch_size: 4
learning_rate: 1e-3
griffin_lim_iterations: 2
""",
    "asr/ctc": """\
kind: char-ctc
seed: 0
sample_rate_hz: 16000
num_mels: 40
hop_samples: 160
window_samples: 400
channels: 64
layers: 2
fit_utterances: 50
steps: 10
batch_size: 4
learning_rate: 1e-3
resynthesized_fraction: 0.5
silence_rms: 0.001
""",
    "mos/dnsmos": """\
kind: dnsmos
release: speechmos-0.0.1.1
personalized: false
segments: first
max_clips: 2
""",
    "judge/ngram": """\
kind: ngram
order: 3
discount: 0.7
calibration:
  min_word_logprob: -6
  ground_truth_score: 4.0
  shuffled_score: 2.0
""",
    "judge/story": """\
kind: story-lm
seed: 0
hidden_size: 32
layers: 1
steps: 10
batch_size: 4
learning_rate: 1e-3
word_dropout: 0.1
calibration: {min_word_logprob: -6, ground_truth_score: 4.0, shuffled_score: 2.0}
""",
    "selector/thresholds": """\
kind: thresholds
max_chosen_per_prompt: 2
max_rejected_per_prompt: 2
min_words: 3
""",
    "selector/best-worst": """\
kind: best-worst
min_words: 3
""",
    "trainer/dpo": """\
kind: preference
loss_weights: {sigmoid: 1}
beta: 0.1
lora: {r: 4, alpha: 8, target_modules: all-linear}
learning_rate: 1e-3
lr_scheduler_type: linear
num_train_epochs: 2
max_steps: null
batch_size: 4
micro_batch_size: null
weight_decay: 0
max_grad_norm: 1
num_evals: 2
min_pairs: 10
autocast: float32
""",
    "trainer/ntp": """\
kind: next-unit
lora: {r: 4, alpha: 8, target_modules: [q_proj, v_proj]}
learning_rate: 1e-3
lr_scheduler_type: constant
max_steps: 10
batch_size: 4
micro_batch_size: 2
weight_decay: 0
warmup_steps: 1
autocast: float32
""",
    "benchmark/swuggy": "kind: toy-swuggy\nseed: 0\npairs: 10\n",
    "publish/nowhere": "kind: none\n",
}
CHOICES["trainer/sft"] = CHOICES["trainer/dpo"].replace("{sigmoid: 1}", "{sft: 1}")

PARAMS = """\
# The experiment.
corpus: world
encoder: mfcc
lm: llama
vocoder: conv
mos: dnsmos
asr: ctc
judge: story          # trains
heldout_judge: ngram  # reports
selector: thresholds
# Made elsewhere.
imported_preferences: {}
# Items.
benchmarks:
  swuggy: swuggy
seeds: {base: 0, sampling: 0, training: 0, evaluation: 0}
prompts:
  train: 50
  valid: 5
  dev: 0
  test: 10
  cut_at: sentence
  max_duration_s: 4.0
  min_units: 20
sampling: {num_continuations: 5, temperature: 0.8, top_p: 0.95, max_new_units: 160}
auto_bleu: gslm
weights:
  judge_score: 1.0
  ppl: 0.0
  auto_bleu: 0.0
  num_words: 0.0
preferences:
  r1:
    sampled_from: base
    min_chosen_score: 3.2
    max_rejected_score: 2.2
    min_margin: 1.0
    max_auto_bleu: 0.1
  # harder
  r2: {sampled_from: r1, min_chosen_score: 3.9, max_rejected_score: 2.9, min_margin: 1.0, max_auto_bleu: 0.1}
checkpoints:
  r1: {init_from: base, train_on: pairs/r1, trainer: dpo, warmup_steps: 10}
  r2: {init_from: r1, train_on: pairs/r2, trainer: dpo, warmup_steps: 0}
  sft: {init_from: base, train_on: pairs/r1, trainer: sft, warmup_steps: 10}
  ntp: {init_from: base, train_on: units, trainer: ntp}
systems:
  base: {source: checkpoints/base}
  r1: {source: checkpoints/r1}
  r2: {source: checkpoints/r2}
  ground-truth: {source: corpus/utterances}
evaluation:
  split: test
  num_continuations: 2
  likelihood: conditional
  reduction: mean
  include_eos: false
publish: nowhere
guards: {}
reward_models: {}
best_of: {}
"""
EXECUTION = """\
device: cpu
engine: local
ray_address: auto
replicas: 1
num_workers: 1
batch_size: 8
shard_size: 100
batch_invariant: false
num_processes: 1
fsdp: none
"""
PRESETS = {
    "swap": "description: judges swapped\nset: {judge: ngram, heldout_judge: story}\n",
    "longer": """\
description: a third round
set:
  preferences:
    r1: {sampled_from: base}
    r2: {sampled_from: r1}
    r3: {sampled_from: r2, min_chosen_score: 4.2, max_rejected_score: 3.2, min_margin: 1.0, max_auto_bleu: 0.1}
  checkpoints:
    r1: {init_from: base}
    r2: {init_from: r1}
    r3: {init_from: r2, train_on: pairs/r3, trainer: dpo, warmup_steps: 0}
  systems:
    base: {source: checkpoints/base}
    r1: {source: checkpoints/r1}
    r2: {source: checkpoints/r2}
    r3: {source: checkpoints/r3}
""",
    "shorter": """\
description: one round
set:
  preferences:
    r1: {sampled_from: base}
  checkpoints:
    r1: {init_from: base}
  systems:
    base: {source: checkpoints/base}
    r1: {source: checkpoints/r1}
    ground-truth: {source: corpus/utterances}
""",
    "broken": "description: does not exist\nset: {judge: gpt4o}\n",
}


def write_experiment(root: Path) -> Path:
    """Write the experiment below root and return root."""
    files = {f"experiments/{name}.yaml": text for name, text in CHOICES.items()}
    files |= {f"experiments/preset/{name}.yaml": text for name, text in PRESETS.items()}
    files |= {"params.yaml": PARAMS, "experiments/execution.yaml": EXECUTION}
    files |= {name: (REPOSITORY / name).read_text(encoding="utf-8") for name in ("dvc.yaml", "code.yaml")}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def edit(path: Path, *replacements: tuple[str, str]) -> None:
    """Replace texts that stand exactly once."""
    text = path.read_text(encoding="utf-8")
    for old, new in replacements:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
