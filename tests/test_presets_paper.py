# ruff: noqa: E501 (a message is easier to compare on one line)
"""The presets hold the hyper-parameters of arXiv 2411.01834 exactly, and an ablation changes what it says."""

import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from alignslm.config.document import read_document
from alignslm.config.feedback import SelectorConfig
from alignslm.config.loading import load_experiment
from alignslm.config.models import TrainerConfig
from alignslm.config.presets import apply_preset, list_presets, preview
from alignslm.config.problems import ConfigError
from alignslm.config.speech import CorpusConfig
from alignslm.config.validation import validate
from tests.messages import names
from tests.sample_experiment import PRESETS as PRESETS_OF_SAMPLE
from tests.sample_experiment import edit, write_experiment

REPOSITORY = Path(__file__).parent.parent
PRESETS = list_presets(REPOSITORY)
WHOLE = [name for name, preset in PRESETS.items() if preset.set.get("corpus") == "librispeech"]


def choice(folder, name, kind):
    value = validate(read_document(REPOSITORY / "experiments" / folder / f"{name}.yaml"), TypeAdapter(kind), kind)
    assert not isinstance(value, list), value
    return value


def everything(name):
    """Return the keys that a preset sets, its own over those of the one it stands on."""
    preset = PRESETS[name]
    below = PRESETS[preset.extends].set if preset.extends else {}
    return {**below, **preset.set}


def test_the_papers_presets_are_there():
    assert WHOLE == ["slam", "twist-1.3b", "twist-7b"]
    assert {name for name, preset in PRESETS.items() if preset.extends} == {
        *(
            "twist-1.3b-continued",
            "twist-1.3b-mls",
            "twist-1.3b-one-round",
            "twist-1.3b-ppl",
            "twist-1.3b-three-rounds",
        ),
        *("twist-7b-mls", "twist-7b-one-round", "twist-7b-three-rounds"),
    }


@pytest.mark.parametrize("name", WHOLE)
def test_models_and_feedback_are_the_papers(name):
    keys = PRESETS[name].set
    assert keys["encoder"] == ("mhubert-25hz-km500-slamkit" if name == "slam" else "mhubert-25hz-km500")
    assert keys["vocoder"] == "hifigan-lj-mhubert-25hz"
    assert keys["asr"] == "whisper-large-v2"
    assert (keys["judge"], keys["heldout_judge"]) == ("mistral-7b-generate", "gpt4o")
    assert keys["lm"] == name
    assert (keys["prompts"]["cut_at"], keys["prompts"]["max_duration_s"]) == ("time", 3.0)
    assert keys["sampling"]["num_continuations"] == 5
    assert keys["weights"] == {"judge_score": 1.0, "ppl": 0.0, "auto_bleu": 0.0, "num_words": 0.0}
    rules = {key: (r["min_chosen_score"], r["max_rejected_score"], r["max_auto_bleu"], keys["checkpoints"][key]["warmup_steps"], r["sampled_from"]) for key, r in keys["preferences"].items()}  # fmt: skip
    assert rules == {"r1": (3.0, 1.0, 0.1, 500, "base"), "r2": (4.0, 2.0, 0.1, 0, "r1")}


@pytest.mark.parametrize(("trainer", "steps"), [("dpo-paper", 100_000), ("dpo-paper-mls", 300_000)])
def test_training_is_the_papers(trainer, steps):
    config = choice("trainer", trainer, TrainerConfig)
    assert config.loss_weights == {"sigmoid": 1.0}
    assert (config.beta, config.lora.r, config.lora.alpha) == (0.1, 32, 8)
    assert (config.batch_size, config.learning_rate, config.lr_scheduler_type, config.max_steps) == (
        512,
        1e-6,
        "linear",
        steps,
    )


def test_the_baselines_differ_from_it_in_the_objective_alone():
    paper, sft, ntp = (choice("trainer", name, TrainerConfig) for name in ("dpo-paper", "sft-paper", "ntp-paper"))
    assert paper.model_copy(update={"loss_weights": {"sft": 1.0}}) == sft
    assert (ntp.lora, ntp.learning_rate, ntp.batch_size, ntp.max_steps) == (
        paper.lora,
        paper.learning_rate,
        paper.batch_size,
        paper.max_steps,
    )


def test_the_checkpoint_is_chosen_on_dev_clean():
    part = choice("corpus", "librispeech", CorpusConfig).parts["librispeech"]
    assert part.subsets.train == ("train-clean-100", "train-clean-360", "train-other-500")
    assert (part.subsets.valid, part.subsets.test) == (("dev-clean",), ("test-clean",))


def test_ablations_change_what_they_say():
    assert everything("twist-1.3b-ppl")["weights"] == {
        "judge_score": 0.0,
        "ppl": 1.0,
        "auto_bleu": 0.0,
        "num_words": 0.0,
    }
    assert choice("selector", everything("twist-1.3b-ppl")["selector"], SelectorConfig).kind == "best-worst"
    for size in ("1.3b", "7b"):
        assert list(everything(f"twist-{size}-one-round")["preferences"]) == ["r1"]
        assert list(everything(f"twist-{size}-three-rounds")["preferences"]) == ["r1", "r2", "r3"]
        assert everything(f"twist-{size}-mls")["checkpoints"]["r1"]["trainer"] == "dpo-paper-mls"
    assert everything("twist-1.3b-continued")["checkpoints"]["ntp"]["trainer"] == "ntp-paper"
    with_mls = choice("corpus", everything("twist-7b-mls")["corpus"], CorpusConfig)
    assert [part.kind for part in with_mls.parts.values()] == ["librispeech", "mls"]


# --- a preset on another ---


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(write_experiment(tmp_path))
    return Path()


def write_preset(name, text):
    Path("experiments/preset", f"{name}.yaml").write_text(text)


def test_a_preset_on_another_is_a_whole_experiment(root):
    write_preset("both", "description: x\nextends: longer\nset: {weights: {ppl: 1.0}, judge: ngram}\n")
    apply_preset("both", root)
    params = load_experiment(root).params
    assert list(params.rounds) == ["r1", "r2", "r3"]
    assert (params.judge, params.weights.ppl, params.weights.judge_score) == ("ngram", 1.0, 1.0)


def test_rounds_of_the_upper_preset_replace_those_of_the_lower(root):
    write_preset("less", "description: x\nextends: longer\n" + PRESETS_OF_SAMPLE["shorter"].partition("\n")[2])
    assert list(preview("less", root).experiment.params.rounds) == ["r1"]


def test_the_upper_preset_sets_single_keys_of_a_group(root):
    write_preset("lower", "description: x\nset: {sampling: {num_continuations: 7, temperature: 0.5}}\n")
    write_preset("upper", "description: x\nextends: lower\nset: {sampling: {num_continuations: 9}}\n")
    sampling = preview("upper", root).experiment.params.sampling
    assert (sampling.num_continuations, sampling.temperature) == (9, 0.5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("description: x\nextends: long\nset: {}\n", ("experiments/preset/long.yaml", "'longer'")),
        ("description: x\nextends: middle\nset: {}\n", ("experiments/preset/top.yaml: extends", "middle", "longer")),
    ],
)  # fmt: skip
def test_a_preset_on_nothing_or_on_a_tower(root, text, expected):
    write_preset("middle", "description: x\nextends: longer\nset: {}\n")
    write_preset("top", text)
    before = Path("params.yaml").read_bytes()
    with pytest.raises(ConfigError) as error:
        apply_preset("top", root)
    names(error.value, *expected)
    assert Path("params.yaml").read_bytes() == before


def without_lines(error):
    return [re.fullmatch(r"params\.yaml:\d+: (.*)", line)[1] for line in str(error.value).splitlines()]


def test_cuts_that_the_corpus_cannot_make_and_items_of_another_world_are_told_at_once(root):
    write = Path("experiments/corpus/speech.yaml").write_text
    corpus = (REPOSITORY / "experiments/corpus/librispeech.yaml").read_text()
    write(corpus)
    edit(Path("params.yaml"), ("corpus: world", "corpus: speech"))
    for cut, facts in {
        "sentence": ("'sentence'", "speech", "time", "word"),
        "word": ("'word'", "speech", "parts.*.alignments", "experiments/corpus/speech.yaml", "time"),
    }.items():
        text = Path("params.yaml").read_text()
        line = next(line for line in text.splitlines() if line.startswith("  cut_at: "))
        Path("params.yaml").write_text(text.replace(line, f"  cut_at: {cut}"))
        with pytest.raises(ConfigError) as error:
            load_experiment(root)
        items, prompts = without_lines(error)
        names(items, "benchmarks.swuggy", "toy-swuggy", "speech")
        names(prompts, "prompts.cut_at", *facts)


def test_the_story_world_has_no_word_times(root):
    edit(Path("params.yaml"), ("cut_at: sentence", "cut_at: word"))
    with pytest.raises(ConfigError) as error:
        load_experiment(root)
    (line,) = without_lines(error)
    names(line, "prompts.cut_at", "'word'", "world", "sentence", "time")


def bad_corpus(old, new):
    text = (REPOSITORY / "experiments/corpus/librispeech.yaml").read_text()
    assert text.count(old) == 1, old
    path = Path("corpus.yaml")
    path.write_text(text.replace(old, new))
    return [str(fault) for fault in validate(read_document(path), TypeAdapter(CorpusConfig), CorpusConfig)]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[dev-other]", "[dev-clean]", [("corpus.yaml:24: parts.librispeech.subsets.dev", "'dev-clean'", "valid")]),
        ("      test: [test-clean]", "      test: []", [("corpus.yaml:11: parts", "test", "train, valid")]),
        ("      kind: folder", "      kind: hub", [("corpus.yaml:15: parts.librispeech.source.kind", "'folder'", "'hub'")]),
        ("    kind: librispeech\n", "    kind: librispech\n", [("corpus.yaml:13: parts.librispeech.kind", "'librispech'", "'librispeech'", "librispeech, mls, audiofolder, parquet")]),
        ("    kind: librispeech\n", "", [("corpus.yaml:12: parts.librispeech.kind", "missing", "librispeech, mls, audiofolder, parquet")]),
        ("max_duration_s: 40.0  ", "max_duration: 40.0  ", [("corpus.yaml:1: max_duration_s", "missing"), ("corpus.yaml:5: max_duration", "unknown", "'max_duration_s'")]),
    ],
)  # fmt: skip
def test_faults_of_a_corpus_file(root, old, new, expected):
    for line, facts in zip(bad_corpus(old, new), expected, strict=True):
        names(line, *facts)


def test_every_preset_says_only_keys_of_params():
    known = set(YAML(typ="safe").load((REPOSITORY / "params.yaml").read_text()))
    assert {key for preset in PRESETS.values() for key in preset.set} <= known
