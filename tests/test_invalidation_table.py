"""The table of what a change runs again against dvc.yaml: what each parameter makes run, first and after that."""

import re

import pytest

from alignslm.cli.overview import grouped
from alignslm.config.presets import preview
from alignslm.pipeline import Stage, read_stages, sources
from tests.documented import PAGES, ROOT

STAGES = read_stages(ROOT, params=preview("embedded-full", ROOT).text)  # two rounds, every control
ROW = re.compile(r"^\| (`[^|]+`[^|]*) \| ([^|]*) \| ([^|]*) \|$", re.MULTILINE)
MARKER = "| `experiments/execution.yaml`"  # a row of that table and of no other, on whichever page it stands
(SECTION,) = [part for page in PAGES for part in page.read_text().split("\n## ") if MARKER in part]
ROWS = ROW.findall(SECTION)
EVERY = {stage.name for stage in STAGES if stage.name in {"check", "report"} or stage.name.startswith("publish@")}


def depends(stage: Stage, changed: str) -> bool:
    """Tell whether a stage lists the parameter, a part of it or what it is part of; or the file."""
    return any(
        listed == changed or changed.startswith(f"{listed}.") or listed.startswith(f"{changed}.")
        for listed in stage.params
        if not listed.endswith(".yaml") or listed == changed
    )


def first(changed: str) -> list[Stage]:
    return [stage for stage in STAGES if depends(stage, changed)]


def after(begun: list[Stage]) -> list[Stage]:
    """Return what reads, directly or not, something that these stages make."""
    reached = {stage.name for stage in begun}
    for stage in STAGES:  # in an order in which they can run
        if any(source.name in reached for source in sources(stage, STAGES)):
            reached.add(stage.name)
    return [stage for stage in STAGES if stage.name in reached and stage not in begun]


def stages_of(cell: str) -> set[str]:
    """Read `pairs@*`, `train@r1`, `prompts` as names of stages."""
    names = set()
    for found in re.findall(r"`([^`]+)`", cell):
        group, _, items = found.partition("@")
        every = {stage.name for stage in STAGES if stage.name.partition("@")[0] == group}
        names |= every if items == "*" else {f"{group}@{item}" for item in items.split(",")} if items else {group}
    return names


def parameters(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def row_of(changed: str) -> str:
    """Return the row as it should stand, without what reads every parameter (`check`, `report`) and `publish`."""
    begun = first(changed)
    cells = [[stage for stage in group if stage.name not in EVERY] for group in (begun, after(begun))]
    told = [
        ", ".join(f"`{name}`" for name in re.split(r", (?=[a-z])", grouped(cell, STAGES)) if name) for cell in cells
    ]
    return f"| `{changed}` | {told[0]} | {told[1]} |"


@pytest.mark.parametrize(("changed", "begins", "goes_on"), ROWS, ids=[row[0] for row in ROWS])
def test_a_row_says_what_dvc_yaml_says(changed, begins, goes_on):
    for parameter in parameters(changed):
        begun = first(parameter)
        said = stages_of(begins), stages_of(goes_on)
        true = {stage.name for stage in begun} - EVERY, {stage.name for stage in after(begun)} - EVERY
        assert said == true, f"it should read:\n{row_of(parameter)}"


def test_every_parameter_has_its_row():
    listed = {name for stage in STAGES for name in stage.params if name != "params.yaml"}
    told = {name for changed, _, _ in ROWS for name in parameters(changed)}
    silent = {
        name
        for name in listed
        if not name.endswith(".yaml") and not any(one == name or one.startswith(f"{name}.") for one in told)
    }
    assert silent == set()


def test_what_is_no_parameter_is_listed_by_no_stage():
    assert first("experiments/execution.yaml") == []
    assert ROWS
