"""Published figures and this run's under them, column by column, each row by its protocol."""

from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias

from alignslm.report import published
from alignslm.report.columns import ACCURACY, CONTINUATION
from alignslm.report.inputs import Setting
from alignslm.report.metrics import Report
from alignslm.report.tabulate import Cell, Sheet, models_of, sheet_of
from alignslm.report.wording import DASH, TOPIC, with_error

Protocol: TypeAlias = Literal["official", "copy", "toy"]
COLUMNS = ("sWUGGY", "sBLIMP", "S-StoryCloze", "T-StoryCloze")
OFFICIAL = {"swuggy": "sWUGGY", "sblimp": "sBLIMP", "sstorycloze": "S-StoryCloze", "tstorycloze": "T-StoryCloze"}
COPIES = {"swuggy_inter": "sWUGGY", "sblimp": "sBLIMP", "sSC": "S-StoryCloze", "tSC": "T-StoryCloze"}  # slamkit's names
TOYS = {"toy-swuggy": "sWUGGY", "toy-sblimp": "sBLIMP", "toy-storycloze": "T-StoryCloze"}
BEHIND: Mapping[Protocol, str] = {"official": "", "copy": " (slamkit's copies)", "toy": " (toy protocol)"}
MAIN_METRICS = {"toy-storycloze": TOPIC}
BENEATH = {"swuggy": (f"{ACCURACY}/in-vocab", "in-vocab")}


def column_of(kind: str, copy_of: str | None) -> tuple[Protocol, str] | None:
    """Return the protocol of a kind of benchmark and its column of the paper's table; None where it has none."""
    if kind in OFFICIAL:
        return "official", OFFICIAL[kind]
    if kind in TOYS:
        return "toy", TOYS[kind]
    return ("copy", COPIES[copy_of]) if copy_of in COPIES else None


def published_sheet(report: Report, setting: Setting) -> Sheet:
    """The paper's table, and this run's rows under it: one a model and protocol."""
    headings = ["system", *COLUMNS, "judge (1 to 5)"]
    theirs = [
        [row.system, *(_printed(value, 1) for value in row[1:5]), _printed(row.judge, 2)] for row in published.MAIN
    ]
    caption = f"Published by others ({published.SOURCE}), and this run: {_meaning(setting)}."
    return sheet_of(caption, headings, [*theirs, *_ours(report, setting)])


def protocols_of(setting: Setting) -> list[Protocol]:
    """List the protocols of this run that have a column of the paper's table, the official one first."""
    found = {place[0] for item in setting.benchmarks.values() if (place := column_of(item.kind, item.copy_of))}
    return [name for name in BEHIND if name in found]


def _meaning(setting: Setting) -> str:
    match protocols_of(setting):
        case ["toy"] | []:
            return "under another protocol: not comparable"
        case [*_, "toy"]:
            return "comparable as far as the protocols told above agree, and under the toy protocol not at all"
        case _:
            return "comparable as far as the protocols told above agree"


def _ours(report: Report, setting: Setting) -> Iterator[list[Cell]]:
    for model in models_of(report):
        for protocol in (protocols_of(setting) or ["toy"]) if model in setting.models else []:
            cells = [_cell(report, model, setting, protocol, column) for column in COLUMNS]
            judge = Cell(with_error(report.metric(model, CONTINUATION, "heldout_judge")), "ours")
            yield [Cell(f"this run: {model}{BEHIND[protocol]}", "ours"), *cells, judge]


def _cell(report: Report, model: str, setting: Setting, protocol: Protocol, column: str) -> Cell:
    """Write every benchmark of one column: the first one's figure, and beneath it what belongs to it or is another."""
    told: list[str] = []
    for name, item in setting.benchmarks.items():
        if column_of(item.kind, item.copy_of) != (protocol, column):
            continue
        found = report.metric(model, name, MAIN_METRICS.get(item.kind, ACCURACY))
        if found is None:
            continue
        told.append(f"{name} {with_error(found)}" if told else with_error(found))
        metric, label = BENEATH.get(item.kind, ("", ""))
        told += [f"{label} {with_error(part)}"] if (part := report.metric(model, name, metric)) else []
    return Cell(told[0] if told else DASH, "ours", "; ".join(told[1:]))


def _printed(value: float | None, decimals: int) -> str:
    return DASH if value is None else f"{value:.{decimals}f}"


def ablation_sheet() -> Sheet:
    """The paper's 1.3B ablation."""
    rows = [
        [row.system, _printed(row.training_judge, 2), _printed(row.t_storycloze, 1), _printed(row.judge, 2)]
        for row in published.ABLATION
    ]
    headings = ["system", "training judge (1 to 5)", "T-StoryCloze", "GPT-4o (1 to 5)"]
    return sheet_of(f"1.3B ablation of the paper ({published.SOURCE}).", headings, rows)


def others_sheet() -> Sheet:
    """Rows of other papers."""
    rows = [
        [row.system, *(_printed(value, 1) for value in row[1:5]), _printed(row.auto_bleu, 2)]
        for row in published.OTHERS
    ]
    headings = ["system", "sBLIMP", "S-StoryCloze", "T-StoryCloze", "perplexity", "auto-BLEU ×100"]
    return sheet_of(f"Rows printed elsewhere ({published.SOURCE_OTHERS}).", headings, rows)
