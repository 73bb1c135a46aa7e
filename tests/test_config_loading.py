# ruff: noqa: E501 (a fault and its facts are easier to compare on one line)
"""Every kind of fault, by its place, cause and cure; all faults at once; YAML 1.2; and nothing heavy imported."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignslm.config.crosschecks import pairs_per_prompt
from alignslm.config.document import Document, parse_document
from alignslm.config.loading import library_faults, load_execution, load_experiment
from alignslm.config.presets import apply_preset
from alignslm.config.problems import ConfigError, ConfigProblem, closest_match
from alignslm.config.warnings import warnings
from tests.messages import names
from tests.micro import copy_project
from tests.sample_experiment import EXECUTION, PARAMS, edit, write_experiment

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(write_experiment(tmp_path))
    return Path()


def message(load=load_experiment):
    with pytest.raises(ConfigError) as caught:
        load()
    return str(caught.value)


def test_the_sample_is_valid_and_typed(root):
    experiment = load_experiment(root)
    assert experiment.judge.kind == "story-lm"
    assert experiment.heldout_judge.kind == "ngram"
    assert experiment.benchmarks["swuggy"].pairs == 10
    assert experiment.checkpoints["ntp"].lora.target_modules == ("q_proj", "v_proj")
    assert experiment.lm.learning_rate == pytest.approx(0.001)
    assert warnings(experiment) == []
    assert library_faults(root) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("judge: story  ", "judge: storj  ", ("params.yaml:8: judge", "experiments/judge/storj.yaml", "'story'", "ngram, story")),
        ("judge: story  ", "judge: zzzzz  ", ("params.yaml:8: judge", "ngram, story", "experiments/judge/zzzzz.yaml")),
        ("judge: story  ", "judge: ../../x", ("params.yaml:8: judge", "../../x", "^[a-z0-9][a-z0-9._-]{0,63}$")),
        ("judge: story  ", "judge: [a, b] ", ("params.yaml:8: judge", "text", "list")),
        ("  swuggy: swuggy", "  swuggy: swugy", ("params.yaml:15: benchmarks.swuggy", "experiments/benchmark/swugy.yaml", "'swuggy'")),
        ("benchmarks:\n  swuggy: swuggy", "benchmarks: {}", ("params.yaml:14: benchmarks", "1", "0")),
        ("    min_chosen_score: 3.2", "    min_chosen_score: three", ("params.yaml:35: preferences.r1.min_chosen_score", "number", "three")),
        ("    min_chosen_score: 3.2", "    min_chosen_score: 6", ("params.yaml:35: preferences.r1.min_chosen_score", "5", "6")),
        ("    min_chosen_score: 3.2", "    min_chosen_score: 0.5", ("params.yaml:35: preferences.r1.min_chosen_score", "1", "0.5")),
        ("    min_chosen_score: 3.2", "    min_chosen_score: 2", ("params.yaml:35: preferences.r1.min_chosen_score", "min_chosen_score", "2.0", "max_rejected_score", "2.2")),
        ("    min_margin: 1.0\n", "", ("params.yaml:33: preferences.r1.min_margin", "missing")),
        ("    sampled_from: base", "    sampled_from: r2", ("params.yaml:42: checkpoints.r1.init_from", "checkpoints.r1 -> checkpoints.r2 -> preferences.r1", "circle")),
        ("    sampled_from: base", "    sampled_from: r9", ("params.yaml:34: preferences.r1.sampled_from", "base, r1, r2", "'r9'")),
        ("r2: {init_from: r1", "r2: {init_from: r2", ("params.yaml:43: checkpoints.r2.init_from", "circle")),
        ("sft: {init_from: base, train_on: pairs/r1", "sft: {init_from: base, train_on: pairs/r3", ("params.yaml:44: checkpoints.sft.train_on", "'r3'", "r1, r2")),
        ("train_on: units", "train_on: prompts", ("params.yaml:45: checkpoints.ntp.train_on", "pairs/", "units", "prompts")),
        ("train_on: units", "warmup_steps: 3, train_on: units", ("params.yaml:45: checkpoints.ntp", "warmup_steps")),
        ("trainer: sft, warmup_steps: 10", "trainer: sft", ("params.yaml:44: checkpoints.sft", "warmup_steps")),
        ("ntp: {init_from", "base: {init_from", ("params.yaml:45: checkpoints.base", "lm")),
        ("base: {source: checkpoints/base", "base: {source: checkpoints/bass", ("params.yaml:47: systems.base.source", "'bass'", "base, r1, r2")),
        ("{source: corpus/utterances", "{temperature_scale: 0.8, source: corpus/utterances", ("params.yaml:50: systems.ground-truth", "temperature_scale")),
        ("  r1:\n", "  R1:\n", ("params.yaml:33: preferences.R1", "R1", "^[a-z0-9][a-z0-9_-]{0,39}$")),
        ("imported_preferences: {}", "imported_preferences: {r1: x}", ("params.yaml:12: imported_preferences.r1", "preferences")),
        ("cut_at: sentence", "cut_at: sentenc", ("params.yaml:22: prompts.cut_at", "'sentence'", "time", "word", "sentenc")),
        ("include_eos: false", "include_eos: no", ("params.yaml:56: evaluation.include_eos", "true", "false", "'no'")),
        ("include_eos: false", "include_eos: 0", ("params.yaml:56: evaluation.include_eos", "true", "false", "0")),
        ("  num_continuations: 2", "  num_continuations: true", ("params.yaml:53: evaluation.num_continuations", "whole number", "true")),
        ("  judge_score: 1.0", "  judge_score: 0.0", ("params.yaml:27: weights", "0", "judge_score: 1.0")),
        ("  judge_score: 1.0", "  judge_score: .inf", ("params.yaml:28: weights.judge_score", "finite", "inf")),
        ("max_duration_s: 4.0", "max_duration_s: 0", ("params.yaml:23: prompts.max_duration_s", "0")),
        ("  train: 50", "  train: 2.5", ("params.yaml:18: prompts.train", "whole number", "2.5")),
        ("  train: 50", "  train: '50'", ("params.yaml:18: prompts.train", "whole number", "'50'")),
        ("  train: 50", "  train: 2020-01-01", ("params.yaml:18: prompts.train", "whole number", "2020-01-01")),
        ("  train: 50", "  train:", ("params.yaml:18: prompts.train", "whole number", "null")),
        ("seeds: {base: 0,", "seeds: {", ("params.yaml:16: seeds.base", "missing")),
        ("seeds: {base: 0, sampling: 0, training: 0, evaluation: 0}", "seeds: 0", ("params.yaml:16: seeds", "mapping", "0")),
        ("ground-truth: {", "true: {", ("params.yaml:50: systems", "text", '"true"')),
        ("  valid: 5", "  train: 5", ("params.yaml:19: prompts.train", "18")),
        ("seeds: {", "seeds: [{", ("params.yaml:17", "','", "']'", "<scalar>", "YAML", "16")),
        ("trainer: sft", "trainer: ntp", ("params.yaml:44: checkpoints.sft.trainer", "next-unit", "pairs/r1", "preference")),
        ("trainer: ntp", "trainer: sft", ("params.yaml:45: checkpoints.ntp.trainer", "next-unit", "units", "preference")),
        ("r1: {source: checkpoints/r1", "r1: {source: checkpoints/r2", ("params.yaml:48: systems.r1.source", "r1", "checkpoints/r2")),
    ],
)  # fmt: skip
def test_fault_in_params(root, old, new, expected):
    edit(root / "params.yaml", (old, new))
    (line,) = message().splitlines()
    names(line, *expected)


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("judge/ngram", "kind: ngram", "kind: ngramm", ("1: kind", "ngramm", "heldout_judge", "params.yaml:9", "'ngram'", "ngram, story-lm, causal-lm, openai")),
        ("judge/ngram", "kind: ngram\n", "# no kind\n", ("1: kind", "missing", "ngram, story-lm, causal-lm, openai")),
        ("judge/ngram", "ground_truth_score: 4.0", "ground_truth_score: 6", ("6: calibration.ground_truth_score", "5", "6")),
        ("judge/ngram", "order: 3", "order: 3\nordr: 4", ("3: ordr", "unknown", "'order'")),
        ("judge/ngram", "order: 3", "order: 3\nzzz: 4", ("3: zzz", "unknown", "kind, order, discount, calibration")),
        ("judge/ngram", "  ground_truth_score: 4.0", "  ground_truth_score: 4.0\n  floor: 4", ("7: calibration.floor", "unknown", "min_word_logprob, ground_truth_score, shuffled_score")),
        ("lm/llama", "kind: llama-scratch", "kind: gpt", ("1: kind", "'gpt'", "lm", "params.yaml:4", "llama-scratch, twist, slam, hf, twist-init")),
        ("trainer/dpo", "target_modules: all-linear", "target_modules: 3", ("4: lora.target_modules", "all-linear", "list", "3")),
        ("trainer/dpo", "{sigmoid: 1}", "{sigmoidal: 1}", ("2: loss_weights.sigmoidal", "'sigmoid'", "hinge", "ipo", "robust", "apo_zero", "apo_down", "sigmoid_norm", "sft", "sigmoidal")),
        ("trainer/dpo", "max_steps: null", "max_steps: none", ("8: max_steps", "whole number", "none")),
        ("trainer/dpo", "min_pairs: 10", "min_pairs: 500", ("14: min_pairs", "500", "50", "200")),
        ("vocoder/conv", "hop_samples: 160", "hop_samples: 150", ("5: hop_samples", "16000", "25", "640", "sample_rate_hz", "mfcc", "frame_rate_hz", "150")),
        ("vocoder/conv", "window_samples: 400", "window_samples: 80", ("6: window_samples", "hop_samples", "160")),
        ("lm/llama", "num_attention_heads: 2", "num_attention_heads: 3", ("2: hidden_size", "64", "num_attention_heads", "6")),
        ("lm/llama", "warmup_steps: 2", "warmup_steps: 10", ("9: warmup_steps", "10")),
        ("lm/llama", "max_position_embeddings: 512", "max_position_embeddings: 261", ("5: max_position_embeddings", "261", "positions", "100", "prompts.max_duration_s", "sampling.max_new_units", "160", "2", "262")),
        ("encoder/mfcc", "stacked_frames: 3", "stacked_frames: 4", ("6: stacked_frames", "odd", "4")),
    ],
)  # fmt: skip
def test_fault_in_a_choice(root, name, old, new, expected):
    path = Path("experiments") / f"{name}.yaml"
    edit(path, (old, new))
    (line,) = message().splitlines()
    names(line, f"{path}:{expected[0]}", *expected[1:])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("  train: 50", "  train: 101", ("params.yaml:18: prompts.train", "101", "world", "100", "stories.train", "experiments/corpus/world.yaml")),
        ("split: test", "split: dev", ("params.yaml:52: evaluation.split", "'dev'", "prompts.dev", "0")),
        ("min_units: 20", "min_units: 101", ("params.yaml:24: prompts.min_units", "max_duration_s", "4", "100")),
    ],
)  # fmt: skip
def test_disagreement_shown_in_params(root, old, new, expected):
    edit(root / "params.yaml", (old, new))
    (line,) = message().splitlines()
    names(line, *expected)


def test_frame_rate_must_divide_the_sample_rate(root):
    edit(root / "experiments/encoder/mfcc.yaml", ("frame_rate_hz: 25", "frame_rate_hz: 30"))
    lines = message().splitlines()
    names(lines[0], "experiments/encoder/mfcc.yaml:3", "sample_rate_hz", "16000", "frame_rate_hz", "30")
    assert lines[1].startswith("experiments/vocoder/conv.yaml:5: hop_samples: ")


def test_all_faults_of_all_files_at_once(root):
    edit(root / "params.yaml", ("    min_chosen_score: 3.2", "    min_chosen_scor: 3.2"), ("asr: ctc", "asr: ctcc"))
    edit(root / "experiments/judge/ngram.yaml", ("order: 3", "order: 1"))
    edit(root / "experiments/corpus/world.yaml", ("mismatched_fraction: 0.5", "mismatched_fraction: [0.5"))
    for line, facts in zip(
        message().splitlines()[:2],
        [
            ("experiments/corpus/world.yaml:5", "','", "']'", "':'", "YAML", "4"),
            ("experiments/judge/ngram.yaml:2: order", "2", "1"),
        ],
        strict=True,
    ):
        names(line, *facts)
    for line, facts in zip(
        message().splitlines()[2:],
        [
            ("params.yaml:7: asr", "experiments/asr/ctcc.yaml", "'ctc'"),
            ("params.yaml:33: preferences.r1.min_chosen_score", "missing"),
            ("params.yaml:35: preferences.r1.min_chosen_scor", "unknown", "'min_chosen_score'"),
        ],
        strict=True,
    ):
        names(line, *facts)


def test_names_of_before_are_answered_with_those_of_now(root):
    edit(
        root / "params.yaml",
        ("    min_chosen_score: 3.2", "    chosen_min: 3.2"),
        ("imported_preferences: {}", "given: {}"),
    )
    with (root / "params.yaml").open("a") as file:
        file.write("rounds: {r1: {prev: base}}\ncontrols: {}\ntrainer: dpo\nsft: sft\nntp: ntp\n")
    told = message()
    for old, new in {
        "rounds": "checkpoints (init_from",
        "controls": "systems (source",
        "given": "imported_preferences",
        "trainer": "checkpoints.NAME.trainer",
        "sft": "trainer: sft",
        "ntp": "train_on: units",
        "preferences.r1.chosen_min": "min_chosen_score",
    }.items():
        assert re.search(rf"params.yaml:\d+: {old}: .*{re.escape(new)}", told), old


def test_a_file_chosen_twice_is_told_once(root):
    edit(root / "params.yaml", ("judge: story  ", "judge: ngram  "))
    edit(root / "experiments/judge/ngram.yaml", ("order: 3", "order: 1"))
    names(message(), "experiments/judge/ngram.yaml:2: order", "2", "1")
    assert message().count("ngram.yaml") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("p.yaml:1", "mapping", "null")),
        ("- 1\n", ("p.yaml:1", "mapping", "list")),
        ("a: 1\n---\nb: 2\n", ("p.yaml:2", "YAML", "1")),
        ("a: *b\n", ("p.yaml:1", "'b'", "YAML")),
        ("a: &x\n  b: *x\n", ("p.yaml:1: a.b", "alias", "anchor")),
        ("a: !!python/name:os.system x\n", ("p.yaml:1", "tag:yaml.org,2002:python/name:os.system", "YAML")),
        ("a: 1\n? [1, 2]\n: 3\n", ("p.yaml:2", "key", "text", "list")),
        ("a: {b: 1, b: 2}\na: 3\n", ("p.yaml:1: a.b", "1", "p.yaml:2: a")),
    ],
)  # fmt: skip
def test_text_that_is_no_mapping(text, expected):
    faults = parse_document(text, "p.yaml")
    assert isinstance(faults, list)
    names("\n".join(str(fault) for fault in faults), *expected)


def test_yaml_1_2_rules():
    document = parse_document("a: 1e-06\nb: on\nc: no\nd: 012\ne: 'x'\nf: yes\n", "p")
    assert isinstance(document, Document)
    assert document.data == {"a": 1e-06, "b": "on", "c": "no", "d": 12, "e": "x", "f": "yes"}


def test_what_dvc_writes_is_read(root):
    """`dvc exp run -S` spells 1e-6 as 1e-06, which YAML 1.1 readers take for text, and writes new keys behind old ones."""
    from dvc.utils.hydra import apply_overrides

    third = "{sampled_from: r2, min_chosen_score: 4, max_rejected_score: 3, min_margin: 1, max_auto_bleu: 0.1}"
    trained = "{init_from: r2, train_on: pairs/r3, trainer: dpo, warmup_steps: 0}"
    apply_overrides(
        "params.yaml",
        [
            f"+preferences.r3={third}",
            f"+checkpoints.r3={trained}",
            "+systems.r3={source: checkpoints/r3}",
            "judge=ngram",
            "heldout_judge=story",
        ],
    )
    apply_overrides("experiments/lm/llama.yaml", ["learning_rate=1e-6"])
    assert "learning_rate: 1e-06\n" in Path("experiments/lm/llama.yaml").read_text()
    experiment = load_experiment(root)
    assert experiment.lm.learning_rate == 1e-06
    assert experiment.judge.kind == "ngram"
    assert list(experiment.params.rounds) == ["r1", "r2", "r3"]


def test_a_misspelt_override_that_dvc_accepts_is_refused(root):
    from dvc.utils.hydra import apply_overrides

    apply_overrides("params.yaml", ["+sampling.temprture=0.7"])
    names(message(), "sampling.temprture", "'temperature'")


def test_missing_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message().startswith("params.yaml: ")
    assert message(load_execution).startswith("experiments/execution.yaml: ")
    Path("params.yaml").write_text(PARAMS)
    names(message(), "params.yaml:2: corpus", "experiments/corpus/world.yaml", "none")


def test_execution_may_be_another_file(root, monkeypatch):
    assert load_execution(root).num_workers == 1
    Path("other.yaml").write_text(
        EXECUTION.replace("shard_size: 100\n", "")
        .replace("replicas: 1", "replicas: 0")
        .replace("num_workers: 1", "num_workers: 0")
    )
    monkeypatch.setenv("ALIGNSLM_EXECUTION", "other.yaml")
    missing, either, least = message(load_execution).splitlines()
    names(missing, "other.yaml:1: shard_size", "missing")
    names(either, "other.yaml:4: replicas", "'auto'", "1", "0")
    names(least, "other.yaml:5: num_workers", "1", "0")


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("params", "judge: story  ", "judge: ngram  ", ("heldout_judge", "ngram")),
        ("params", "  judge_score: 1.0", "  judge_score: 0\n  #", None),
        ("params", "pairs/r1, trainer: dpo", "pairs/r1, trainer: sft", ("checkpoints.r1", "preference", "fine-tuning")),
        ("params", "trainer: sft", "trainer: dpo", ("checkpoints.sft", "preference", "fine-tuning")),
        ("params", "source: corpus/utterances", "source: checkpoints/sft", ("source: corpus/utterances", "topline")),
        ("params", "    min_chosen_score: 3.2", "    min_chosen_score: 4.5", ("preferences.r2", "preferences.r1")),
        ("params", "auto_bleu: 0.0", "auto_bleu: 0.0 # same", None),
        ("experiments/asr/ctc", "16000", "22050", ("22050", "16000", "8000")),
    ],
)  # fmt: skip
def test_warnings(root, name, old, new, expected):
    edit(root / f"{name}.yaml", (old, new))
    if "judge_score" in old:
        edit(root / "params.yaml", ("  num_words: 0.0", "  num_words: 1"))
        expected = ("weights.judge_score", "weights.ppl", "0", "judge")
    found = warnings(load_experiment(root))
    assert len(found) == (expected is not None)
    names("".join(found), *(expected or ()))


@pytest.mark.parametrize(
    ("draws", "chosen", "rejected", "pairs"), [(5, 2, 2, 4), (3, 2, 2, 2), (2, 9, 9, 1), (7, 9, 9, 12)]
)
def test_pairs_per_prompt(root, draws, chosen, rejected, pairs):
    edit(root / "params.yaml", ("num_continuations: 5", f"num_continuations: {draws}"))
    path = root / "experiments/selector/thresholds.yaml"
    edit(
        path,
        ("max_chosen_per_prompt: 2", f"max_chosen_per_prompt: {chosen}"),
        ("max_rejected_per_prompt: 2", f"max_rejected_per_prompt: {rejected}"),
    )
    assert pairs_per_prompt(load_experiment(root)) == pairs


def test_best_worst_gives_one_pair(root):
    edit(root / "params.yaml", ("selector: thresholds", "selector: best-worst"))
    assert pairs_per_prompt(load_experiment(root)) == 1


spellings = st.text("abcdefghijklmnop_", min_size=5, max_size=12)


@given(st.sets(spellings, min_size=1, max_size=8), st.data())
def test_nearest_finds_a_name_itself_and_after_two_letters_swap_places(known, data):
    name = data.draw(st.sampled_from(sorted(known)))
    at = data.draw(st.integers(0, len(name) - 2))
    swapped = name[:at] + name[at + 1] + name[at] + name[at + 2 :]
    assert closest_match(name, known) == name
    assert closest_match(swapped, {name}) == name


@given(spellings, st.sets(spellings, max_size=8))
def test_nearest_is_a_known_name_whatever_their_order(name, known):
    ordered = sorted(known)
    assert closest_match(name, ordered) == closest_match(name, ordered[::-1])
    assert closest_match(name, ordered) in {None, *known}
    assert closest_match("", ordered) is None


def test_faults_are_sorted_and_told_once():
    faults = [
        ConfigProblem("b", 2, "k", "m"),
        ConfigProblem("a", None, "", "m"),
        ConfigProblem("b", 1, "", "m"),
        ConfigProblem("b", 2, "k", "m"),
    ]
    assert str(ConfigError(faults)) == "a: m\nb:1: m\nb:2: k: m"


def test_utterances_that_may_be_too_long_for_the_model_are_told_before_anything_runs(tmp_path):
    copy_project(tmp_path)
    apply_preset("custom-corpus", tmp_path)
    experiment = load_experiment(tmp_path)
    positions = experiment.lm.max_position_embeddings
    (found,) = warnings(experiment)
    names(found, "60 s", "1502", positions, "max_duration_s", "max_position_embeddings")
    shorter = experiment.corpus.model_copy(update={"max_duration_s": (positions - 2) / 25})
    assert warnings(experiment.model_copy(update={"corpus": shorter})) == []


def test_loading_imports_nothing_heavy():
    code = (
        "import sys; from pathlib import Path; from alignslm.config.loading import library_faults;"
        f"library_faults(Path({str(REPOSITORY)!r}));"
        "print([name for name in ('torch', 'transformers', 'dvc', 'polars', 'numpy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_repository_files_are_valid():
    assert library_faults(REPOSITORY) == []
    experiment = load_experiment(REPOSITORY)
    assert warnings(experiment) == []
    load_execution(REPOSITORY)
