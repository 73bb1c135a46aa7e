"""Ratings exported and analysed: MMOS of every system, agreement of raters, correlation with automatic scores."""

from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import rankdata

from alignslm import tables
from alignslm.artifacts import Artifacts
from alignslm.config.listening import ORIGINAL
from alignslm.config.model import Config
from alignslm.listening.clustered import differences, mean
from alignslm.listening.storage import Rater, Ratings
from alignslm.listening.study import Study, read_study
from alignslm.statistics import MIN_CLUSTERS, Interval, holm, jackknife_values, mean_interval
from alignslm.storage import write_text

POINTS = 5
Statistic = Callable[[np.ndarray], float | None]
EXPECTED = {"rater_id": pl.String, "prompt_id": pl.String, "system": pl.String, "position": pl.Int32}
ANSWERS = {
    "rater_id": pl.String,
    "clip_id": pl.String,
    "score": pl.Int32,
    "num_plays": pl.Int32,
    "response_time_s": pl.Float64,
    "received_at": pl.String,
    "num_changes": pl.Int32,
}


class AnalysisError(ValueError):
    """There is nothing to analyze."""


class SystemScore(Config):
    """Mean opinion score of one system: `n` ratings; `n_missing` more are due from raters who have started."""

    system: str
    mmos: float
    stderr: float | None
    ci95: Interval | None
    n: int
    n_missing: int


class Difference(Config):
    """MMOS of `system` minus MMOS of `against`, with effects of raters and prompts removed.

    `delta` is None if no raters and prompts connect the two systems; `p_corrected` is p corrected (Holm) for all pairs.
    """

    system: str
    against: str
    delta: float | None
    stderr: float | None
    ci95: Interval | None
    p_corrected: float | None


class Agreement(Config):
    """Krippendorff's alpha, ordinal, over clips with at least two ratings."""

    alpha: float | None
    ci95: Interval | None
    clips: int


class Correlation(Config):
    """Correlation of an automatic score with the mean rating of a clip; `n_missing` rated clips have no such score.

    `across_systems` is Pearson's correlation of the systems' means, without an interval because there are few.
    """

    metric: str
    spearman: float | None
    spearman_ci95: Interval | None
    pearson: float | None
    pearson_ci95: Interval | None
    across_systems: float | None
    n: int
    n_missing: int


class Analysis(Config):
    """The content of analysis.json. Raters without ratings are counted, and otherwise ignored."""

    raters: int
    raters_absent: int
    prompts: int
    ratings: int
    systems: tuple[SystemScore, ...]
    differences: tuple[Difference, ...]
    agreement: Agreement
    correlations: tuple[Correlation, ...]


def assigned_trials(study: Study, raters: Iterable[Rater]) -> pl.DataFrame:
    """Return the trials assigned to raters: rater_id, prompt_id, system, position (0, 1, ... in the rater's order)."""
    rows = [
        (rater.rater_id, trial.prompt_id, trial.system, position)
        for rater in raters
        for position, trial in enumerate(study.trials(rater.number))
    ]
    return pl.DataFrame(rows, schema=EXPECTED, orient="row")


def ratings_table(folder: Path, ratings: Ratings) -> pl.DataFrame:
    """Return RATINGS rows. TableError for a rating of a clip that was not assigned to its rater."""
    study, clips = read_study(folder)
    answers = pl.DataFrame(ratings.stored(), schema=ANSWERS, orient="row")
    asked = assigned_trials(study, ratings.raters()).join(
        clips.select("clip_id", "prompt_id", "system", "continuation_id"), on=["prompt_id", "system"]
    )
    strange = answers.join(asked, on=["rater_id", "clip_id"], how="anti")
    if len(strange):
        raise tables.TableError(
            f"{folder}: {len(strange)} ratings are of clips not assigned to their raters, first "
            f"{strange.row(0)[:2]}. Does ratings.sqlite belong to another study?"
        )
    return tables.conform(answers.join(asked, on=["rater_id", "clip_id"]), tables.RATINGS)


def export(folder: Path, ratings: Ratings) -> pl.DataFrame:
    """Write folder/ratings.parquet and folder/ratings.csv, and return the rows."""
    frame = ratings_table(folder, ratings)
    tables.write(frame, tables.RATINGS, folder / "ratings.parquet")
    write_text(folder / "ratings.csv", frame.write_csv())
    return frame


def analyse(study: Study, raters: list[Rater], ratings: pl.DataFrame, automatic: pl.DataFrame) -> Analysis:
    """Analyze RATINGS rows; `automatic` has system, continuation_id, metric, value. AnalysisError without ratings.

    Errors are clustered by rater and prompt; intervals of agreement and correlation are jackknifed over prompts. None
    with fewer than MIN_CLUSTERS raters or prompts. Equal ratings give equal bytes.
    """
    if ratings.is_empty():
        raise AnalysisError(f"none of {len(raters)} raters has rated a clip yet")
    ratings = ratings.sort("rater_id", "clip_id")
    present = [rater for rater in raters if rater.rater_id in set(ratings["rater_id"])]
    names = [name for name in study.choice.names if name in set(ratings["system"])]
    return Analysis(
        raters=len(present),
        raters_absent=len(raters) - len(present),
        prompts=ratings["prompt_id"].n_unique(),
        ratings=len(ratings),
        systems=tuple(_system(study, present, ratings, name) for name in names),
        differences=tuple(_differences(ratings, names)),
        agreement=_agreement(ratings),
        correlations=tuple(_correlations(ratings, automatic)),
    )


def _system(study: Study, present: list[Rater], ratings: pl.DataFrame, name: str) -> SystemScore:
    rows = ratings.filter(system=name)
    found = mean(*_columns(rows), ends=(1, POINTS))
    due = assigned_trials(study, present).filter(system=name)
    return SystemScore(
        system=name,
        mmos=float(rows["score"].to_numpy().mean()),
        stderr=found.stderr,
        ci95=found.ci95,
        n=len(rows),
        n_missing=len(due) - len(rows),
    )


def _columns(rows: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return rows["score"].to_numpy().astype(float), rows["rater_id"].to_numpy(), rows["prompt_id"].to_numpy()


def _differences(ratings: pl.DataFrame, names: list[str]) -> Iterator[Difference]:
    pairs = [(a, b) for b, a in combinations(names, 2)]
    values, raters, prompts = _columns(ratings)
    systems = ratings["system"].to_numpy()
    estimates = differences(values, systems, raters, prompts, pairs, ends=(1 - POINTS, POINTS - 1))
    for (system, against), found, p in zip(pairs, estimates, holm([some.p for some in estimates]), strict=True):
        yield Difference(
            system=system, against=against, delta=found.value, stderr=found.stderr, ci95=found.ci95, p_corrected=p
        )


def _agreement(ratings: pl.DataFrame) -> Agreement:
    shared = ratings.filter(pl.len().over("clip_id") >= 2)
    if shared.is_empty():
        return Agreement(alpha=None, ci95=None, clips=0)
    counts = counts_of(shared["score"].to_numpy(), shared["clip_id"].to_numpy())
    prompts = shared.select("clip_id", "prompt_id").unique().sort("clip_id")["prompt_id"].to_numpy()
    ends = _jackknifed(prompts, lambda rows: ordinal_alpha(counts[rows]), np.log1p, np.expm1, sign=-1)
    return Agreement(alpha=ordinal_alpha(counts), ci95=ends if _enough_raters(shared) else None, clips=len(counts))


def _enough_raters(ratings: pl.DataFrame) -> bool:
    """Return whether an interval can speak for other raters, too, not only for other prompts."""
    return ratings["rater_id"].n_unique() >= MIN_CLUSTERS


def counts_of(scores: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Return the counts of each clip's scores 1 to 5, (clips, 5)."""
    _, which = np.unique(clips, return_inverse=True)
    counts = np.zeros((which.max() + 1, POINTS))
    np.add.at(counts, (which, scores - 1), 1)
    return counts


def ordinal_alpha(counts: np.ndarray) -> float | None:
    """Return alpha of clips (clips, 5): 1 is perfect agreement, 0 is chance, below 0 is worse (Krippendorff, 2011).

    Clips with one rating are ignored. None if no clip has two ratings, or if all ratings are equal.
    """
    paired = counts[counts.sum(axis=1) >= 2]
    if not len(paired):
        return None
    per_clip = paired.sum(axis=1) - 1
    weighted = paired / per_clip[:, None]
    coincidences = weighted.T @ paired - np.diag(weighted.sum(axis=0))
    totals = coincidences.sum(axis=1)
    expected = np.outer(totals, totals) - np.diag(totals)
    distances = _ordinal_distances(totals)
    chance = (expected * distances).sum() / (totals.sum() - 1)
    return None if chance == 0 else float(1 - (coincidences * distances).sum() / chance)


def _ordinal_distances(totals: np.ndarray) -> np.ndarray:
    """Return squared distances (5, 5): the number of ratings between two scores, those of the two counted half."""
    ends = np.cumsum(totals)
    middle = ends - totals / 2
    return (middle[:, None] - middle[None]) ** 2


def _correlations(ratings: pl.DataFrame, automatic: pl.DataFrame) -> Iterator[Correlation]:
    """Yield one correlation per metric, by name."""
    clips = ratings.group_by("clip_id", "system", "prompt_id", "continuation_id").agg(rated=pl.col("score").mean())
    enough = _enough_raters(ratings)
    for metric in automatic["metric"].unique().sort():
        scores = automatic.filter(metric=metric).select("system", "continuation_id", "value")
        joined = clips.join(scores, on=["system", "continuation_id"], how="left").sort("clip_id")
        known = joined.drop_nulls("value")
        systems = known.group_by("system").agg(pl.col("rated", "value").mean()).sort("system")
        rated, value, prompts = (known[name].to_numpy() for name in ("rated", "value", "prompt_id"))
        yield Correlation(
            metric=metric,
            spearman=spearman(rated, value),
            spearman_ci95=_of_correlation(spearman, rated, value, prompts) if enough else None,
            pearson=pearson(rated, value),
            pearson_ci95=_of_correlation(pearson, rated, value, prompts) if enough else None,
            across_systems=pearson(systems["rated"].to_numpy(), systems["value"].to_numpy()),
            n=len(known),
            n_missing=len(joined) - len(known),
        )


def _of_correlation(
    correlation: Callable[[np.ndarray, np.ndarray], float | None], a: np.ndarray, b: np.ndarray, prompts: np.ndarray
) -> Interval | None:
    return _jackknifed(prompts, lambda rows: correlation(a[rows], b[rows]), np.arctanh, np.tanh)


def pearson(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return Pearson's correlation; None below three rows or without variation."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return Spearman's rank correlation with mean ranks for ties; None as for `pearson`."""
    return pearson(rankdata(a), rankdata(b))


def _jackknifed(
    prompts: np.ndarray, statistic: Statistic, there: np.ufunc, back: np.ufunc, *, sign: int = 1
) -> Interval | None:
    """Return the interval of a statistic of rows (rows,) by leaving out one prompt at a time.

    It is Student's t on the scale of `there`, on which the statistic (times `sign`) has no end. None with too few
    prompts, or if the statistic is at its end or undefined without one of them.
    """
    known = np.unique(prompts)
    found = [statistic(np.full(len(prompts), True)), *(statistic(prompts != one) for one in known)]
    if None in found:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):  # a statistic at its end gives no finite value
        moved = there(sign * np.array(found, dtype=float))
    if not np.isfinite(moved).all():
        return None
    ends = mean_interval(jackknife_values(moved[0], moved[1:]), known).ci95
    if ends is None:
        return None
    low, high = sorted(float(sign * back(end)) for end in ends)
    return low, high


def automatic_scores(artifacts: Path, study: Study) -> pl.DataFrame:
    """Return judge scores and predicted MOS of the study's systems: system, continuation_id, metric, value."""
    found = []
    for name in study.choice.names:
        judged = Artifacts(artifacts).judged(name)
        if judged.exists():
            found.append(
                tables.read(tables.CONTINUATION_METRICS, judged).select(
                    pl.lit(name).alias("system"), "continuation_id", "metric", "value"
                )
            )
        predicted = Artifacts(artifacts).mos_of("original-continuations" if name == ORIGINAL else name)
        if predicted.exists():
            mos = tables.read(tables.MOS, predicted).filter(pl.col("status") != "skipped")
            found.append(
                mos.select(pl.lit(name).alias("system"), continuation_id="source_id", metric="metric", value="value")
            )
    schema = {"system": pl.String, "continuation_id": pl.String, "metric": pl.String, "value": pl.Float64}
    return pl.concat(found) if found else pl.DataFrame(schema=schema)
