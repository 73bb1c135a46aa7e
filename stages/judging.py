"""A stage's judge: loaded once, its outputs kept while the stage is unfinished."""

from pathlib import Path

from alignslm.config.feedback import JudgeConfig, NgramJudgeConfig, StoryLMJudgeConfig
from alignslm.engine import pool_of
from alignslm.judge import is_api_judge, load_judge
from alignslm.judge.rows import CachedJudge
from stages.run import Run


def cached_judge(run: Run, choice: str, config: JudgeConfig, work: Path, *, label: str) -> CachedJudge:
    """Return a judge that saves its outputs in `work`; a judge behind a server runs only in this process."""
    return CachedJudge(
        run.model(load_judge, config, run.artifacts.judge(choice)),
        max_unscored=max_unscored(config),
        folder=work,
        shard_size=run.execution.shard_size,
        label=label,
        pool=None if is_api_judge(config) else pool_of(run.execution),
    )


def both_judges(run: Run, work: Path) -> dict[str, CachedJudge]:
    """Return the training judge and the held-out judge by their metrics; they save their outputs in `work`."""
    params, experiment = run.params, run.experiment
    asked = {
        "judge_score": (params.judge, experiment.judge),
        "heldout_judge_score": (params.heldout_judge, experiment.heldout_judge),
    }
    return {name: cached_judge(run, *of, work / name, label=f"{run.label} {name}") for name, of in asked.items()}


def max_unscored(config: JudgeConfig) -> float:
    """Return which share of the texts a judge may fail on: none of a judge that is fitted here."""
    return 0.0 if isinstance(config, NgramJudgeConfig | StoryLMJudgeConfig) else config.max_unscored
