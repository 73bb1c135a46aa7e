"""Disk at a run's peak: the corpus and speech while their shards are there too, checkpoints, downloads."""

import configparser
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from alignslm.config.experiment import Experiment
from alignslm.plan.downloads import Download, size_of
from alignslm.plan.memory import lm_shape
from alignslm.plan.workload import FLAC_BYTES_PER_H, Workload


class Disk(NamedTuple):
    """Bytes at a run's peak by what takes them; bytes of artifacts that are here already, and bytes free.

    `unknown`: downloads of unknown size, which are not counted.
    """

    parts: dict[str, int]
    unknown: int
    here: int
    free: int

    @property
    def wanted(self) -> int:
        """All of it."""
        return sum(self.parts.values())

    def faults(self, root: Path) -> Iterator[str]:
        """Yield what to do if it does not fit."""
        if self.wanted > self.free + self.here:
            yield (
                f"disk: about {(self.wanted - self.here) / 1e9:.0f} GB more are needed at the peak, but "
                f"{root.resolve()} has {self.free / 1e9:.0f} GB free; make room, or lower prompts and continuations"
            )


def disk_of(experiment: Experiment, root: Path, fetches: list[Download], volume: Workload) -> Disk:
    """Return the disk usage of a whole run.

    A stage's shards stay until its table is complete, so corpus and one round's speech are there twice. DVC's cache
    shares its files with the workspace if it links them, and is a second copy otherwise.
    """
    kept = 1 if "link" in dvc_settings(root / ".dvc").get("cache", "type", fallback="copy") else 2
    corpus, speech = ((hours or 0.0) * FLAC_BYTES_PER_H for hours in (volume.corpus_h, volume.speech_h))
    per_round = speech / max(1, volume.rounds + bool(volume.evaluated))
    shape = lm_shape(experiment)
    models = 1 + len(experiment.checkpoints) + len(experiment.params.guards) + len(experiment.reward_models)
    checkpoints = shape.parameters * 4 * models if shape else 0
    absent = [fetch for fetch in fetches if not fetch.present]
    parts = {
        "corpus": kept * corpus,
        "speech": kept * speech,
        "checkpoints": kept * checkpoints,
        "shards": max(corpus, per_round),
        "downloads": sum(fetch.num_bytes or 0 for fetch in absent),
    }
    unknown = sum(fetch.num_bytes is None for fetch in absent)
    here = kept * size_of(root / "artifacts") if (root / "artifacts").exists() else 0
    free = shutil.disk_usage(root.resolve()).free
    return Disk({name: round(size) for name, size in parts.items() if size}, unknown, here, free)


def dvc_settings(folder: Path) -> configparser.ConfigParser:
    """Read the repository's own configuration, the local one last; DVC writes them in this format."""
    settings = configparser.ConfigParser(strict=False, interpolation=None)
    settings.read([folder / "config", folder / "config.local"], encoding="utf-8")
    return settings
