"""Without the packages of extras everything else works, and what needs one says how to install it."""

import re
import shutil
import subprocess
import sys

import pytest

from alignslm.extras import EXTRAS, needed
from tests.micro import ENVIRONMENT, ROOT, edit

BLOCKED = f"import sys; sys.modules.update(dict.fromkeys({sorted(EXTRAS)})); "
COMMAND = "from alignslm.cli import app; app()"
ENGINE = (
    "import alignslm.engine as e, alignslm.config.loading as l; from alignslm.user_errors import report_user_errors\n"
)
ENGINE += "with report_user_errors(): e.pool_of(l.load_execution())"
STAGE = "import runpy; runpy.run_module('stages.judge', run_name='__main__')"


def message(package, by):
    extra = EXTRAS[package]
    return (
        f"{by} needs the package {package}: pip install 'alignslm[{extra}]' "
        f"(in a clone: .venv/bin/pip install -e '.[{extra}]')"
    )


@pytest.fixture
def project(tmp_path):
    """A folder that chooses what needs packages: a judge behind a server, and Ray."""
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    return tmp_path


def without_extras(folder, program, *arguments):
    """Run a program that finds none of the packages; return its status and the one line that it ends with."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + program, *arguments],
        cwd=folder,
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "sk-x"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.strip()


def test_the_embedded_experiment_and_every_help_need_none_of_them(project):
    for arguments in (["--help"], ["check"], ["check", "--all"], ["demo", "--help"], ["listen", "serve", "--help"]):
        status, _, told = without_extras(project, COMMAND, *arguments)
        assert (status, told) == (0, ""), arguments


def test_the_page_and_the_listening_test_say_what_they_need(project):
    told = message("fastapi", "alignslm listen serve")
    assert without_extras(project, COMMAND, "listen", "serve", "studies/x") == (1, "", told)
    told = message("gradio", "alignslm demo")
    assert without_extras(project, COMMAND, "demo") == (1, "", told)


def test_ray_is_refused_by_check_plan_and_where_it_is_connected_to(project):
    edit(project / "experiments/execution.yaml", {"engine": "ray"})
    told = message("ray", "engine: ray")
    status, _, said = without_extras(project, COMMAND, "check")
    assert status == 1
    assert re.fullmatch(r"experiments/execution\.yaml:\d+: engine: " + re.escape(told), said)
    status, planned, _ = without_extras(project, COMMAND, "plan", "--offline")
    assert (status, f"missing: {said}" in planned) == (1, True)
    assert without_extras(project, ENGINE) == (1, "", told)


def test_another_module_that_is_not_there_is_a_fault_of_its_own():
    with pytest.raises(ModuleNotFoundError, match="'absent'"), needed("ray", by="engine: ray"):
        import absent  # noqa: F401
