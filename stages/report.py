"""Say what alignment changed, with error bars: numbers, a page to look at and listen to, figures."""

from pathlib import Path

from alignslm.config.loading import load_experiment
from alignslm.progress import stage
from alignslm.report.inputs import read_inputs
from alignslm.report.origin import origin_of
from alignslm.report.writing import write_report
from stages import layout


def main() -> None:
    """Run the stage."""
    with stage("report") as log:
        inputs = read_inputs(layout.ARTIFACTS, load_experiment())
        report = write_report(inputs, origin_of(Path(), device="cpu"), layout.REPORTS)
        log.rows(
            inputs={"models": len({metric.model for metric in report.metrics})},
            outputs={"metrics": len(report.metrics), "comparisons": len(report.comparisons)},
        )


if __name__ == "__main__":
    main()
