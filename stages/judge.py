"""Fit or download one judge; it is named by its config, so swapping training and held-out judge remakes neither."""

from alignslm import tables
from alignslm.config.arithmetic import warn_emulated
from alignslm.config.prerequisites import require_judges
from alignslm.judge import JudgeInput, prepare_judge
from stages.names import requested_name
from stages.run import start


def main(choice: str) -> None:
    """Make the judge of one file in experiments/judge."""
    with start(__file__, choice) as run:
        require_judges(run.experiment)
        key = "judge" if choice == run.params.judge else "heldout_judge"
        warn_emulated(run.experiment, run.execution, key)
        config = getattr(run.experiment, key)
        texts = tables.read(tables.TEXTS, run.artifacts.texts)
        stories = [JudgeInput(*row) for row in texts.select("prompt_text", "continuation_text").iter_rows()]
        folder, code = run.artifacts.judge(choice), run.artifacts.own_code(f"judge/{choice}")
        run.log.log_metrics(prepare_judge(config, stories, folder, device=run.execution.device, code=code))
        run.log.rows(inputs={"texts": len(stories)}, outputs={"judge": 1})


if __name__ == "__main__":
    main(requested_name())
