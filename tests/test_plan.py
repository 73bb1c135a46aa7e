# ruff: noqa: E501 (a line of the plan is easier to compare on one line)
"""The dry run: what a plan says, against hand-worked figures and real models' shapes; all that is missing, at once."""

import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, MistralConfig, OPTConfig, Qwen2Config
from typer.testing import CliRunner

from alignslm.cli import app
from alignslm.cli.terminal import format_bytes, format_count
from alignslm.config.models import Lora
from alignslm.config.sources import FolderSource, HubSource, UrlSource
from alignslm.plan.downloads import asked, size_of
from alignslm.plan.memory import PUBLISHED, Shape, read_shape, shape_of
from tests.messages import names
from tests.sample_experiment import edit, write_experiment
from tests.tiny_hub import serving
from tests.tiny_librispeech import COUNTS, write_librispeech

CORPUS = """\
kind: recordings
sample_rate_hz: 16000
max_duration_s: 40
overlapping_speakers: error
exclude_ids: []
num_texts: 10
num_prompt_words: 4
content_sha256: null
parts:
  speech:
    kind: librispeech
    source: {kind: folder, path: $SPEECH}
    subsets: {train: [train-clean-100], valid: [dev-clean], dev: [], test: [test-clean]}
    max_utterances: {train: null, valid: null, dev: null, test: null}
    alignments: {kind: folder, path: $ALIGNED}
"""
LM = """\
kind: hf
weights: {kind: folder, path: $LM}
units: {num_units: 100, sample_rate_hz: 16000, frame_rate_hz: 25.0, layer: null, deduplicated: true, revision: null, codebook_sha256: null, codebook_file_sha256: null}
ids: {offset: 0, bos: null, eos: null, pad: 0}
dtype: float32
"""
GPT = """\
kind: openai
base_url: https://api.openai.com/v1
model: gpt-4o
api_key_env: PLAN_TEST_KEY
rubric: ten-words
answer_prefix: 'x'
decoding: {temperature: 1.0, max_tokens: 50, num_votes: 2, seed: 0}
max_tokens_field: max_tokens
budget: {requests: 100, tokens: 1000}
concurrency: 1
timeout_s: 1
max_attempts: 1
"""
DVC = """\
stages:
  corpus:
    outs:
      - artifacts/corpus
  rounds:
    foreach: ${preferences}
    do:
      outs:
        - artifacts/${key}
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(write_experiment(tmp_path))
    for name in ("SPEECH", "ALIGNED", "LM", "PLAN_TEST_KEY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "dvc.yaml").write_text(DVC)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".dvc").mkdir()
    return tmp_path


def choose(root):
    """Turn the sample into one with recorded speech, a published model and a paid judge; `world` items stay out."""
    files = {"corpus/speech": CORPUS, "lm/published": LM, "judge/gpt": GPT}
    for name, text in files.items():
        (root / "experiments" / f"{name}.yaml").write_text(text)
    edit(
        root / "params.yaml",
        ("lm: llama\n", "lm: published\n"),
        ("heldout_judge: ngram", "heldout_judge: gpt"),
    )


def plan(*words):
    result = CliRunner().invoke(app, ["plan", *words])
    return result.exit_code, result.stdout.splitlines()


def test_the_embedded_experiment_needs_nothing(root):
    code, lines = plan("--offline")
    assert code == 0
    expected = (
        ("nothing", "download"),
        ("prompts: 65", "0"),
        ("continuations: 550", "80", "2 h"),
        ("judge story: 630",),
        ("heldout_judge ngram: 80",),
        ("stages: 3", "0"),
        ("nothing", "missing"),
    )
    for line, facts in zip(lines, expected, strict=True):
        names(line, *facts)


def test_everything_missing_is_told_at_once(root):
    choose(root)
    code, lines = plan("--offline")
    assert code == 1
    names(lines[0], "lm.weights", "$LM", "not pinned", "size unknown", "not here")
    for line, facts in zip(
        [line for line in lines if line.startswith("missing: ")],
        [
            ("experiments/lm/", "weights.path", "$LM", "variable"),
            ("experiments/judge/gpt.yaml", "rubric", "experiments/rubric/ten-words.txt"),
            ("experiments/judge/gpt.yaml", "PLAN_TEST_KEY", "gpt", "https://api.openai.com/v1"),
            ("heldout_judge", "160", "100", "budget.requests", "experiments/judge/gpt.yaml"),
        ],
        strict=True,
    ):
        names(line, *facts)


def test_what_is_provided_is_missing_no_more_and_is_counted(root, monkeypatch):
    choose(root)
    (root / "experiments" / "rubric").mkdir()
    (root / "experiments" / "rubric" / "ten-words.txt").write_text(
        "one two three four five six seven eight {prompt} {continuation}"
    )
    edit(root / "experiments/judge/gpt.yaml", ("requests: 100", "requests: 160"))
    tiny = OPTConfig(hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=102)
    tiny.save_pretrained(root / "lm")
    monkeypatch.setenv("LM", str(root / "lm"))
    monkeypatch.setenv("PLAN_TEST_KEY", "secret")
    (root / "artifacts" / "r1").mkdir(parents=True)
    code, lines = plan("--offline")
    assert code == 0
    assert lines[0] == f"lm.weights: $LM (not pinned, {format_bytes(size_of(root / 'lm'))}, here)"
    # 4 s of prompt and 160 units at 1.5 frames each and 25 frames a second: 13.6 s, 36.72 words; ten of the rubric
    names(lines[4], "heldout_judge", "80", "160", format_count(160 * round(46.72 * 1.4)), format_count(160 * 50))
    weights = 2 * (4 * 32 * 32 + 2 * 32 * 64) + 32 * 102
    adapter = 2 * (4 * 4 * (32 + 32) + 2 * 4 * (32 + 64))
    cache = 8 * 2 * 2 * (100 + 160) * 32
    names(lines[5], "GPU", format_bytes(4 * weights), "LoRA", format_bytes(16 * adapter), "8", format_bytes(4 * cache))
    names(lines[6], "stages: 3", "1")
    assert "secret" not in "\n".join(lines)


def test_a_preset_is_planned_and_params_are_left_alone(root):
    before = Path("params.yaml").read_bytes()
    code, lines = plan("--preset", "longer", "--offline")
    assert code == 0
    (continuations,) = (line for line in lines if line.startswith("continuations: "))
    names(continuations, "825", "80", "2 h")
    names(lines[-2], "stages: 4", "0")
    assert Path("params.yaml").read_bytes() == before


def test_a_corpus_without_its_subsets_or_alignments(root, monkeypatch, tmp_path):
    from ruamel.yaml import YAML

    from alignslm.config.corpora import Recordings
    from alignslm.config.loading import load_execution, load_experiment
    from alignslm.plan import plan_of

    speech = write_librispeech(tmp_path / "speech", {"train-clean-100": COUNTS["train-clean-100"]})
    monkeypatch.setenv("SPEECH", str(speech))
    monkeypatch.setenv("ALIGNED", str(tmp_path / "no"))
    corpus = Recordings.model_validate(YAML(typ="safe").load(CORPUS))
    experiment = load_experiment(root).model_copy(update={"corpus": corpus})
    made = plan_of(experiment, root, execution=load_execution(root), ask_hub=False)
    for line, facts in zip(
        made.missing,
        [
            ("parts.speech.alignments.path", tmp_path / "no"),
            ("corpus.parts.speech", speech, "dev-clean, test-clean"),
        ],
        strict=True,
    ):
        names(line, *facts)
    sizes = {fetch.key: fetch.num_bytes for fetch in made.fetches}
    assert sizes["corpus.parts.speech.source"] == sum(f.stat().st_size for f in speech.rglob("*") if f.is_file())


def test_too_little_disk(root):
    edit(root / "params.yaml", ("  train: 50\n", "  train: 5000000\n"))
    edit(root / "experiments/corpus/world.yaml", ("train: 100", "train: 5000000"))
    code, lines = plan("--offline")
    assert code == 1
    hours = (50_000_050 + 80) * 160 * 1.5 / 25 / 3600
    names(lines[-1], "disk", f"{hours * 3600 * 16000 * 2 * 0.6 / 1e9:.0f} GB", "corpus")


def faults(root):
    from alignslm.plan.missing import workspace_faults

    return list(workspace_faults(root))


def test_a_folder_without_dvc_or_git(root):
    (root / ".git").rmdir()
    (told,) = faults(root)
    names(told, "git", root, "DVC", "git init", "dvc config core.no_scm true")
    assert plan("--offline")[0] == 1
    (root / ".dvc/config").write_text("[core]\n    no_scm = True\n")
    assert faults(root) == []
    (root / ".dvc/config").unlink()
    (root / ".dvc").rmdir()
    (told,) = faults(root)
    names(told, "DVC", root, "git init && dvc init")


def test_a_cache_that_may_not_be_written(root):
    """As DVC writes it, and in the system's own folder, which refuses root as well."""
    (root / ".dvc/config").write_text("['remote \"s\"']\n    url = s3://b\n[cache]\n    dir = elsewhere\n")
    assert faults(root) == []
    (root / ".dvc/config.local").write_text("[cache]\n    dir = /sys/alignslm\n")
    (told,) = faults(root)
    names(told, "DVC", "cache", "/sys/alignslm", "dvc cache dir --local FOLDER")


def test_a_dvc_that_is_at_work_is_named(root):
    code = "from dvc.lock import Lock\nlock = Lock('.dvc/tmp/lock')\nlock.lock()\nprint('held', flush=True)\ninput()"
    (root / ".dvc/tmp").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        (told,) = faults(root)
        holder.communicate("\n")
    names(told, "DVC", holder.pid, f"{sys.executable} -c")
    assert faults(root) == []


def test_faults_of_the_parameters_come_first(root):
    edit(root / "params.yaml", ("num_continuations: 5", "num_continuations: 1"))
    result = CliRunner().invoke(app, ["plan"])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    names(line, "params.yaml:25: sampling.num_continuations", "2", "1")


def test_planning_imports_nothing_heavy(root):
    code = (
        "import sys; from alignslm.cli import app\n"
        "try: app(['plan', '--offline'])\n"
        "finally: print([n for n in ('torch', 'transformers', 'dvc', 'polars', 'openai') if n in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert (result.stderr, result.returncode) == ("[]\n", 0)


# --- the Hub's answers ---


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with serving() as served:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", served.url)
        yield served


def source(repo, revision="main"):
    return HubSource(kind="hub", repo=repo, revision=revision)


def test_the_hub_tells_sizes_and_one_format_of_weights_counts(hub):
    hub.repos["lab/both"] = {"config.json": b"{}", "model.safetensors": b"x" * 70, "pytorch_model.bin": b"x" * 90}
    hub.repos["lab/old"] = {"config.json": b"{}", "pytorch_model.bin": b"x" * 90}
    assert asked(source("lab/both")) == (72, None)
    assert asked(source("lab/old")) == (92, None)


def test_the_hub_tells_what_may_not_be_read(hub):
    hub.repos["lab/gated"] = {}
    hub.refuse["lab/gated"] = 403
    hub.repos["lab/there"] = {}
    for repository, facts in (
        (source("lab/gated"), ("lab/gated", "gated", "HF_TOKEN")),
        (source("lab/none"), ("lab/none", "Hub", "private", "HF_TOKEN")),
        (source("lab/there", "v9"), ("lab/there", "revision 'v9'")),
    ):
        size, told = asked(repository)
        assert size is None
        names(told, *facts)


def test_a_hub_out_of_reach_knows_nothing_and_is_no_fault(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert asked(source("lab/model")) == (None, None)


# --- shapes ---

CONFIGS = {
    "twist-350m": None,  # OPT-350M projects its embedding: the shape is rounded up
    "twist-1.3b": OPTConfig(hidden_size=2048, ffn_dim=8192, num_hidden_layers=24, num_attention_heads=32, vocab_size=505),
    "twist-7b": LlamaConfig(vocab_size=505, tie_word_embeddings=True),
    "slam": Qwen2Config(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2, vocab_size=502, tie_word_embeddings=True),
    "mistral-7b-instruct-v0.2": MistralConfig(),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if config is not None])
def test_published_shapes_have_the_parameters_of_the_real_models(name, tmp_path):
    config = CONFIGS[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    real = sum(weight.numel() for weight in model.parameters())
    assert PUBLISHED[name].parameters == pytest.approx(real, rel=0.005)
    config.save_pretrained(tmp_path)
    assert read_shape(tmp_path / "config.json") == PUBLISHED[name]


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_the_adapter_is_as_large_as_pefts(kind):
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50}
    extra = {"intermediate_size": 80, "num_key_value_heads": 2} if kind == "llama" else {"ffn_dim": 80}
    word = {"word_embed_proj_dim": 32} if kind == "opt" else {}
    config = AutoConfig.for_model(kind, **small, **extra, **word, tie_word_embeddings=True)
    adapted = get_peft_model(AutoModelForCausalLM.from_config(config), LoraConfig(r=3, target_modules="all-linear"))
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    shape = Shape(32, 2, 4, 2 if kind == "llama" else 4, 80, 50, gated=kind == "llama")
    assert shape.adapter(Lora(r=3, alpha=1, target_modules="all-linear")) == trained


def test_slamkits_nested_config_and_unknown_ones(tmp_path):
    nested = {"model_type": "speech_language_model", "base_config": CONFIGS["slam"].to_dict(), "vocab_size": 502}
    (tmp_path / "config.json").write_text(json.dumps(nested))
    assert shape_of(FolderSource(kind="folder", path=str(tmp_path))) == PUBLISHED["slam"]
    (tmp_path / "config.json").write_text("not json")
    assert shape_of(FolderSource(kind="folder", path=str(tmp_path))) is None
    (tmp_path / "config.json").write_text('{"d_model": 5}')
    assert read_shape(tmp_path / "config.json") is None


def test_a_model_that_is_not_here_is_known_by_its_name():
    assert shape_of(FolderSource(kind="folder", path="$NOWHERE/TWIST-7B/")) == PUBLISHED["twist-7b"]
    url = UrlSource(kind="url", url="https://example.org/lms/TWIST-1.3B.zip", sha256="0" * 64)
    assert shape_of(url) == PUBLISHED["twist-1.3b"]
    assert shape_of(HubSource(kind="hub", repo="lab/unheard-of", revision="main")) is None


def test_told_figures():
    assert [format_bytes(n) for n in (0, 999, 1000, 14_500_000_000, 3 * 10**12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "14.5 GB",
        "3.0 TB",
    ]
    assert [format_count(n) for n in (999, 1000, 2_500_000, 10**9)] == [
        "999",
        "1.0 thousand",
        "2.5 million",
        "1.0 billion",
    ]
