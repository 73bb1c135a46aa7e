"""code.yaml: what is part of a stage's hash, what a stage does at a mismatch, and what `alignslm upgrade` says."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alignslm import code, code_deps
from alignslm.cli import app
from alignslm.config.loading import load_experiment
from alignslm.pipeline import read_stages
from tests.micro import copy_project, run

ROOT = Path(__file__).parent.parent


def digest(folder: Path) -> str:
    """Return the hash of stages/scores.py under the library in `folder`."""
    program = "import sys; from alignslm import code; print(code.current()['scores'])"
    return run(folder, sys.executable, "-c", program).strip()


@pytest.fixture
def project(tmp_path):
    copy_project(tmp_path)
    return tmp_path


def upgrade(root, *options):
    done = CliRunner().invoke(app, ["upgrade", "-C", str(root), *options])
    assert done.exit_code == 0, done.output
    return done.stdout


def record_other_code(root, *scripts):
    code.write(root, {**code.current(root), **dict.fromkeys(scripts, "0" * 16)})


@pytest.mark.parametrize(
    ("file", "old", "new", "counts"),
    [
        ("alignslm/judge/rows.py", "import", "# a remark\nimport", False),
        ("alignslm/judge/rows.py", '"""', '"""Said otherwise. ', False),
        ("alignslm/judge/rows.py", "import", "X = 1\nimport", True),
        ("alignslm/judge/openai_api.py", "import", "X = '# no remark'\nimport", True),  # imported inside a function
        ("alignslm/vocoder/__init__.py", "import", "X = 1\nimport", False),  # no part of this stage
        ("alignslm/progress.py", "import", "X = 1\nimport", False),  # plumbing
        ("stages/scores.py", "from", "X = 1\nfrom", True),
        ("stages/speech.py", "from", "X = 1\nfrom", False),
    ],
)
def test_the_hash_is_of_science_alone(file, old, new, counts, project):
    before = digest(project)
    text = (project / file).read_text()
    (project / file).write_text(
        re.sub(
            rf"^( *){re.escape(old)}",
            lambda m: m[1] + new.replace("\n", "\n" + m[1]),
            text,
            count=1,
            flags=re.MULTILINE,
        )
    )
    assert (project / file).read_text() != text
    assert (digest(project) != before) == counts


def test_a_data_file_of_a_package_counts_and_a_cache_does_not(project):
    before = digest(project)
    (project / "alignslm/judge/__pycache__").mkdir(exist_ok=True)
    (project / "alignslm/judge/__pycache__/rows.pyc").write_bytes(b"")
    assert digest(project) == before
    (project / "alignslm/judge/words.txt").write_text("a")
    assert digest(project) != before


def test_a_module_named_in_a_string_is_imported():
    text = 'REGISTRY = {"ngram": "alignslm.judge.ngram:Judge"}'
    assert "alignslm.judge.ngram" in code_deps.named_modules(text)


def test_prose_is_left_out_and_strings_that_are_values_are_not():
    text = """'''Doc.'''
def f(x):
    '''Two
    lines.'''
    # a remark
    y = '# kept'  # gone
    return f"{x}#{y}" '''a

b'''
"""
    left = code_deps.without_prose(text)
    assert (
        left
        == """def f(x):
    y = '# kept'
    return f"{x}#{y}" '''a

b'''
"""
    )


def test_a_stage_whose_code_is_not_recorded_stops_with_one_line(project):
    record_other_code(project, "prompts")
    said = run(project, sys.executable, "-m", "stages.prompts", fails=True)
    assert said.count("\n") == 1
    assert {"stages/prompts.py", "code.yaml", "`alignslm upgrade`"} <= {*re.findall(r"`[^`]+`|[\w/.]+", said)}
    upgrade(project)
    assert "code.yaml" not in run(project, sys.executable, "-m", "stages.prompts", fails=True)  # its inputs lack


def test_upgrade_says_what_reruns_and_what_it_costs(project):
    stages = {stage.name: {} for stage in read_stages(project) if not stage.name.startswith("publish")}
    (project / "dvc.lock").write_text(json.dumps({"stages": stages}))
    noted = project / ".work/times/1.0"
    noted.mkdir(parents=True)
    (noted / "report.json").write_text(json.dumps({"name": "report", "started": 0, "began": 1, "ended": 78}))
    record_other_code(project, "mos")
    said = upgrade(project)
    assert said.startswith("since code.yaml: mos changed; 2 of ")
    assert "1 min 17 s as measured (1 not measured): mos, report\n" in said
    assert code.recorded(project) == code.Recorded(code.current(project), {})
    assert upgrade(project) == "code.yaml is up to date\n"


def test_new_code_of_the_check_reruns_the_check_alone(project):
    stages = {stage.name: {} for stage in read_stages(project)}
    (project / "dvc.lock").write_text(json.dumps({"stages": stages}))
    record_other_code(project, "check")
    assert upgrade(project).startswith(f"since code.yaml: check changed; 1 of {len(stages)} stages will rerun")


def test_results_that_are_kept_rerun_nothing_and_let_the_stage_run(project):
    record_other_code(project, "mos")
    known = code.recorded(project)
    upgrade(project, "--keep")
    kept = code.recorded(project)
    assert kept.hashes == known.hashes  # what DVC compares
    assert kept.kept == {"mos": code.current(project)["mos"]}
    assert upgrade(project) == "code.yaml is up to date\n"
    assert "`alignslm upgrade`" not in run(project, sys.executable, "-m", "stages.mos", fails=True)


def test_a_script_that_came_or_went_is_recorded(project):
    shutil.copy(project / "stages/mos.py", project / "stages/mine.py")
    (project / "stages/judge.py").unlink()
    upgrade(project)
    assert "mine" in code.recorded(project).hashes
    assert "judge" not in code.recorded(project).hashes


def test_a_stages_hash_is_kept_until_a_file_is_written(project):
    """It is read back, not computed, while no file changes; a change with the old size and time counts."""
    program = "from pathlib import Path; from alignslm.code import hash_of; print(hash_of(Path('stages/scores.py')))"

    def found() -> str:
        return run(project, sys.executable, "-c", program).strip()

    first, kept = found(), project / ".work/code/scores.txt"
    state, _, known = kept.read_text().partition(" ")
    assert known == first == digest(project)
    kept.write_text(f"{state} feedfacefeedface")
    assert found() == "feedfacefeedface"
    kept.write_text("damaged")
    assert found() == first
    rows = project / "alignslm/judge/rows.py"
    before, text = rows.stat(), rows.read_text()
    rows.write_text(text + "X = 1\n")
    second = found()
    assert second == digest(project) != first
    rows.write_text(text + "X = 2\n")
    os.utime(rows, ns=(before.st_atime_ns, before.st_mtime_ns))
    third = found()
    assert third == digest(project)
    assert third not in {first, second}


def test_upgrade_adds_the_mappings_that_an_older_experiment_has_not(project):
    path = project / "params.yaml"
    now = path.read_text()
    older = "".join(
        line for line in now.splitlines(keepends=True) if not line.startswith(("guards:", "reward_models:", "best_of:"))
    )
    path.write_text(older)
    said = upgrade(project)
    assert all(f"params.yaml: `{key}: {{}}` added" in said for key in ("guards", "reward_models", "best_of"))
    assert path.read_text().startswith(older)
    assert load_experiment(project).params == load_experiment(ROOT).params
    assert "added" not in upgrade(project)
