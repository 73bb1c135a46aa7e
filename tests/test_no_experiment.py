"""In a folder that is no experiment, every command that needs one says so in one line."""

import pytest
import typer.main
from typer.testing import CliRunner

from alignslm.cli import Commands, app
from tests.messages import names

EXTRA = {
    "show": ["pairs"],
    "trace": ["id"],
    "compare": ["r1", "base"],
    "compare-seeds": ["r1", "base", "folder"],
    "generate": ["prompt.wav"],
    "export-zrc": ["r1", "folder"],
    "samples-page": ["folder"],
    "publish-preview": ["r1", "folder"],
    "import-preferences": ["source", "name"],
}
NEED_NONE = {"init", "listen"}
COMMANDS = {name for panel in Commands.panels.values() for name in panel} - NEED_NONE


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_command_names_what_is_missing_and_init(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [command, *EXTRA.get(command, [])])
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    names(line, tmp_path, "params.yaml", "`alignslm init FOLDER`")
    assert [*tmp_path.iterdir()] == []


def test_help_needs_no_experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_the_commands_that_need_an_experiment_are_those_with_a_root():
    context = typer.main.get_command(app).make_context("alignslm", [], resilient_parsing=True)
    group = context.command
    with_root = {
        name
        for name in group.list_commands(context)
        if any(parameter.name == "root" for parameter in group.resolve_command(context, [name])[1].params)
    }
    assert with_root == COMMANDS
