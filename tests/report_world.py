"""A small experiment's artifacts, written through the real tables, with known shifts between models."""

import json
from pathlib import Path

import numpy as np
import polars as pl
from ruamel.yaml import YAML

from alignslm import tables
from alignslm.audio import encode_flac
from alignslm.config.presets import preview_values
from alignslm.provenance import content_id
from alignslm.report.run_info import RunInfo

ROOT = Path(__file__).parent.parent
RATE_HZ = 8000
SHIFTS = {"base": 0.0, "base-low-temp": 0.25, "ntp": 0.03, "sft": 0.8, "r1": 0.85, "r2": 1.25, "ground-truth": 1.0}
NOUNS = ("dog", "cat", "boat", "kite", "bread", "train")
VERBS = ("sees", "finds", "loses", "likes")
UNWRITTEN = 8  # a prompt that the corpus gives no text of, among the examples
NOT_MEASURED = (None, None, None)  # raw text and signs of hallucination

PRESET = YAML(typ="safe").load(ROOT / "experiments/preset/embedded-full.yaml")["set"]  # two rounds, every baseline
EXPERIMENT = preview_values(
    {
        **PRESET,
        "benchmarks": {name: f"toy-{name}" for name in ("swuggy", "sblimp", "storycloze")},
    },
    ROOT,
    named="tests",
).experiment
ORIGIN = RunInfo(
    git_commit="0123456789abcdef0123456789abcdef01234567",
    dirty=True,
    dvc_lock_sha256=None,
    packages={"alignslm": "0.1.0", "torch": "2.13.0"},
    python="3.11.9",
    processor="AMD EPYC, 2 cores",
    device="cpu",
)


def tone(hz: float, *, seconds: float) -> bytes:
    """Return FLAC of a sine tone."""
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return encode_flac((0.3 * np.sin(2 * np.pi * hz * times)).astype(np.float32), RATE_HZ)


def build(folder: Path, *, num_prompts: int = 40) -> Path:
    """Write all artifacts a report reads and return their folder."""
    rng = np.random.default_rng(3)
    prompts = _prompts(num_prompts)
    tables.write(prompts, tables.PROMPTS, folder / "prompts.parquet")
    unwritten = prompts.filter(pl.col("prompt_text").is_null())["prompt_id"].sort()
    heard = [(name, "the boy as heard", "ok", 0.9, *NOT_MEASURED) for name in unwritten]
    tables.write(_frame(heard, tables.TRANSCRIPTS), tables.TRANSCRIPTS, folder / "prompt_transcripts.parquet")
    _write_utterances(prompts, folder)
    difficulty = dict(zip(prompts["prompt_id"], rng.normal(0, 0.5, num_prompts), strict=True))
    for model in SHIFTS:
        _write_model(model, prompts, difficulty, rng, folder)
    for place, system in enumerate([*SHIFTS, "original-prompts", "original-continuations"]):
        _write_mos(system, 2.8 + 0.1 * place, prompts, folder)
    for number, name in enumerate(EXPERIMENT.params.rounds):
        _write_round(name, 0.6 * number, prompts, rng, folder)
        _write_training(name, folder)
    for name in {"base", *EXPERIMENT.params.checkpoints} - set(EXPERIMENT.params.rounds):
        (folder / "training_logs" / f"{name}.json").write_text('{"steps": 0, "best": null, "log": []}')
    return folder


def _prompts(count: int) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "prompt_id": content_id("prompt", i),
                "utterance_id": f"u{i:03d}",
                "split": "test",
                "end_s": 0.5,
                "num_units": 3,
                "units": [1, 2, 3],
                "continuation_units": [4, 5],
                "prompt_text": None if i == UNWRITTEN else f"the girl has a {NOUNS[i % 6]} <b>&",
                "continuation_text": f"she {VERBS[i % 4]} the {NOUNS[i % 6]}",
            }
            for i in range(count)
        ]
    )


def _write_utterances(prompts: pl.DataFrame, folder: Path) -> None:
    rows = [
        {
            "utterance_id": name,
            "split": "test",
            "speaker_id": "s",
            "text": None,
            "prompt_text": None,
            "continuation_text": None,
            "prompt_end_s": 0.5,
            "num_samples": RATE_HZ,
            "sample_rate_hz": RATE_HZ,
            "audio": {"bytes": tone(200 + 10 * place, seconds=1.0), "path": None},
        }
        for place, name in enumerate(prompts["utterance_id"])
    ]
    frame = pl.DataFrame(rows, schema=dict(tables.UTTERANCES.schema))
    halves = [frame.head(len(frame) // 2), frame.slice(len(frame) // 2)]
    tables.write_shards(halves, tables.UTTERANCES, folder / "corpus" / "utterances")


def _write_model(
    model: str, prompts: pl.DataFrame, difficulty: dict[str, float], rng: np.random.Generator, folder: Path
) -> None:
    draws = range(1 if model == "ground-truth" else 2)
    ids = [(content_id(p, d), p, d) for p in prompts["prompt_id"] for d in draws]
    frame = pl.DataFrame(ids, schema=["continuation_id", "prompt_id", "sample_index"], orient="row").sort(
        "continuation_id"
    )
    judged, transcripts, speech = [], [], []
    sound = np.random.default_rng(len(model))  # its own, so that what was drawn before it was thought of stays
    for name, prompt, draw in frame.iter_rows():
        judge = float(np.clip(2.6 + SHIFTS[model] + difficulty[prompt] + rng.normal(0, 0.3), 1, 5))
        failed = model == "base" and prompt == prompts["prompt_id"][5] and draw == 1
        words = f"she {rng.choice(VERBS)} the {rng.choice(NOUNS)} and the {rng.choice(NOUNS)}"
        values = {
            "judge_score": None if failed else judge,
            "heldout_judge_score": None if failed else float(np.clip(judge + rng.normal(0.1, 0.2), 1, 5)),
            "ppl": None if failed else float(np.exp(3 - 0.4 * judge + rng.normal(0, 0.1))),
            "auto_bleu": None if failed else float(rng.choice([0, 0, 0, 0.2])),
            "num_words": float(len(words.split())),
            "num_units": float(rng.integers(20, 40)),
            "duration_s": float(rng.uniform(1, 2)),
            "eos_rate": float(rng.random() < 0.95),
            "silence_ratio": float(sound.uniform(0.05, 0.2)),
            "unit_error_rate": float(sound.uniform(0, 0.1)),
            "grammatical": float(rng.random() < 0.2 + 0.3 * SHIFTS[model]),
        }
        judged += [(model, name, prompt, draw, metric, value) for metric, value in values.items()]
        heard = (None, "failed", None) if failed else (words, "ok", 0.9)
        transcripts.append((name, *heard, *NOT_MEASURED))
        silent = model == "sft" and draw == 0 and prompt == min(prompts["prompt_id"])
        seconds = 0.3 if model == "r2" else 0.6  # r2's are one frame of FLAC
        flac = b"" if silent else tone(300, seconds=seconds)
        speech.append(
            (name, {"bytes": flac, "path": None}, round(seconds * RATE_HZ), RATE_HZ, "empty" if silent else "ok")
        )
    samples, evaluated = folder / "samples" / model, folder / "eval" / model
    tables.write(_frame(judged, tables.CONTINUATION_METRICS), tables.CONTINUATION_METRICS, evaluated / "judged.parquet")
    scored = [] if model == "ground-truth" else _item_scores(model, rng)
    tables.write(_frame(scored, tables.ITEM_SCORES), tables.ITEM_SCORES, evaluated / "item_scores.parquet")
    tables.write(_frame(transcripts, tables.TRANSCRIPTS), tables.TRANSCRIPTS, samples / "transcripts.parquet")
    if model == "ground-truth":
        _write_recorded(prompts, samples)
    tables.write_shards([_frame(speech, tables.SPEECH)], tables.SPEECH, samples / "speech")


def _write_recorded(prompts: pl.DataFrame, folder: Path) -> None:
    """Write what was heard of recordings: every fourth text loses its last word, one was given up."""
    rows = [
        (name, " ".join(text.split()[: None if place % 4 else -1]), "ok", 0.9, *NOT_MEASURED) if place else
        (name, None, "failed", None, *NOT_MEASURED)
        for place, (name, text) in enumerate(prompts.sort("prompt_id").select("prompt_id", "continuation_text").rows())
    ]  # fmt: skip
    tables.write(_frame(rows, tables.TRANSCRIPTS), tables.TRANSCRIPTS, folder / "recorded.parquet")


def _frame(rows: list, table: tables.Table) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict(table.schema), orient="row")


def _item_scores(model: str, rng: np.random.Generator) -> list:
    subtypes = {"swuggy": [""], "sblimp": ["number", "pronoun"], "storycloze": ["topic", "pronoun", "object"]}
    rows = []
    for benchmark, kinds in subtypes.items():
        for item in range(60):
            correct = float(rng.random() < 0.6 + 0.1 * SHIFTS[model])
            missing = benchmark == "swuggy" and item == 7
            nats = None if missing else -1.0
            kind = kinds[item % len(kinds)]
            row = (benchmark, f"{benchmark}-{item:03d}", "v", model, None, kind, None, None, nats, nats, 3, 3)
            parts = (0.0, 0, -3.0, 3, None)  # context, ending, no end of sequence
            rows.append((*row, None if missing else correct, *parts, *parts))
    return rows


def _write_mos(system: str, level: float, prompts: pl.DataFrame, folder: Path) -> None:
    rows = [
        (system, content_id(system, p), p, metric, level + 0.01 * (place % 5), "ok") if place < 10 else
        (system, content_id(system, p), p, metric, None, "empty" if place == 10 else "skipped")
        for place, p in enumerate(prompts["prompt_id"])
        for metric in ("dnsmos_bak", "dnsmos_ovrl")
    ]  # fmt: skip
    tables.write(_frame(rows, tables.MOS), tables.MOS, folder / "mos" / f"{system}.parquet")


def _write_round(name: str, shift: float, prompts: pl.DataFrame, rng: np.random.Generator, folder: Path) -> None:
    scores = [
        (content_id(name, p, d), p, d, float(np.clip(rng.normal(2.7 + shift, 0.9), 1, 5)), 9.0, 0.0, 6, "ok")
        for p in prompts["prompt_id"]
        for d in range(5)
    ]
    scores[0] = (*scores[0][:3], None, None, None, 0, "failed")
    tables.write(_frame(scores, tables.SCORES), tables.SCORES, folder / "scores" / f"{name}.parquet")
    counts = {
        split: {
            "prompts": prompts_with + sum(skipped), "prompts_with_pairs": prompts_with, "pairs": 2 * prompts_with,
            "skipped_prompts": {"no draw high enough": skipped[0], "no draw low enough": skipped[1], "never": 0},
            "mean_margin": 1.75, "mean_length_difference_units": 0.0,
            "vetoed_rejected_share": 0.0, "empty_rejected_share": 0.0,
        }
        for split, prompts_with, skipped in (("train", 25, (4, 6)), ("valid", 5, (0, 0)))
    }  # fmt: skip
    path = folder / "pair_counts" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(counts | {"min_chosen_score": 3.2 + shift, "max_rejected_score": 2.2}))


def _write_training(name: str, folder: Path) -> None:
    log = [{"step": step, "figures": {"loss": 1.2 - step / 100}} for step in range(10, 60, 10)]
    log += [
        {
            "step": step,
            "figures": {
                "eval_loss": 0.6,
                "eval_rewards/accuracies": 0.5 + step / 150,
                "eval_rewards/margins": step / 40,
                "eval_logps/chosen": -40 + step / 50,
                "eval_logps/rejected": -44 - step / 5,
            },
        }
        for step in range(10, 60, 10)
    ]
    best = {"step": 50, "reward_accuracy": 0.83, "reward_margin": 1.25}
    path = folder / "training_logs" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"steps": 50, "best": best, "log": log}))
