"""A user's own judge, with its output checked."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from alignslm.config.own_code import PythonJudgeConfig
from alignslm.judge import JudgeInput, JudgeOutput, Status
from alignslm.judge.calibration import try_judge
from alignslm.own_code import OwnObject, check_batches, load_own
from alignslm.redaction import redact

PROBES = (
    JudgeInput("tom walks along the beach in the morning", "he finds a shell and takes it home"),
    JudgeInput("anna bakes bread", "she eats it"),
    JudgeInput("the dog barks", "the dog barks the dog barks"),
)


class OwnJudge:
    """Calls the object's `judge` and checks its scores."""

    def __init__(self, model: OwnObject) -> None:
        self.model = model

    def judge(self, stories: Sequence[JudgeInput]) -> list[JudgeOutput]:
        """Return one judgement per story. Raises OwnCodeError if one is not a JudgeOutput, or its score not on 1..5."""
        found = self.model.results(stories)
        for row, one in enumerate(found):
            if problem := _problem(one):
                raise self.model.error(f"judge returned {one!r} for row {row}: {problem}")
        return [one._replace(reply=one.reply and redact(one.reply)) for one in found]


def _problem(found: object) -> str | None:
    if not isinstance(found, JudgeOutput):
        return "expected a JudgeOutput of alignslm.judge"
    if found.status not in get_args(Status):
        return f"its status must be one of {', '.join(get_args(Status))}"
    if found.status == "ok" and found.score is None and found.ppl is None:
        return "status ok needs a score or a perplexity"
    if found.score is not None and not 1 <= found.score <= 5:
        return "its score must be between 1 and 5"
    return None if found.ppl is None or math.isfinite(found.ppl) else "its perplexity is not finite"


def prepare(
    config: PythonJudgeConfig, texts: Sequence[JudgeInput], folder: Path, *, code: Path, device: str
) -> dict[str, float]:
    """Fit the judge on the corpus's texts if it can be fitted, and try it on three stories.

    Returns its own figures and those of `try_judge`, by which a judge that guesses is warned of, never refused.
    """
    model = OwnObject(config, code / f"{config.module}.py", method="judge")
    figures = model.prepare(texts, folder, device=device)
    check_batches(model, OwnJudge(model).judge, PROBES)
    return figures | try_judge(OwnJudge(model), texts, count=config.auc_texts, min_auc=0)


def load(config: PythonJudgeConfig, folder: Path, *, device: str) -> OwnJudge:
    """Load what `prepare` left in `folder`."""
    return OwnJudge(load_own(config, folder, method="judge", device=device))
