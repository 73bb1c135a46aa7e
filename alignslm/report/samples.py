"""Samples to publish: a page with players, the same page in Markdown, and small audio files that both link to."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import soundfile

from alignslm import tables
from alignslm.artifacts import Artifacts
from alignslm.audio import decode, resample
from alignslm.config.experiment import Experiment
from alignslm.figures.columns import ReportError
from alignslm.report.examples import Example, first_prompts, read_examples
from alignslm.report.formatting import FILTERS
from alignslm.report.systems import evaluated, topline
from alignslm.storage import atomic_write, write_text
from alignslm.templates import environment

RATE_HZ = 16000
OPUS = {"format": "OGG", "subtype": "OPUS"}
"""Chosen because the embedded ASR model, on 12 prompts and 48 continuations, transcribes 97 % of the words as from the
original, in a fifth of FLAC's bytes. From MP3 at 16 kHz it was 65 %; equalized loudness changed only 3 %."""
PROMPT = "prompt"
CLIP_FILES = re.compile(r"\d\d-.+\.ogg")
MARKDOWN_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#|~&!])")


class SampleClip(NamedTuple):
    """One audio file, its name relative to the folder of samples, and its duration."""

    file: str
    duration_s: float


class MeanScores(NamedTuple):
    """A system's mean scores over the prompts of the page and over the whole evaluation: (training, held-out judge)."""

    shown: tuple[float | None, float | None]
    evaluated: tuple[float | None, float | None]


def write_samples(
    experiment: Experiment, artifacts: Path, folder: Path, *, systems: Sequence[str], num_prompts: int
) -> Path:
    """Write the first prompts of the evaluation split by id, with the first continuation of every system.

    `folder` receives index.html and one Ogg Opus file per clip (16 kHz mono); the Markdown page is written next to it
    and returned. Equal artifacts give equal pages and equal audio; Ogg numbers its streams at random. Audio of an
    earlier call is removed. Raises ReportError if a system is not part of the experiment, and TableError if artifacts
    are missing.
    """
    known = evaluated(experiment)
    if unknown := [name for name in systems if name not in known]:
        raise ReportError(f"{unknown[0]!r} is not a system of this experiment. Choose from {', '.join(known)}.")
    judged = pl.concat(tables.read(tables.CONTINUATION_METRICS, Artifacts(artifacts).judged(name)) for name in systems)
    examples = read_examples(artifacts, judged, models=systems, prompt_ids=first_prompts(judged, num_prompts))
    waveforms = dict(_waveforms(examples))
    _write_clips({_file(*key): waveform for key, waveform in waveforms.items()}, folder)
    content = {
        "params": experiment.params,
        "examples": examples,
        "clips": {key: SampleClip(_file(*key), len(waveform) / RATE_HZ) for key, waveform in waveforms.items()},
        "names": {name: "ground truth" if name == topline(experiment) else name for name in systems},
        "means": {name: _means(name, examples, judged) for name in systems},
        "prompts_evaluated": judged["prompt_id"].n_unique(),
        "folder": folder.name,
    }
    markdown = folder.with_name(f"{folder.name}.md")
    for path, template in ((folder / "index.html", "samples.html"), (markdown, "samples.md")):
        templates = environment(Path(__file__).parent, html=path.suffix == ".html")
        templates.filters |= FILTERS | {"plain": _plain}
        write_text(path, templates.get_template(template).render(content))
    return markdown


def _write_clips(waveforms: Mapping[str, np.ndarray], folder: Path) -> None:
    """Write one Opus file per waveform and remove those of an earlier call."""
    for name, waveform in waveforms.items():
        with atomic_write(folder / name) as partial:
            soundfile.write(partial, waveform, RATE_HZ, **OPUS)
    for path in folder.glob("*.ogg"):
        if CLIP_FILES.fullmatch(path.name) and path.name not in waveforms:
            path.unlink()


def _waveforms(examples: Sequence[Example]) -> Iterator[tuple[tuple[int, str], np.ndarray]]:
    """Yield (number of the prompt, system) and (samples,) at RATE_HZ; nothing for a system that produced no speech."""
    for number, example in enumerate(examples, 1):
        yield (number, PROMPT), _at_rate(example.prompt_flac)
        for continuation in example.continuations:
            if continuation.flac:
                yield (number, continuation.model), _at_rate(continuation.flac)


def _at_rate(flac: bytes) -> np.ndarray:
    waveform, rate_hz = decode(flac)
    return resample(waveform, from_hz=rate_hz, to_hz=RATE_HZ)


def _file(number: int, system: str) -> str:
    return f"{number:02d}-{system}.ogg"


def _means(system: str, examples: Sequence[Example], judged: pl.DataFrame) -> MeanScores:
    first = [one for example in examples for one in example.continuations if one.model == system]
    scores = {"judge_score": [one.score for one in first], "heldout_judge_score": [one.heldout_score for one in first]}
    every = {metric: judged.filter(model=system, metric=metric)["value"].to_list() for metric in scores}
    return MeanScores(
        *((_mean(by_metric["judge_score"]), _mean(by_metric["heldout_judge_score"])) for by_metric in (scores, every))
    )


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is, in one line of a table."""
    return " ".join(MARKDOWN_SPECIAL.sub(r"\\\1", text).split())
