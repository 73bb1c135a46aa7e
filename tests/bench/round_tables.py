"""Tables of a round at any size: prompts, continuations and scores with the schema and the spread of real ones."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from alignslm import tables
from alignslm.config.curriculum import JudgedPreferences
from alignslm.provenance import UnitContract

PROMPTS_A_SHARD = 50_000
NUM_UNITS = 500
PROMPT_UNITS = (20, 75)  # shortest and longest: 3 s at 25 Hz
CONTINUATION_UNITS = (20, 160)
SHARES = {"train": 0.94, "valid": 0.02, "dev": 0.02, "test": 0.02}
CONTINUED = ("train", "valid")
UNHEARD = {"empty": 0.02, "failed": 0.01}  # the rest is judged
CONTRACT = UnitContract(
    encoder="simulated",
    revision="1",
    sample_rate_hz=16000,
    frame_rate_hz=25.0,
    layer=None,
    padding="none",
    codebook_sha256="",
    num_units=NUM_UNITS,
    deduplicated=True,
)


class Written(NamedTuple):
    """What was written: rows, how many of the prompts have continuations, bytes on disk."""

    prompts: int
    selectable: int
    continuations: int
    num_bytes: int


def write_round(
    folder: Path, *, continuations: int, draws: int, rules: JudgedPreferences, seed: int, name: str
) -> Written:
    """Write the three tables that selection reads below `folder`, shard by shard, as stages lay them out.

    About `continuations` are written, `draws` of each train and valid prompt; other prompts stand between them.

    Judge scores spread around the thresholds of `rules`, so that some half of the prompts give pairs. Same arguments,
    same bytes. Memory: one shard, and 8 bytes a prompt.
    """
    rng = np.random.default_rng(seed)
    count = round(continuations / draws / sum(SHARES[split] for split in CONTINUED))
    ids = np.unique(rng.integers(0, 2**63, size=count, dtype=np.uint64))  # a repeat, one in 10**5 runs, is one less
    paths = [folder / "prompts.parquet", *(folder / kind / f"{name}.parquet" for kind in ("continuations", "scores"))]
    selectable = drawn = 0
    with (
        tables.open_table(tables.PROMPTS, paths[0], CONTRACT) as prompts,
        tables.open_table(tables.CONTINUATIONS, paths[1], CONTRACT) as continued,
        tables.open_table(tables.SCORES, paths[2]) as scores,
    ):
        for shard in _shards(ids):
            asked = _prompts(shard, rng)
            rows = _draws(asked, draws, rng)
            prompts.add(asked)
            continued.add(_continuations(rows, rng))
            scores.add(_scores(rows, rules, rng))
            selectable += rows["prompt_id"].n_unique()
            drawn += len(rows)
    return Written(len(ids), selectable, drawn, sum(path.stat().st_size for path in paths))


def _shards(ids: np.ndarray) -> Iterator[np.ndarray]:
    return (ids[start : start + PROMPTS_A_SHARD] for start in range(0, len(ids), PROMPTS_A_SHARD))


def _hex(ids: np.ndarray) -> pl.Series:
    """Return 16 hex digits a number, in the numbers' order."""
    raw = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(8), len(ids), [None, pa.py_buffer(ids.astype(">u8").tobytes())]
    )
    return pl.Series(pl.from_arrow(raw.cast(pa.large_binary()))).bin.encode("hex")


def _units(rows: int, shortest: int, longest: int, rng: np.random.Generator) -> pl.Series:
    lengths = rng.integers(shortest, longest + 1, size=rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = rng.integers(0, NUM_UNITS, size=offsets[-1], dtype=np.uint16)
    return pl.Series(pl.from_arrow(pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))))


def _prompts(ids: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    units = _units(len(ids), *PROMPT_UNITS, rng)
    splits = rng.choice(list(SHARES), size=len(ids), p=list(SHARES.values()))
    return pl.DataFrame({"prompt_id": _hex(ids), "split": pl.Series(splits, dtype=pl.String), "units": units}).select(
        "prompt_id",
        pl.col("prompt_id").alias("utterance_id"),
        "split",
        end_s=pl.lit(3.0),
        num_units=pl.col("units").list.len().cast(pl.Int32),
        units="units",
        continuation_units=pl.lit([], tables.UNITS),
        prompt_text=pl.lit(None, pl.String),
        continuation_text=pl.lit(None, pl.String),
    )


def _draws(prompts: pl.DataFrame, draws: int, rng: np.random.Generator) -> pl.DataFrame:
    """Return continuation_id, prompt_id, draw and status, in the order of the id."""
    numbers = pl.Series("sample_index", range(draws), dtype=pl.Int32)
    asked = prompts.filter(pl.col("split").is_in(CONTINUED)).select("prompt_id")
    rows = asked.join(numbers.to_frame(), how="cross").with_columns(
        continuation_id=pl.format("{}-51d0e5-{}", "prompt_id", "sample_index")
    )
    kinds = ["ok", *UNHEARD]
    status = rng.choice(kinds, size=len(rows), p=[1 - sum(UNHEARD.values()), *UNHEARD.values()])
    return rows.with_columns(status=pl.Series(status, dtype=pl.String)).sort("continuation_id")


def _continuations(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    return rows.select(
        "continuation_id",
        "prompt_id",
        "sample_index",
        model_id=pl.lit("simulated"),
        seed=pl.Series(rng.integers(0, 2**62, size=len(rows))),
        units=_units(len(rows), *CONTINUATION_UNITS, rng),
        finish_reason=pl.lit("length"),
        logprob=pl.Series(rng.normal(-200, 40, size=len(rows)).round(2)),
    )


def _scores(rows: pl.DataFrame, rules: JudgedPreferences, rng: np.random.Generator) -> pl.DataFrame:
    """Scores spread as wide as the thresholds lie apart, around their middle."""
    middle, width = (
        (rules.min_chosen_score + rules.max_rejected_score) / 2,
        rules.min_chosen_score - rules.max_rejected_score,
    )
    judged = rng.normal(middle, max(width, 0.5), size=len(rows)).clip(1, 5)
    heard = pl.col("status") == "ok"
    return rows.select(
        "continuation_id",
        "prompt_id",
        "sample_index",
        judge_score=pl.when(heard).then(pl.Series(judged)),
        ppl=pl.when(heard).then(pl.Series(rng.lognormal(4, 1, size=len(rows)))),
        auto_bleu=pl.when(heard).then(pl.Series(rng.exponential(rules.max_auto_bleu / 3, size=len(rows)))),
        num_words=pl.when(heard).then(pl.Series(rng.integers(5, 40, size=len(rows)))).otherwise(0),
        status="status",
    )
