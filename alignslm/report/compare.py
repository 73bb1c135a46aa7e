"""Any two evaluated systems side by side: paired differences as the report shows them, and counts of pairs."""

from pathlib import Path

from alignslm.artifacts import Artifacts
from alignslm.config.model import Config
from alignslm.figures.columns import ReportError
from alignslm.report.evaluated import Difference, Key, absent_tables, differences, read_columns
from alignslm.report.metrics import Comparison, comparison_fields
from alignslm.statistics import count_pairs


class ComparedRow(Comparison):
    """A difference as in the report, with the means of both systems on the `n` prompts or item pairs that both have.

    `above`, `below` and `equal` count the prompts or pairs where `model` is above, below and equal to `against`; one
    with several continuations or voices counts by their mean.
    """

    value: float | None
    against_value: float | None
    above: int
    below: int
    equal: int


class PairwiseComparison(Config):
    """Every difference `model` - `against`; `absent` are tables without which some metrics were left out."""

    model: str
    against: str
    absent: tuple[str, ...]
    rows: tuple[ComparedRow, ...]

    def to_json(self) -> str:
        """Return indented JSON text that ends in a newline."""
        return self.model_dump_json(indent=2) + "\n"


def compare(artifacts: Path, model: str, against: str) -> PairwiseComparison:
    """Compare two systems of artifacts/eval in every metric that both have.

    Raises ReportError for a system compared with itself, one that was not evaluated, and two without a common metric.
    """
    if model == against:
        raise ReportError(f"{model!r} cannot be compared with itself; name two systems")
    found = differences(read_columns(artifacts, model), read_columns(artifacts, against))
    if not found:
        raise ReportError(f"{model!r} and {against!r} have no metric in common in {Artifacts(artifacts).evaluations}")
    rows = tuple(_row(model, against, key, difference) for key, difference in found.items())
    absent = tuple(str(path) for name in (model, against) for path in absent_tables(artifacts, name))
    return PairwiseComparison(model=model, against=against, absent=absent, rows=rows)


def _row(model: str, against: str, key: Key, difference: Difference) -> ComparedRow:
    both = difference.both
    value, other = (float(side[both.measured].mean()) if difference.found.n else None for side in both[1:3])
    return ComparedRow.model_validate(
        {
            **comparison_fields(model, against, key, difference),
            "value": value,
            "against_value": other,
            **count_pairs(both.left, both.right)._asdict(),
        }
    )
