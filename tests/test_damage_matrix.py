"""Every artifact of an experiment, cut, emptied, lost, overwritten or with one bit flipped: one line says so."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from alignslm.pipeline import Stage, read_stages
from alignslm.speed import forkserver
from tests.messages import names
from tests.micro import ENVIRONMENT, ROOT, WARM, make_repository, repro, run

pytestmark = pytest.mark.long


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1 << 4
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "missing": Path.unlink,
    "junk": lambda path: path.write_bytes(b"\x00junk\xff" * 50),
    "flipped": flip,
}
HEAVY = {"base", "continuations", "report", "train"}  # stages that import for seconds before they begin


class Reader(NamedTuple):
    """What reads an artifact, and a name for it."""

    name: str
    command: tuple[str, ...]


@pytest.fixture(scope="module")
def micro(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("damage") / "micro"
    make_repository(root)
    repro(root)
    return root


@pytest.fixture(scope="module")
def address(micro) -> Iterator[str]:
    """Give the address of a process whose forks the stages are: they begin in half a second."""
    if not forkserver.can_fork():
        yield ""
        return
    tell = f"import os, time; print(os.environ[{forkserver.VARIABLE!r}], flush=True); time.sleep(10**6)"
    with subprocess.Popen(
        (*WARM, sys.executable, "-c", tell), cwd=micro, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        yield running.stdout.readline().strip()
        running.kill()


def artifacts(root: Path) -> list[Path]:
    found = sorted(path for top in ("artifacts", "reports") for path in (root / top).rglob("*") if path.is_file())
    return [path.relative_to(root) for path in found]


def readers(stages: list[Stage], file: Path) -> Iterator[Reader]:
    """Yield a stage that reads a file, if there is one; else look at it as commands do."""
    found = [
        stage
        for stage in stages
        if any(dep == file.as_posix() or file.as_posix().startswith(f"{dep}/") for dep in stage.deps)
        and not stage.name.startswith("publish")  # which reads only what it is told to push
    ]
    for stage in sorted(found, key=lambda stage: stage.name.split("@")[0] in HEAVY)[:1]:
        yield Reader(stage.name, tuple(shlex.split(stage.cmd)))
    if not found:
        yield Reader("", look_at(file))


def look_at(file: Path) -> tuple[str, ...]:
    """Return a command that compares a file with what was written, as those commands do that read it."""
    code = (
        "from pathlib import Path; from alignslm.integrity import require_intact\n"
        "from alignslm.user_errors import report_user_errors\n"
        f"with report_user_errors(): require_intact(Path({file.as_posix()!r}))"
    )
    return sys.executable, "-c", code


def fault(root: Path, reader: Reader, file: Path, address: str) -> str | None:
    """Run a reader; return what it said unless that is one line that names the file and what helps."""
    done = subprocess.run(
        reader.command,
        cwd=root,
        env={**ENVIRONMENT, "DVC_STAGE": reader.name, forkserver.VARIABLE: address},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stderr.strip()
    told = done.returncode == 1 and file.as_posix() in said and "dvc repro" in said and "\n" not in said
    return None if told else f"{reader.name} {file}: status {done.returncode}, {done.stdout[-300:]}{said[-800:]}"


def test_each_damage_of_each_artifact_is_one_line_of_the_stage_that_reads_it(micro, address):
    stages, tried, faults = read_stages(micro), 0, []
    files = artifacts(micro)
    for file in files:
        kept, place = (micro / file).read_bytes(), micro / file
        for damage in DAMAGES.values():
            for reader in readers(stages, file):
                place.unlink(missing_ok=True)  # it may be a link to DVC's cache
                place.write_bytes(kept)
                damage(place)
                faults.append(fault(micro, reader, file, address))
                tried += 1
        place.unlink(missing_ok=True)
        place.write_bytes(kept)
    assert [one for one in faults if one] == []
    assert tried == 5 * len(files) > 200
    assert repro(micro) == []


LOAD = """
import sys
from pathlib import Path
from alignslm import asr, encoder, judge, mos, vocoder
from alignslm.config.loading import load_experiment
from alignslm.lm.checkpoint import load_lm
from tests.test_damage_matrix import DAMAGES
experiment = load_experiment()
models = {
    "artifacts/encoder": lambda place: encoder.load_encoder(experiment.encoder, place, device="cpu"),
    "artifacts/vocoder": lambda place: vocoder.load_vocoder(experiment.vocoder, place, device="cpu"),
    "artifacts/asr": lambda place: asr.load_asr(experiment.asr, place, device="cpu"),
    "artifacts/judges/ngram": lambda place: judge.load_judge(experiment.judge, place, device="cpu"),
    "artifacts/mos": lambda place: mos.load_mos(experiment.mos, place, workers=1, device="cpu"),
    "artifacts/checkpoints/r1": lambda place: load_lm(place, device="cpu"),
}
for name, load in models.items():
    folder = Path(name)
    load(folder)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        kept = file.read_bytes()
        for damage, apply in DAMAGES.items():
            file.unlink(missing_ok=True)
            file.write_bytes(kept)
            apply(file)
            try:
                load(folder)
            except Exception as error:
                told = type(error).__module__.startswith("alignslm") and file.name in str(error)
                print("told" if told else f"NOT TOLD {file} {damage} {error!r}")
            else:
                print(f"SILENT {file} {damage}")
        file.unlink(missing_ok=True)
        file.write_bytes(kept)
    load(folder)
"""


def test_no_model_is_loaded_from_a_damaged_folder(micro):
    """As `alignslm generate` and the functions of Python load them, outside of any stage."""
    said = run(micro, sys.executable, "-c", LOAD, variables={"PYTHONPATH": os.pathsep.join([str(micro), str(ROOT)])})
    lines = [line for line in said.splitlines() if line.startswith(("told", "NOT", "SILENT"))]
    assert set(lines) == {"told"}
    assert len(lines) > 100


@pytest.mark.parametrize("command", [("dvc", "repro"), ("dvc", "checkout")])
@pytest.mark.parametrize("file", ["artifacts/encoder/codebook.safetensors", "artifacts/units.parquet"])
def test_the_cure_works_when_typed(micro, file, command):
    """A file may be a link to DVC's cache: then a bit flips in both, and the message names both."""
    place = micro / file
    whole = place.read_bytes()
    linked = place.stat().st_nlink > 1
    damaged = bytearray(whole)
    damaged[50] ^= 1
    place.chmod(0o644)
    with place.open("r+b") as stream:
        stream.write(damaged)
    said = run(micro, *look_at(Path(file)), fails=True)
    names(said, file, "dvc repro")
    also = re.search(r"\((\S*cache/files\S*)\)", said)
    assert bool(also) == linked
    place.unlink()
    if also:
        Path(micro, also[1]).unlink()
    run(micro, *(("dvc", "repro") if also else command))
    assert place.read_bytes() == whole
    assert repro(micro) == []
