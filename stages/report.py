"""Say what alignment changed, with error bars: numbers, a page to look at and listen to, figures."""

from pathlib import Path

from alignslm.report.inputs import read_inputs
from alignslm.report.run_info import origin_of
from alignslm.report.writing import write_report
from stages.run import start

REPORTS = Path("reports")


def main() -> None:
    """Run the stage."""
    with start(__file__) as run:
        inputs = read_inputs(run.artifacts.root, run.experiment)
        report = write_report(inputs, origin_of(Path(), device=run.execution.device), REPORTS)
        run.log.rows(
            inputs={"models": len({metric.model for metric in report.metrics})},
            outputs={"metrics": len(report.metrics), "comparisons": len(report.comparisons)},
        )


if __name__ == "__main__":
    main()
