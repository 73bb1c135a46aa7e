"""What the machine has, and what a choice costs that asks for more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alignslm import machine
from alignslm.cli import app
from alignslm.config.arithmetic import emulated, warn_emulated
from alignslm.config.loading import load_execution, load_experiment
from tests.sample_experiment import write_experiment

ZEN2 = "processor\t: 0\nflags\t\t: fpu sse2 avx avx2 fma\n"
ZEN4 = "processor\t: 0\nflags\t\t: fpu sse2 avx avx2 avx512f avx512_bf16\n"
GRAVITON2 = "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp\n"
GRAVITON3 = "processor\t: 0\nFeatures\t: fp asimd sve i8mm bf16\n"


@pytest.fixture
def processor(tmp_path, monkeypatch):
    """Give the machine another /proc/cpuinfo, and no GPU."""
    monkeypatch.setattr(machine, "GPUS", ())
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)

    def put(text: str, *, architecture: str = "x86_64") -> None:
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(machine.platform, "machine", lambda: architecture)

    return put


@pytest.mark.parametrize(
    ("text", "architecture", "expected"),
    [
        (ZEN2, "x86_64", False),
        (ZEN4, "x86_64", True),
        (GRAVITON2, "aarch64", False),
        (GRAVITON3, "aarch64", True),
        ("processor: 0\n", "riscv64", None),
    ],
)
def test_bfloat16_instructions_are_read_from_cpuinfo(processor, text, architecture, expected):
    processor(text, architecture=architecture)
    assert machine.multiplies_bfloat16() is expected


def test_without_cpuinfo_nothing_is_claimed(monkeypatch, tmp_path):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "absent")
    assert machine.multiplies_bfloat16() is None


@pytest.mark.parametrize(
    ("limit", "expected"), [("AVX2", False), ("AVX512_CORE", False), ("AVX512_CORE_BF16", True), ("DEFAULT", True)]
)
def test_an_instruction_set_that_onednn_may_not_use_is_absent(processor, monkeypatch, limit, expected):
    processor(ZEN4)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert machine.multiplies_bfloat16() is expected


def asking_for_bfloat16(root: Path) -> None:
    write_experiment(root)
    for name in ("lm/llama", "trainer/dpo"):
        file = root / "experiments" / f"{name}.yaml"
        assert "autocast: float32" in file.read_text()
        file.write_text(file.read_text().replace("autocast: float32", "autocast: bfloat16"))


def test_emulated_choices_are_named_with_file_and_line(processor, tmp_path):
    processor(ZEN2)
    asking_for_bfloat16(tmp_path)
    faults = emulated(load_experiment(tmp_path), load_execution(tmp_path), tmp_path)
    assert set(faults) == {"lm", "checkpoints"}
    (fault,) = faults["lm"]
    assert Path(fault.file).read_text().splitlines()[fault.line - 1] == "autocast: bfloat16"
    assert "autocast: float32" in fault.message
    assert "times" in fault.message


@pytest.mark.parametrize("why", ["instructions", "a GPU", "cuda asked for", "float32"])
def test_nothing_is_said_where_bfloat16_is_quick_or_not_asked_for(processor, tmp_path, monkeypatch, why):
    processor(ZEN4 if why == "instructions" else ZEN2)
    (write_experiment if why == "float32" else asking_for_bfloat16)(tmp_path)
    if why == "a GPU":
        monkeypatch.setattr(machine, "GPUS", (tmp_path,))
    device = "cuda" if why == "cuda asked for" else "auto"
    execution = load_execution(tmp_path).model_copy(update={"device": device})
    assert emulated(load_experiment(tmp_path), execution, tmp_path) == {}


def test_check_warns_and_still_succeeds(processor, tmp_path):
    processor(ZEN2)
    asking_for_bfloat16(tmp_path)
    done = CliRunner().invoke(app, ["check", "-C", str(tmp_path)])
    assert done.exit_code == 0
    warned = [line for line in done.output.splitlines() if line.startswith("warning:") and "bfloat16" in line]
    assert [name for name in ("lm/llama.yaml:", "trainer/dpo.yaml:") if any(name in line for line in warned)] == [
        "lm/llama.yaml:",
        "trainer/dpo.yaml:",
    ]
    assert len(warned) == 2


def test_a_stage_names_its_own_choice_alone_and_once(processor, tmp_path, monkeypatch, capsys):
    processor(ZEN2)
    asking_for_bfloat16(tmp_path)
    monkeypatch.chdir(tmp_path)
    warn_emulated(load_experiment(), load_execution(), "lm", "lm")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "experiments/lm/llama.yaml:" in said[0]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_cores_are_those_this_process_may_use():
    one = sorted(os.sched_getaffinity(0))[:1]
    code = (
        "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); "
        "from alignslm.machine import cores; print(cores())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(one[0])], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
