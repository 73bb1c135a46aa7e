"""The numbers of an experiment that an amount of speech allows: prompts, sizes, steps, pairs, texts, items."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import polars as pl

from alignslm.config.document import Plain
from alignslm.config.yaml_edit import flow, replace_value
from alignslm.ingest.sound import WHOLE_S
from alignslm.judge.calibration import MIN_HELD_BACK
from alignslm.storage import write_text

PROMPT_S, SHORTEST_PROMPT_S = 3.0, 1.0
AFTER_S = 0.5  # an utterance continues at least this long after its prompt
UNITS_PER_S = 5  # fewer is silence: speech has three to four times as many
SPARE = 0.95  # of the utterances that are long enough: some have too few units
MOST: Mapping[str, int] = {"train": 300, "valid": 60, "test": 100}
FITTED_TEXTS = 2 * MIN_HELD_BACK
LEAST_TRAINING, LEAST_HELD_OUT = 20, 4
HOUR_S = 3600.0


class TooLittleError(ValueError):
    """A corpus is too small for an experiment; the message says how small, and how much is needed."""


class Choice(NamedTuple):
    """A file of experiments/ that is a copy of another one but for some values."""

    group: str
    like: str
    values: Mapping[str, Plain]
    name: str


class PromptCounts(NamedTuple):
    """How many prompts each split gives, and how long they are, seconds."""

    train: int
    valid: int
    test: int
    length_s: float

    def values(self) -> dict[str, Plain]:
        """Return `prompts` of params.yaml."""
        counts: dict[str, Plain] = {"train": self.train, "valid": self.valid, "dev": 0, "test": self.test}
        return {
            **counts,
            "cut_at": "time",
            "max_duration_s": self.length_s,
            "min_units": int(UNITS_PER_S * self.length_s),
        }


def prompt_counts(rows: pl.DataFrame) -> PromptCounts:
    """Return the prompts that utterances (split, seconds) give: their halves, of a second to three.

    Raises TooLittleError if a split gives too few.
    """
    length = min(PROMPT_S, max(SHORTEST_PROMPT_S, math.floor(5 * (rows["seconds"].quantile(0.2) or 0)) / 10))
    fitting = rows.filter(pl.col("seconds") >= length + AFTER_S)
    counts = dict(fitting["split"].value_counts().iter_rows())
    train, valid, test = (min(most, int(SPARE * counts.get(name, 0))) for name, most in MOST.items())
    prompts = PromptCounts(train, valid, test, length)
    if prompts.train < LEAST_TRAINING or min(prompts.valid, prompts.test) < LEAST_HELD_OUT:
        raise TooLittleError(
            f"{rows['seconds'].sum() / 60:.1f} minutes in {len(rows)} utterances give {prompts.train} training, "
            f"{prompts.valid} validation and {prompts.test} test prompts of {length:g} s, each from an utterance of "
            f"{length + AFTER_S:g} s; {LEAST_TRAINING}, {LEAST_HELD_OUT} and {LEAST_HELD_OUT} are needed. Record more: "
            "ten minutes are enough."
        )
    return prompts


def _num_words() -> pl.Expr:
    return pl.col("text").str.count_matches(" ") + 1


def _prompt_words(rows: pl.DataFrame) -> int:
    return max(2, min(8, int(rows.select(_num_words().median()).item() or 8) // 3))


def choices(rows: pl.DataFrame, name: str, folder: Path, *, sample_rate_hz: int, several: bool) -> list[Choice]:
    """Return the files of experiments/ that fit utterances (split, seconds, text).

    `several` says that no speaker is in two splits.
    """
    prompts, texts = prompt_counts(rows), fitted_texts(rows)
    train = rows.filter(split="train")["seconds"]
    half = prompts.length_s / 2
    trainer: dict[str, Plain] = {"min_pairs": prompts.train // 5, "batch_size": 8 if prompts.train < 60 else 16}
    corpus: dict[str, Plain] = {
        "sample_rate_hz": sample_rate_hz,
        "overlapping_speakers": "error" if several else "allow",
        "max_duration_s": WHOLE_S,
        "num_prompt_words": _prompt_words(rows),
        "parts.folder.source.path": folder.resolve().as_posix(),
    }
    return [
        Choice("corpus", "folder", corpus, name),
        Choice("encoder", "mfcc-kmeans", {"num_units": 100 if sum(train) >= HOUR_S else 50}, name),
        Choice("lm", "llama-tiny", {"max_steps": max(100, min(600, len(train)))}, name),
        Choice("judge", "ngram-narrow", {"order": 4 if texts >= 1000 else 2}, name),
        Choice("judge", "story-lm-narrow", {"steps": max(100, min(600, texts))}, f"{name}-heldout"),
        Choice("benchmark", "corpus-cloze", {"context_s": half, "ending_s": half}, name),
        Choice("trainer", "dpo-nll", trainer, name),
        Choice("trainer", "sft", trainer, f"{name}-sft"),
    ]


def write_choice(choice: Choice, root: Path, head: str) -> Path:
    """Write a copy of a file of experiments/ with other values under `head`, a comment; comments after values stay."""
    folder = root / "experiments" / choice.group
    text = (folder / f"{choice.like}.yaml").read_text(encoding="utf-8")
    for key, value in choice.values.items():
        text = replace_value(text, tuple(key.split(".")), value)
    path = folder / f"{choice.name}.yaml"
    write_text(path, f"{head}# Like {choice.like} except: {', '.join(choice.values)}.\n{text}")
    return path


def fitted_texts(rows: pl.DataFrame) -> int:
    """Return how many texts a judge can be fitted on: training utterances with a text that has a continuation."""
    prompt_words = _prompt_words(rows)
    return rows.filter((pl.col("split") == "train") & (_num_words() > prompt_words))["text"].n_unique()


def preset(rows: pl.DataFrame, name: str, *, asr: str | None, judge: str | None) -> dict[str, Plain]:
    """Return the keys of params.yaml that the preset `name` sets.

    `asr` and `judge` are configs of experiments/, None to fit them on the texts. Raises TooLittleError
    if there are too few texts for that.
    """
    texts = fitted_texts(rows)
    if texts < FITTED_TEXTS and (asr is None or judge is None):
        raise TooLittleError(
            f"{texts} training utterances have a text of more than {_prompt_words(rows)} words; to fit a judge and an "
            f"ASR model {FITTED_TEXTS} are needed. Add texts (a metadata.csv with the columns file_name and text, or a "
            ".txt next to each recording), or transcribe them: --asr whisper-tiny.en."
        )
    checkpoint: dict[str, Plain] = {"init_from": "base", "train_on": "pairs/r1", "warmup_steps": 2}
    preferences: dict[str, Plain] = {"sampled_from": "base", "min_chosen_score": 3.2, "max_rejected_score": 2.2}
    return {
        **dict.fromkeys(("corpus", "encoder", "lm"), name),
        "judge": judge or name,
        "vocoder": "conv-griffinlim",
        "asr": asr or "char-ctc",
        "mos": "dnsmos-quick",
        "imported_preferences": {},
        "guards": {},
        "reward_models": {},
        "best_of": {},
        "heldout_judge": f"{name}-heldout" if texts >= FITTED_TEXTS else judge,
        "selector": "quantiles",
        "benchmarks": {"endings": name},
        "prompts": prompt_counts(rows).values(),
        "preferences": {"r1": {**preferences, "min_margin": 0.0, "max_auto_bleu": 0.1}},
        "checkpoints": {"r1": {**checkpoint, "trainer": name}, "sft": {**checkpoint, "trainer": f"{name}-sft"}},
        "systems": {
            **{system: {"source": f"checkpoints/{system}"} for system in ("base", "sft", "r1")},
            "ground-truth": {"source": "corpus/utterances"},
        },
    }


def write_preset(path: Path, description: str, values: Mapping[str, Plain]) -> None:
    """Write a preset, a line for each key."""
    lines = "".join(f"  {key}: {flow(value)}\n" for key, value in values.items())
    write_text(path, f"description: {flow(description)}\nset:\n{lines}")
