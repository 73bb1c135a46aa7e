"""Time of a run: each stage notes its own at its end."""

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from alignslm.storage import write_text

RUN, STARTED = "ALIGNSLM_RUN", "ALIGNSLM_STARTED"
FOLDER = Path(".work", "times")


class StageTime(NamedTuple):
    """One stage's times in seconds since 1970: its process started, its work began, its work ended."""

    name: str
    started: float
    began: float
    ended: float


class RunTime(NamedTuple):
    """When a run began (seconds since 1970); its seconds, and those of its parts: work of stages, start-up."""

    began: float
    total: float
    working: float
    starting: float
    stages: list[StageTime]

    @property
    def between(self) -> float:
        """Seconds in which no stage ran."""
        return max(0.0, self.total - self.working - self.starting)


def note_time(name: str, *, seconds: float) -> None:
    """Note that a stage ends now after this many seconds of work. Does nothing outside a run of `alignslm.speed`."""
    if not (run := os.environ.get(RUN)):
        return
    ended = time.time()
    began = ended - seconds
    started = float(os.environ.get(STARTED, began))
    write_text(FOLDER / run / f"{name}.json", json.dumps(StageTime(name, started, began, ended)._asdict()) + "\n")


def last_run(root: Path = Path()) -> RunTime | None:
    """Return the times of the newest run that ran a stage, or None. A run ends with its last stage."""
    runs = sorted((root / FOLDER).glob("*"), key=lambda folder: float(folder.name))
    if not runs:
        return None
    noted = [StageTime(**json.loads(file.read_text())) for file in runs[-1].glob("*.json")]
    stages = sorted(noted, key=lambda stage: stage.started)
    began = float(runs[-1].name)
    return RunTime(
        began=began,
        total=max(stage.ended for stage in stages) - began,
        working=sum(stage.ended - stage.began for stage in stages),
        starting=sum(stage.began - stage.started for stage in stages),
        stages=stages,
    )


def stage_seconds(root: Path = Path()) -> dict[str, float]:
    """Return how long each stage's work took when a run last noted it, in seconds, by the stage's name."""
    runs = sorted((root / FOLDER).glob("*"), key=lambda folder: float(folder.name))
    noted = (StageTime(**json.loads(file.read_text())) for run in runs for file in run.glob("*.json"))
    return {stage.name: stage.ended - stage.began for stage in noted}
