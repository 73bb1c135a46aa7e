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


def max_unscored(config: JudgeConfig) -> float:
    """Return which share of the texts a judge may fail on: none of a judge that is fitted here."""
    return 0.0 if isinstance(config, NgramJudgeConfig | StoryLMJudgeConfig) else config.max_unscored
