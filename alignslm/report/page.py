"""The report as one self-contained HTML page (no script, no network, audio and figures inside) and as Markdown."""

import base64
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from markupsafe import Markup, escape

from alignslm.benchmarks.conventions import Convention
from alignslm.browser_audio import to_browser_audio
from alignslm.config.experiment import Experiment
from alignslm.figures.columns import BASE
from alignslm.report.drawing import Panel, inline
from alignslm.report.findings import LOW_TEMPERATURE, findings_of
from alignslm.report.formatting import FILTERS, PROCEDURE, convention_words, headline
from alignslm.report.inputs import CONFIG_KEYS, GuardLog, ReportInputs, TrainingLog
from alignslm.report.metrics import Report
from alignslm.report.published import protocols_of, published_sheet, published_tables
from alignslm.report.run_info import RunInfo
from alignslm.report.systems import last_round, lineage, topline
from alignslm.report.tabulate import (
    comparison_sheet,
    every_comparison_sheet,
    every_metric_sheet,
    headline_sheet,
    pairs_sheet,
    sound_sheet,
    systems_sheet,
)
from alignslm.templates import environment

FOLDER = Path(__file__).parent
QUESTION = "Do the spoken continuations score higher after alignment?"


def page(report: Report, inputs: ReportInputs, drawn: list[Panel], origin: RunInfo) -> str:
    """Return the whole report as HTML text."""
    templates = environment(FOLDER, html=True)
    templates.filters |= FILTERS | {"sound": _sound, "svg": _svg}
    return templates.get_template("report.html").render(
        **_content(report, inputs, drawn, origin),
        details=[every_metric_sheet(report), every_comparison_sheet(report)],
        picked=inputs.picked,
        examples=inputs.examples,
        compared=len(inputs.changes),
        alike=inputs.alike,
    )


def markdown(report: Report, inputs: ReportInputs, drawn: list[Panel], origin: RunInfo) -> str:
    """Return the report as Markdown text; it links to the panel of the answer in plots/."""
    return environment(FOLDER, html=False).get_template("report.md").render(_content(report, inputs, drawn, origin))


def _content(report: Report, inputs: ReportInputs, drawn: list[Panel], origin: RunInfo) -> dict[str, object]:
    """Return the content of both formats: tables, and every text as a list of paragraphs."""
    experiment = inputs.experiment
    tables, ours = published_tables(), published_sheet(report, experiment)
    return {
        "question": QUESTION,
        "experiment": experiment,
        "params": experiment.params,
        "topline": topline(experiment),
        "last": last_round(experiment),
        "steps": len(lineage(experiment)) - 1,
        "panels": drawn,
        "columns": headline(report),
        **paragraphs_of(report, experiment, inputs.training, inputs.guards),
        "systems": systems_sheet(experiment.params),
        "headline": headline_sheet(report, topline(experiment)),
        "sound": sound_sheet(report, topline(experiment)),
        "comparisons": comparison_sheet(report),
        "pairs": pairs_sheet(inputs),
        "published": tables,
        "covered": protocols_of(experiment),
        "sheets": {name: table.sheet() for name, table in tables.items()} | {"main": ours},
        "provenance": _provenance(inputs, origin),
    }


def paragraphs_of(
    report: Report,
    experiment: Experiment,
    training: Mapping[str, TrainingLog] | None = None,
    guards: Mapping[str, GuardLog] | None = None,
) -> dict[str, list[str]]:
    """Return the findings, warnings, notes and protocols as paragraphs of Markdown; logs are by checkpoint."""
    evaluation = experiment.params.evaluation
    changes = {name: log.change for name, log in (training or {}).items()}
    convention = Convention(evaluation.likelihood, evaluation.reduction, evaluation.include_eos)
    templates = environment(FOLDER, html=False)
    templates.filters |= FILTERS
    facts = {
        "experiment": experiment,
        "params": experiment.params,
        "findings": findings_of(report, experiment),
        "worse": {name: change for name, change in changes.items() if change and change.worse},
        "guards": guards or {},
        "base": BASE,
        "topline": topline(experiment),
        "low_temperature": LOW_TEMPERATURE,
        "procedure": PROCEDURE,
        "mismatched": getattr(experiment.corpus, "mismatched_fraction", None),
        "convention": convention_words(convention.name(has_context=True)),
    }
    names = ("findings", "warnings", "notes", "protocols")
    return {name: _paragraphs(templates.get_template(f"{name}.md").render(facts)) for name in names}


def _paragraphs(text: str) -> list[str]:
    """Split at blank lines and join the lines of each paragraph; no-break spaces stay."""
    parts = (re.sub(r"[ \n]+", " ", part).strip() for part in re.split(r"\n\s*\n", text))
    return [part for part in parts if part]


def _provenance(inputs: ReportInputs, origin: RunInfo) -> dict[str, str]:
    experiment = inputs.experiment
    return {
        "code": (origin.git_commit or "not a git repository") + (" with uncommitted changes" if origin.dirty else ""),
        "dvc.lock sha256": origin.dvc_lock_sha256 or "none",
        "choices": ", ".join(
            [f"{key} {getattr(experiment.params, key)}" for key in CONFIG_KEYS]
            + [f"trainer of {name} {item.trainer}" for name, item in experiment.params.checkpoints.items()]
        ),
        "seeds": ", ".join(f"{name} {seed}" for name, seed in experiment.params.seeds),
        "thresholds": "; ".join(
            f"{name}: " + ", ".join(f"{key} {limit:g}" for key, limit in _limits(inputs, name))
            for name in experiment.params.rounds
        ),
        "packages": ", ".join(f"{name} {version}" for name, version in origin.packages.items()),
        "python": origin.python,
        "processor": origin.processor,
        "device setting": origin.device,
    }


def _limits(inputs: ReportInputs, name: str) -> Iterator[tuple[str, float]]:
    """Yield a round's thresholds as they were: a selector may have none of the score, or take them from the scores."""
    for key, limit in inputs.experiment.params.rounds[name].rule:
        held = getattr(inputs.rounds[name].counts, key, limit)
        if isinstance(held, float):
            yield key, held


def _sound(flac: bytes) -> str:
    """Return a table's audio as a data URL that browsers play."""
    kind, data = to_browser_audio(flac)
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _svg(panel: Panel) -> Markup:
    label = str(escape(f"{panel.title}: {panel.alt}"))
    return Markup(inline(panel.svg, name=panel.name, label=label))  # noqa: S704 (the label is escaped)
