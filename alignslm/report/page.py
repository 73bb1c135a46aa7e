"""The report as one self-contained HTML page: no script, no network, sound and figures inside."""

import base64
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from alignslm.playable import playable
from alignslm.report.beside import ablation_sheet, others_sheet, published_sheet
from alignslm.report.drawing import Panel, inline
from alignslm.report.inputs import ReportInputs
from alignslm.report.metrics import Report
from alignslm.report.notes import footer, notes
from alignslm.report.origin import Origin
from alignslm.report.protocol import protocols
from alignslm.report.tabulate import (
    comparison_sheet,
    every_comparison_sheet,
    every_metric_sheet,
    headline_sheet,
    pairs_sheet,
    sound_sheet,
)
from alignslm.report.verdict import verdict, warnings
from alignslm.report.wording import DASH, with_code

SECTIONS = {
    "differences": (
        "Difference to the base model",
        "Paired by prompt or item pair, 95 % intervals. A hollow dot: the interval holds 0.",
    ),
    "drift": (
        "Drift over the rounds",
        "What moves with the score, and should not move far: length, repetition, variety. Bars: 95 % intervals.",
    ),
    "scores": (
        "Scores",
        "Draws: what a round had to make pairs of. Its thresholds act on the utility: this score, if it weighs alone.",
    ),
    "training": (
        "Training",
        "Reward accuracy may rise while speech breaks: watch the chosen log-probability, which falls when it does.",
    ),
    "shapes": (
        "Length, repetition, diversity, silence",
        "Means with 95 % intervals: what a judge could be gamed by, and what the vocoder loses.",
    ),
}


def page(report: Report, inputs: ReportInputs, drawn: list[Panel], origin: Origin) -> str:
    """Return the whole report as HTML text."""
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"sound": _sound, "svg": _svg, "score": _score}
    setting = inputs.setting
    return environment.get_template("template.html").render(
        report=report,
        setting=setting,
        verdict=verdict(report, setting),
        warnings=warnings(report, setting),
        headline=headline_sheet(report, setting),
        sound=sound_sheet(report, setting),
        comparisons=comparison_sheet(report),
        details=[every_metric_sheet(report), every_comparison_sheet(report)],
        figures=[(key, *SECTIONS[key], [p for p in drawn if p.section == key]) for key in SECTIONS],
        pairs=pairs_sheet(inputs),
        examples=inputs.examples,
        published=[published_sheet(report, setting), ablation_sheet(), others_sheet()],
        protocols=[with_code(told) for told in protocols(setting)],
        notes=[with_code(note) for note in notes(setting)],
        footer=footer(setting, origin),
    )


def _sound(flac: bytes) -> str:
    """Return sound as the tables hold it, in a form that a browser plays, inside an address."""
    kind, data = playable(flac)
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _svg(panel: Panel) -> Markup:
    label = str(escape(f"{panel.title}: {panel.alt}"))
    return Markup(inline(panel.svg, name=panel.name, label=label))  # noqa: S704 (our own drawing, label escaped)


def _score(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f}"
