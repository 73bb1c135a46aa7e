"""What keeps an experiment from running, as far as that can be told without running it. Every fault at once."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from alignslm.config.corpora import SPLITS, LibriSpeechPart, MlsPart, Recordings
from alignslm.config.experiment import Experiment
from alignslm.config.llm_judges import CausalLmJudge, OpenAiJudge
from alignslm.extras import lacking
from alignslm.fetching import FetchError, expanded
from alignslm.plan.fetches import Fetch
from alignslm.plan.volume import Volume
from alignslm.plan.workspace import workspace_faults

FLAC_BYTES_PER_H = 3600 * 16000 * 2 * 0.6  # of speech at 16 kHz


def missing_from(experiment: Experiment, fetches: list[Fetch], volume: Volume, root: Path) -> list[str]:
    """Return one sentence for each thing that is missing, each with what would provide it."""
    return [
        *workspace_faults(root),
        *(f"{fetch.key}: {fetch.fault}" for fetch in fetches if fetch.fault),
        *_subsets(experiment),
        *_packages(experiment),
        *_keys(experiment),
        *_rubrics(experiment, root),
        *_budgets(experiment, volume),
        *_disk(fetches, volume, root),
    ]


def _subsets(experiment: Experiment) -> Iterator[str]:
    """A folder that exists may still lack the subsets that the corpus names."""
    if not isinstance(experiment.corpus, Recordings):
        return
    for name, part in experiment.corpus.parts.items():
        if not isinstance(part, LibriSpeechPart | MlsPart):
            continue
        try:
            folder = expanded(part.source)
        except FetchError:  # told with the fetches
            continue
        absent = [subset for split in SPLITS for subset in part.subsets.of(split) if not (folder / subset).is_dir()]
        if absent and folder.is_dir():
            yield f"corpus.parts.{name}: {folder} has no {', '.join(absent)}; unpack them there"


def _packages(experiment: Experiment) -> Iterator[str]:
    for key in ("judge", "heldout_judge"):
        if isinstance(getattr(experiment, key), OpenAiJudge) and (told := lacking("openai", by="kind: openai")):
            yield f"{key}: {told}"


def _keys(experiment: Experiment) -> Iterator[str]:
    for key in ("judge", "heldout_judge"):
        config = getattr(experiment, key)
        if isinstance(config, OpenAiJudge) and config.key_variable and not os.environ.get(config.key_variable):
            choice = getattr(experiment.params, key)
            yield f"{key}: the variable {config.key_variable} is not set; {choice} asks {config.base_url} with it"


def _rubrics(experiment: Experiment, root: Path) -> Iterator[str]:
    for key in ("judge", "heldout_judge"):
        config = getattr(experiment, key)
        if isinstance(config, OpenAiJudge | CausalLmJudge):
            path = Path("experiments", "rubric", f"{config.rubric}.txt")
            if not (root / path).is_file():
                yield f"{key}: no file {path.as_posix()}"


def _budgets(experiment: Experiment, volume: Volume) -> Iterator[str]:
    for asked in volume.asked:
        config = getattr(experiment, asked.key)
        if isinstance(config, OpenAiJudge) and asked.requests > config.budget.requests:
            yield (
                f"{asked.key}: {asked.requests} requests are wanted of {asked.choice}, its budget allows "
                f"{config.budget.requests}; raise budget.requests in experiments/judge/{asked.choice}.yaml, "
                "or lower prompts or draws"
            )


def _disk(fetches: list[Fetch], volume: Volume, root: Path) -> Iterator[str]:
    """The corpus is held twice while it is read, then once; speech of every round stays."""
    corpus = sum(fetch.num_bytes or 0 for fetch in fetches if fetch.key.startswith("corpus."))
    downloads = sum(fetch.num_bytes or 0 for fetch in fetches if not fetch.present)
    wanted = 2 * corpus + downloads + round(volume.speech_h * FLAC_BYTES_PER_H)
    free = shutil.disk_usage(root.resolve()).free
    if wanted > free:
        yield (
            f"disk: about {wanted / 1e9:.0f} GB are wanted (corpus twice, downloads, speech of all rounds), "
            f"{free / 1e9:.0f} GB are free at {root.resolve()}"
        )
