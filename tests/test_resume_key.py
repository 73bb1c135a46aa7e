"""Unfinished work is found again only under the same inputs, values and code: all that dvc.yaml says of a stage."""

from pathlib import Path

import pytest

from alignslm.artifacts import Artifacts
from alignslm.config.experiment import CONFIG_GROUPS
from alignslm.config.loading import load_execution
from alignslm.integrity import require_intact
from alignslm.pipeline import read_stages, stage_named
from alignslm.progress import StageLog
from stages.run import Run
from tests.micro import ROOT, copy_project

STAGES = {stage.name: stage for stage in read_stages(ROOT)}
RESUMED = [name for name in STAGES if name.split("@")[0] not in {"check", "report", "publish"}]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("keys") / "project"
    copy_project(root)
    for stage in STAGES.values():
        for out in stage.outs:
            path = root / out
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(out) if path.suffix else path.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                (path / "part-00000").write_text(out)
    for dep in (dep for stage in STAGES.values() for dep in stage.deps if dep.startswith("artifacts/outside/")):
        (root / dep).parent.mkdir(parents=True, exist_ok=True)
        (root / dep).write_text(dep)
    return root


def key(root: Path, label: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the folder of a stage's unfinished work."""
    monkeypatch.chdir(root)
    stage, _, name = label.partition("@")
    entry, _ = stage_named(label)
    inputs = {path: require_intact(Path(path)) for path in entry.deps}
    script = str(ROOT / f"stages/{stage}.py")
    run = Run(label, name, script, None, load_execution(), Artifacts(), StageLog(), entry, inputs)
    with run.work() as work:
        return work.name


@pytest.mark.parametrize("label", RESUMED)
def test_a_changed_input_or_value_of_any_stage_gives_another_folder(project, label, monkeypatch):
    before = key(project, label, monkeypatch)
    assert key(project, label, monkeypatch) == before
    for dep in STAGES[label].deps:
        file = next(iter(sorted(path for path in (project / dep).rglob("*") if path.is_file())), project / dep)
        kept = file.read_bytes()
        file.write_bytes(kept + b"#")
        assert key(project, label, monkeypatch) != before, dep
        file.write_bytes(kept)
    for entry, value in STAGES[label].values(project).items():
        file, _, name = entry.partition(": ")
        if name in CONFIG_GROUPS and isinstance(value, str):
            continue  # another file by name, which is another value or another input
        kept = (project / file).read_text()
        if name == file:
            (project / file).write_text(kept + "another: 1\n")
        else:
            set_value(project / file, name.split("."), value)
        assert key(project, label, monkeypatch) != before, entry
        (project / file).write_text(kept)
    assert key(project, label, monkeypatch) == before
    assert not [dep for dep in STAGES[label].deps if dep.startswith(("stages/", "alignslm/"))]


def set_value(path: Path, steps: list[str], value: object) -> None:
    """Change one value of a file, in a way that params.yaml still has every key that dvc.yaml reads."""
    import ruamel.yaml

    yaml = ruamel.yaml.YAML()
    content = yaml.load(path.read_text())
    at = content
    for step in steps[:-1]:
        at = at[step]
    at[steps[-1]] = {**value, "another": next(iter(value.values()))} if isinstance(value, dict) else f"{value}0"
    with path.open("w") as stream:
        yaml.dump(content, stream)
