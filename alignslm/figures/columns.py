"""The values behind every reported number: one column of rows and clusters per system and metric."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, get_args

import numpy as np
import polars as pl

from alignslm.benchmarks.conventions import BANDS, OOV, conventions_of
from alignslm.config.benchmarks import SalmonPart
from alignslm.figures.corpus_level import Values, distinct_values, word_error_values
from alignslm.metrics import words
from alignslm.statistics import ANSWERS, POINTS, RATIO, Scale, group_means

BASE = "base"
FINETUNED = "sft"
CONTINUATION = "continuation"
ACCURACY = "accuracy"
SPEECH = "speech"
WORD_ERROR = "word_error_rate"
SKIPPED = "skipped"  # a clip left out on purpose: not missing

# Metrics of judged continuations in the order of the report. None: neither direction is better in itself.
DIRECTIONS: dict[str, bool | None] = {
    "judge_score": True,
    "heldout_judge_score": True,
    "grammatical": True,
    "ppl": False,
    "log_ppl": False,
    "auto_bleu": False,
    "unique_ratio": True,
    "unique_ratio_per_index": True,
    "distinct_1": None,  # nonsense that ASR spells differently each time also raises them
    "distinct_2": None,
    "eos_rate": True,
    "num_words": None,
    "num_units": None,
    "duration_s": None,
    "silence_ratio": None,
    "unit_error_rate": False,
}
SCALES = {
    **dict.fromkeys(("judge_score", "heldout_judge_score"), POINTS),
    **dict.fromkeys(("grammatical", "eos_rate"), ANSWERS),
    **dict.fromkeys(("auto_bleu", "unique_ratio", "unique_ratio_per_index", "silence_ratio"), RATIO),
}


class ReportError(ValueError):
    """Tables do not belong together, or contain values that cannot be reported."""


class MetricColumn(NamedTuple):
    """Rows of one system and metric: values (rows,), NaN if missing, their clusters (rows,), and the metric's ends."""

    benchmark: str
    metric: str
    values: np.ndarray
    clusters: np.ndarray
    higher_is_better: bool | None
    scale: Scale | None = None


class EvalTables(NamedTuple):
    """Rows of any systems: CONTINUATION_METRICS, ITEM_SCORES, TRANSCRIPTS by system, MOS, WORD_ERRORS.

    The last two are None if they were not measured.
    """

    judged: pl.DataFrame
    item_scores: pl.DataFrame
    transcripts: Mapping[str, pl.DataFrame]
    mos: pl.DataFrame | None = None
    word_errors: pl.DataFrame | None = None


def columns_of(measured: EvalTables, model: str) -> dict[tuple[str, str], MetricColumn]:
    """Return a model's columns by (benchmark, metric), in the order of the report, without those it lacks."""
    rows, mos, word_errors = measured.judged.filter(model=model), measured.mos, measured.word_errors
    found = [*_judged_columns(rows)]
    if model in measured.transcripts and not rows.is_empty():
        found += _diversity_columns(rows, measured.transcripts[model], model)
    rank = {name: place for place, name in enumerate(DIRECTIONS)}
    found.sort(key=lambda column: (rank.get(column.metric, len(rank)), column.metric))
    found += _item_columns(measured.item_scores.filter(model=model))
    found += _speech_columns(mos.filter(system=model)) if mos is not None else []
    found += _word_error_columns(word_errors.filter(system=model)) if word_errors is not None else []
    return {(column.benchmark, column.metric): column for column in found}


def _judged_columns(rows: pl.DataFrame) -> Iterator[MetricColumn]:
    ids = rows.select("continuation_id", "prompt_id").unique().sort("continuation_id")
    for metric in rows["metric"].unique().sort():
        values = ids.join(rows.filter(metric=metric), on="continuation_id", how="left").sort("continuation_id")
        column = _finite(values, metric)
        clusters = values["prompt_id"].to_numpy()
        if metric == "ppl":
            yield MetricColumn(CONTINUATION, "log_ppl", _log(column), clusters, DIRECTIONS["log_ppl"])
        else:
            yield MetricColumn(CONTINUATION, metric, column, clusters, DIRECTIONS.get(metric), SCALES.get(metric))


def _finite(rows: pl.DataFrame, metric: str) -> np.ndarray:
    if (infinite := rows.filter(pl.col("value").is_infinite())).height:
        model, row = infinite[0, "model"], infinite[0, "continuation_id"]
        raise ReportError(
            f"judged table of {model!r}: {metric} of continuation {row} is infinite ({infinite.height} such rows). "
            "A value that could not be measured must be null."
        )
    return rows["value"].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _log(perplexity: np.ndarray) -> np.ndarray:
    if (perplexity <= 0).any():
        raise ReportError(f"the perplexity {np.nanmin(perplexity)} is impossible: perplexities are above 0")
    return np.log(perplexity)


def _diversity_columns(rows: pl.DataFrame, transcripts: pl.DataFrame, model: str) -> Iterator[MetricColumn]:
    ids = rows.select("continuation_id", "prompt_id", "sample_index").unique().sort("continuation_id")
    joined = ids.join(transcripts, left_on="continuation_id", right_on="source_id", how="left").sort("continuation_id")
    if absent := joined["status"].null_count():
        raise ReportError(f"{absent} judged continuations of {model!r} have no transcript row; run `dvc repro`")
    text = pl.when(pl.col("status") == "empty").then(pl.lit("")).otherwise(pl.col("text"))
    texts = joined.select("prompt_id", "sample_index", text=text)
    yield from _distinct_columns(texts)
    draws = [dict(some.select("prompt_id", "text").iter_rows()) for some in texts.partition_by("sample_index")]
    for n in (1, 2):
        found, prompts = _by_prompt(distinct_values(draws, n=n), texts["prompt_id"])
        yield MetricColumn(CONTINUATION, f"distinct_{n}", found, prompts, DIRECTIONS[f"distinct_{n}"])


def _by_prompt(values: Values, prompts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return one value per prompt, NaN if there is none, and the prompts."""
    order = prompts.unique().sort()
    return np.array([values.get(prompt, np.nan) for prompt in order]), order.to_numpy()


def _distinct_columns(texts: pl.DataFrame) -> Iterator[MetricColumn]:
    same = pl.col("text").map_elements(lambda text: " ".join(words(text)), return_dtype=pl.String)
    marked = texts.with_columns(same=same)
    share = 1 / pl.len().cast(pl.Float64)
    measured = pl.col("same").is_not_null()
    shares = marked.select(
        "prompt_id",
        unique_ratio=pl.when(measured).then(share.over("same")),
        unique_ratio_per_index=pl.when(measured).then(share.over("same", "sample_index")),
    )
    clusters = shares["prompt_id"].to_numpy()
    for name in ("unique_ratio", "unique_ratio_per_index"):
        values = shares[name].fill_null(float("nan")).to_numpy()
        yield MetricColumn(CONTINUATION, name, values, clusters, DIRECTIONS[name], SCALES[name])


def _item_columns(rows: pl.DataFrame) -> Iterator[MetricColumn]:
    """Yield the accuracies of every benchmark: overall, of its parts, and the main figures under every convention.

    A pair's value is the mean over its measured voices, and every pair counts the same, as in the official scorers.
    Conventions follow an @: `accuracy@conditional-sum-eos`.
    """
    for benchmark in rows["benchmark"].unique().sort():
        items = rows.filter(benchmark=benchmark)
        for metric, some in _slices(items):
            yield _accuracy(some, benchmark, metric, pl.col("correct"))
        for metric, some in _main_slices(items):
            for name, convention in conventions_of(items):
                yield _accuracy(some, benchmark, f"{metric}@{name}", convention.correct())
        yield from _unmeasured(items, benchmark)


def _main_slices(items: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield a benchmark's main figures: SALMon defines none over its parts; sWUGGY has a second one."""
    if set(items["subtype"]) <= set(get_args(SalmonPart)):
        yield from _by(items, "subtype", f"{ACCURACY}/")
        return
    yield ACCURACY, items
    if items["band"].is_not_null().any():
        yield f"{ACCURACY}/in-vocab", items.filter(pl.col("band") != OOV)


def _slices(items: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    yield from _main_slices(items)
    if set(items["subtype"]) <= set(get_args(SalmonPart)):
        return
    for band in (band for band in BANDS if (items["band"] == band).any()):
        yield f"{ACCURACY}/{'' if band == OOV else 'frequency '}{band}", items.filter(band=band)
    yield from _by(items, "length", f"{ACCURACY}/length ")
    yield from _by(items, "type", f"{ACCURACY}/")
    if items["subtype"].n_unique() > 1:
        below = pl.concat_str("type", "subtype", separator="/", ignore_nulls=True)
        yield from _by(items.with_columns(subtype=below), "subtype", f"{ACCURACY}/")


def _by(items: pl.DataFrame, column: str, prefix: str) -> Iterator[tuple[str, pl.DataFrame]]:
    for value in items[column].drop_nulls().unique().sort():
        yield f"{prefix}{value}", items.filter(pl.col(column) == value)


def _unmeasured(items: pl.DataFrame, benchmark: str) -> Iterator[MetricColumn]:
    """Yield the ratio of voices without a value, if their pairs have a value from other voices."""
    missing = items["correct"].is_null()
    partly = missing & items.select(pl.col("correct").is_not_null().any().over("pair_id")).to_series()
    if partly.any():
        values, pairs = missing.cast(pl.Float64).to_numpy(), items["pair_id"].to_numpy()
        yield MetricColumn(benchmark, "missing_ratio", values, pairs, higher_is_better=False, scale=ANSWERS)


def _speech_columns(rows: pl.DataFrame) -> Iterator[MetricColumn]:
    """Yield predicted MOS; clips of one prompt are dependent."""
    rated = rows.filter(pl.col("status") != SKIPPED).sort("source_id")
    for metric in rated["metric"].unique().sort():
        found = rated.filter(metric=metric)
        clusters = found["prompt_id"].to_numpy()
        yield MetricColumn(
            SPEECH, metric, found["value"].fill_null(float("nan")).to_numpy(), clusters, higher_is_better=True
        )


def _word_error_columns(rows: pl.DataFrame) -> Iterator[MetricColumn]:
    if not rows.is_empty():
        found, prompts = _by_prompt(word_error_values(rows), rows["prompt_id"])
        yield MetricColumn(SPEECH, WORD_ERROR, found, prompts, higher_is_better=False)


def _accuracy(items: pl.DataFrame, benchmark: str, metric: str, correct: pl.Expr) -> MetricColumn:
    values = items.select(correct.fill_null(float("nan"))).to_series().to_numpy()
    pairs, means = group_means(values, items["pair_id"].to_numpy())
    return MetricColumn(benchmark, metric, means, pairs, higher_is_better=True, scale=ANSWERS)
