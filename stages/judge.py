"""Fit or fetch one judge; it is named by its choice, so swapping training and held-out judge remakes neither."""

from typing import Annotated

import typer

from alignslm import tables
from alignslm.config.arithmetic import warn_emulated
from alignslm.config.loading import load_execution, load_experiment
from alignslm.config.readiness import require_judges
from alignslm.judge import Story, prepare_judge
from alignslm.progress import stage
from stages import layout


def main(choice: Annotated[str, typer.Argument(help="file in experiments/judge/, as params.yaml names it")]) -> None:
    """Run the stage for one judge."""
    with stage(f"judge@{choice}") as log:
        experiment, execution = load_experiment(), load_execution()
        require_judges(experiment)
        key = "judge" if choice == experiment.params.judge else "heldout_judge"
        warn_emulated(experiment, execution, key)
        config = getattr(experiment, key)
        texts = tables.read(tables.TEXTS, layout.TEXTS)
        stories = [Story(*row) for row in texts.select("prompt_text", "continuation_text").iter_rows()]
        log.figures(
            prepare_judge(
                config, stories, layout.judge(choice), device=execution.device, code=layout.own_code(f"judge/{choice}")
            )
        )
        log.rows(inputs={"texts": len(stories)}, outputs={"judge": 1})


if __name__ == "__main__":
    typer.run(main)
