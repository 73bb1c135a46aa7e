"""Any two evaluated systems side by side: paired differences with an interval and an exact test each."""

from pathlib import Path
from typing import Literal

from alignslm.artifacts import Artifacts
from alignslm.config.model import Config
from alignslm.config.models import Bootstrap
from alignslm.report.columns import CONTINUATION, SPEECH, ReportError
from alignslm.report.evaluated import Key, Paired, pair, read_columns, shared_keys
from alignslm.report.metrics import Interval
from alignslm.statistics import paired_difference, sign_test


class ComparedRow(Config):
    """Means of both systems on the `n` prompts or item pairs measured in both, and their difference.

    `above`, `below` and `equal` count the prompts or pairs where `model` is above, below and equal to `against`; `p` is
    the exact two-sided binomial test of above against below. For answers that are right or wrong it is McNemar's; a
    pair with several voices, or with a tie of likelihoods, is above or below by its mean.
    """

    benchmark: str
    metric: str
    value: float | None
    against_value: float | None
    delta: float | None
    ci95: Interval | None
    test: Literal["mcnemar", "sign"]
    above: int
    below: int
    equal: int
    p: float
    n: int
    n_missing: int


class PairwiseComparison(Config):
    """Every difference `model` - `against`."""

    model: str
    against: str
    rows: tuple[ComparedRow, ...]

    def to_json(self) -> str:
        """Return indented JSON text that ends in a newline."""
        return self.model_dump_json(indent=2) + "\n"


def compare(artifacts: Path, model: str, against: str, *, bootstrap: Bootstrap, seed: int) -> PairwiseComparison:
    """Compare two systems of artifacts/eval in every metric that both have.

    Raises ReportError for a system compared with itself, one that was not evaluated, and two without a common metric.
    """
    if model == against:
        raise ReportError(f"{model!r} cannot be compared with itself; name two systems")
    left, right = read_columns(artifacts, model), read_columns(artifacts, against)
    keys = shared_keys(left, right)
    if not keys:
        raise ReportError(f"{model!r} and {against!r} have no metric in common in {Artifacts(artifacts).evaluations}")
    rows = (_row(key, pair(left[key], right[key]), bootstrap=bootstrap, seed=seed) for key in keys)
    return PairwiseComparison(model=model, against=against, rows=tuple(rows))


def _row(key: Key, both: Paired, *, bootstrap: Bootstrap, seed: int) -> ComparedRow:
    benchmark, metric = key
    found = paired_difference(both.left, both.right, both.ids, bootstrap=bootstrap, seed=seed)
    test = sign_test(both.left, both.right)
    measured = both.measured
    return ComparedRow(
        benchmark=benchmark,
        metric=metric,
        value=float(both.left[measured].mean()) if found.n else None,
        against_value=float(both.right[measured].mean()) if found.n else None,
        delta=found.value,
        ci95=found.ci95,
        test="sign" if benchmark in {CONTINUATION, SPEECH} else "mcnemar",
        above=test.wins,
        below=test.losses,
        equal=test.ties,
        p=test.p,
        n=found.n,
        n_missing=found.n_missing,
    )
