"""Continuations side by side as HTML: one column per model, with players and transcripts, without scripts."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from markupsafe import Markup

from alignslm.generation.prompt import Prompt
from alignslm.generation.take import Continuation
from alignslm.templates import environment


@dataclass(frozen=True)
class Sources:
    """The players' audio sources: of the prompt, and by (index, model) of each continuation with and without it."""

    prompt: str
    whole: Mapping[tuple[int, str], str]
    alone: Mapping[tuple[int, str], str]


def cards(prompt: Prompt, models: Mapping[str, Sequence[Continuation]], sources: Sources) -> Markup:
    """Return the models' continuations side by side as a part of a page."""
    return Markup(_render("cards.html", prompt=prompt, models=models, sources=sources))  # noqa: S704 (autoescaped)


def page(
    prompt: Prompt, models: Mapping[str, Sequence[Continuation]], sources: Sources, *, judge: str | None = None
) -> str:
    """Return the same as a page with a title; `judge` is the name of the judge behind the scores."""
    title = f"{prompt.name}, continued by {', '.join(models)}"
    return _render("page.html", title=title, judge=judge, cards=cards(prompt, models, sources))


def inline_cards(prompt: Prompt, models: Mapping[str, Sequence[Continuation]]) -> Markup:
    """Return the same with the audio inline, for a page without files."""
    return cards(
        prompt,
        models,
        Sources(
            data_url(prompt.waveform, prompt.sample_rate_hz),
            _each(models, lambda take: data_url(take.with_prompt(), take.sample_rate_hz)),
            _each(models, lambda take: data_url(take.waveform, take.sample_rate_hz)),
        ),
    )


def _each(
    models: Mapping[str, Sequence[Continuation]], source: Callable[[Continuation], str]
) -> dict[tuple[int, str], str]:
    return {(number, model): source(take) for model, takes in models.items() for number, take in enumerate(takes)}


def data_url(waveform: np.ndarray, sample_rate_hz: int) -> str:
    """Return (samples,) float32 as a data URL of 16-bit WAV, which every browser plays and seeks in."""
    stream = io.BytesIO()
    soundfile.write(stream, waveform, sample_rate_hz, format="WAV", subtype="PCM_16")
    return f"data:audio/wav;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _render(template: str, **values: object) -> str:
    return environment(Path(__file__).parent, html=True).get_template(template).render(**values)
