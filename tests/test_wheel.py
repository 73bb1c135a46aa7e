"""The wheel, installed into an empty environment: an experiment of one's own, from `alignslm init` to an upgrade."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from alignslm.template import template_files
from tests.micro import CHOICES, ENVIRONMENT, PARAMS, ROOT, edit, stages_of


class Installed:
    """A virtual environment with the wheel, and what the wheel depends on in sight."""

    def __init__(self, folder: Path, wheel: Path):
        self.folder = folder
        venv.create(folder)
        self.bin = Path(sysconfig.get_path("scripts", "venv", {"base": str(folder)}))
        pip = [sys.executable, "-m", "pip", "--python", str(folder), "install", "-q", "--no-deps", "--no-index"]
        subprocess.run([*pip, str(wheel)], check=True)
        self.packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
        (self.packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(self, root: Path, *command: str, fails: bool = False) -> str:
        environment = {**ENVIRONMENT, "PATH": os.pathsep.join([str(self.bin), os.environ["PATH"]])}
        environment.pop("PYTHONPATH")
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode != 0) == fails, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    def repro(self, root: Path, *targets: str) -> list[str]:
        return stages_of(self.run(root, "python", "-m", "dvc", "repro", *targets))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build it from the files that git would put into a clone."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    command = ["wheel", "-q", "--no-build-isolation", "--no-deps", "--no-index", "-w", str(out), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *command], check=True)
    return next(out.glob("alignslm-*.whl"))


@pytest.fixture
def installed(wheel, tmp_path):
    return Installed(tmp_path / "venv", wheel)


def test_the_wheel_holds_the_files_of_this_repository_and_no_others(wheel):
    with ZipFile(wheel) as held:
        names = held.namelist()
        place = "alignslm/template/files/"
        assert {name.removeprefix(place): held.read(name) for name in names if name.startswith(place)} == {
            name: file.read_bytes() for name, file in template_files().items()
        }
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"alignslm"}  # neither stages nor tests
    assert "alignslm/py.typed" in names


def test_an_experiment_of_ones_own(installed, tmp_path):
    run, mine = installed.run, tmp_path / "mine"
    run(tmp_path, "alignslm", "init", "mine")
    assert run(mine, "git", "status", "--porcelain") == ""
    assert run(mine, "alignslm", "check")
    assert str(installed.packages) in run(mine, "python", "-c", "import alignslm; print(alignslm.__file__)")
    for choice in ("execution", "corpus/storyworld", "encoder/mfcc-kmeans"):
        edit(mine / "experiments" / f"{choice}.yaml", CHOICES[choice])
    edit(mine / "params.yaml", {"prompts": PARAMS["prompts"]})

    ran = installed.repro(mine, "prompts")
    assert set(ran) == {"own_code@encoder/mfcc-kmeans", "corpus", "encoder", "units", "prompts"}
    assert ran[-3:] == ["encoder", "units", "prompts"]
    assert installed.repro(mine, "prompts") == []

    # Another version of the library: a module of two stages, a file nobody edited, and one that the user did edit.
    (installed.packages / "alignslm/prompts.py").open("a").write("\nADDED = 1\n")
    template = installed.packages / "alignslm/template/files"
    (template / "experiments/judge/ngram.yaml").open("a").write("# newer\n")
    (template / "params.yaml").open("a").write("# newer\n")
    assert installed.repro(mine, "prompts") == []
    assert "`alignslm upgrade`" in run(mine, "python", "-m", "dvc", "repro", "-s", "-f", "prompts", fails=True)
    said = run(mine, "alignslm", "upgrade")
    assert "experiments/judge/ngram.yaml: replaced" in said
    assert "\n+# newer\n" in said.partition("params.yaml: ")[2]
    assert "1 of " in said.partition("since code.yaml: ")[2]
    assert (mine / "experiments/judge/ngram.yaml").read_text().endswith("# newer\n")
    assert not (mine / "params.yaml").read_text().endswith("# newer\n")
    assert run(mine, "alignslm", "upgrade") == "code.yaml is up to date\n"
    assert installed.repro(mine, "prompts") == ["prompts"]


def test_a_preset_is_written_into_the_experiment(installed, tmp_path):
    installed.run(tmp_path, "alignslm", "init", "mine", "--preset", "slam")
    assert "lm: slam" in (tmp_path / "mine/params.yaml").read_text()
    assert "lm: slam" in installed.run(tmp_path / "mine", "git", "show", "HEAD:params.yaml")
