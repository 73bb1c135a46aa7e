"""Samples of a few systems, spoken by espeak-ng and written through the real tables: what a study is built from."""

from pathlib import Path

import numpy as np
import polars as pl

from alignslm import tables
from alignslm.audio import encode_flac
from alignslm.config.listening import ListeningTestConfig
from alignslm.provenance import content_id
from alignslm.storyworld.espeak import synthesize

RATE_HZ = 16000
SYSTEMS = ("base", "sft", "r1", "ground-truth")
ENDINGS = {"base": "tall mud", "sft": "her hat", "r1": "the cat sat", "ground-truth": "the dog ran"}
NOUNS = ("dog", "cat", "boat", "kite", "bread", "train", "hat", "cup")
LOUDER = {"base": 0.2, "sft": 0.6, "r1": 1.0, "ground-truth": 0.4}

STUDY = ListeningTestConfig(
    kind="mmos",
    title="A short study",
    question="How meaningful is the continuation?",
    labels=("no sense", "little sense", "some sense", "good sense", "perfect sense"),
    systems=("base", "sft", "r1"),
    resynthesized="ground-truth",
    original=True,
    prompts=4,
    trials_per_prompt=1,
    loudness_lufs=-23,
    pause_s=0.1,
    sample_rate_hz=RATE_HZ,
    seed=0,
)


def say(text: str) -> np.ndarray:
    return synthesize(text, voice="en-us", words_per_minute=300, sample_rate_hz=RATE_HZ)


def frame(rows: list[dict], table: tables.Table) -> pl.DataFrame:
    """Rows that leave out what they do not care about: null there."""
    return pl.DataFrame([{**dict.fromkeys(table.schema), **row} for row in rows], schema=dict(table.schema))


def build(folder: Path, *, prompts: int = 6, seconds: float | None = None) -> Path:
    """Write artifacts of `prompts` prompts and return their folder; every sound is cut after `seconds`."""
    samples = None if seconds is None else round(seconds * RATE_HZ)
    names = [content_id("prompt", number) for number in range(prompts)]
    utterances, made = [], []
    for number, name in enumerate(names):
        head, tail = say(f"a {NOUNS[number]}")[:samples], say("the dog ran")[:samples]
        utterances.append({
            "utterance_id": f"u{number}", "split": "test", "speaker_id": "s", "num_samples": len(head) + len(tail),
            "sample_rate_hz": RATE_HZ,
            "audio": {"bytes": encode_flac(np.concatenate([head, tail]), RATE_HZ), "path": None},
        })  # fmt: skip
        made.append({
            "prompt_id": name, "utterance_id": f"u{number}", "split": "test", "end_s": len(head) / RATE_HZ,
            "num_units": 2, "units": [1, 2], "continuation_units": [3],
        })  # fmt: skip
    tables.write_shards([tables.conform(frame(utterances, tables.UTTERANCES), tables.UTTERANCES)],
                        tables.UTTERANCES, folder / "corpus" / "utterances")  # fmt: skip
    tables.write(frame(made, tables.PROMPTS), tables.PROMPTS, folder / "prompts.parquet")
    for system in SYSTEMS:
        _write_system(system, names, folder / "samples" / system, samples)
    return folder


def _write_system(system: str, names: list[str], folder: Path, samples: int | None) -> None:
    drawn, spoken = [], []
    for name in names:
        for draw in range(1 if system == "ground-truth" else 2):
            continuation = content_id(system, name, draw)
            drawn.append({
                "continuation_id": continuation, "prompt_id": name, "sample_index": draw, "model_id": system, "seed": 0,
                "units": [draw], "finish_reason": "eos", "logprob": -1.0,
            })  # fmt: skip
            silent = system == "sft" and name == names[0]
            wave = np.zeros(0, np.float32) if silent else LOUDER[system] * say(ENDINGS[system])[:samples]
            spoken.append({
                "continuation_id": continuation, "num_samples": len(wave), "sample_rate_hz": RATE_HZ,
                "status": "empty" if silent else "ok", "audio": {"bytes": encode_flac(wave, RATE_HZ), "path": None},
            })  # fmt: skip
    tables.write(frame(drawn, tables.CONTINUATIONS), tables.CONTINUATIONS, folder / "continuations.parquet")
    tables.write_shards([tables.conform(frame(spoken, tables.SPEECH), tables.SPEECH)], tables.SPEECH, folder / "speech")


def write_scores(folder: Path, values: dict[str, dict[str, float]], *, metric: str = "judge_score") -> None:
    """Write judged tables: system -> continuation_id -> value."""
    for system, given in values.items():
        rows = [
            {
                "model": system,
                "continuation_id": name,
                "prompt_id": "p",
                "sample_index": 0,
                "metric": metric,
                "value": value,
            }
            for name, value in given.items()
        ]
        tables.write(
            frame(rows, tables.CONTINUATION_METRICS),
            tables.CONTINUATION_METRICS,
            folder / "eval" / system / "judged.parquet",
        )
