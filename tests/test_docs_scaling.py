"""docs/scaling.md: its volumes are `alignslm plan`'s, and its hours follow from them by the formulas it gives."""

from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from alignslm.cli import app, planning
from alignslm.config.loading import load_execution
from alignslm.config.presets import preview
from alignslm.machine import DeviceMemory
from alignslm.pipeline import read_stages
from alignslm.plan.hours import gpu_times
from alignslm.plan.memory import shape_of
from alignslm.plan.workload import FLAC_BYTES_PER_H, volume_of
from tests.micro import ROOT

PAGE = (ROOT / "docs/scaling.md").read_text() if (ROOT / "docs/scaling.md").exists() else ""
PRESETS = {"slam": None, "twist-1.3b": None, "twist-7b": None, "twist-7b-mls": None, "every MLS utterance": 11_000_000}
ROWS, DRAWN_S = 255, {"twist-1.3b": 9.62, "twist-7b": 10.2}  # seconds for so many continuations
VOCODER_X, ENCODER_X, WHISPER_CLIPS_S = 787, 1500, 20
PRODUCTS = 738e12  # of bfloat16
# Of PRODUCTS, by pairs in a pass; a step's 512 pairs are 8 a GPU on 64.
TRAINED = {"twist-1.3b": {8: 0.07, 16: 0.13, 32: 0.19, 64: 0.24}, "twist-7b": {8: 0.22, 16: 0.25}}
READ, STEP_S, REPLY_TOKENS = 0.46, 12.6 / 150, 100  # of the judge
PAIR_UNITS = 2 * (50 + 150)
MEASURED = {"continuations", "speech", "checkpoint"}  # but those of slam, except for speech
LIBRISPEECH_H, MLS_H = 977, 44_659.7
SIMULATED_BYTES = 170  # of a continuation: units, scores, its share of a prompt


class Sizes(NamedTuple):
    """One preset: what the plan says, one GPU's hours of every stage (training: at all of PRODUCTS), and the LM."""

    volume_row: str
    gpu_h: dict[str, float]
    model: str


def sizes(name: str, train: int | None) -> Sizes:
    experiment = preview("twist-7b-mls" if train else name, ROOT).experiment
    if train:
        prompts = experiment.params.prompts.model_copy(update={"train": train})
        params = experiment.params.model_copy(update={"prompts": prompts})
        experiment = experiment.model_copy(update={"params": params})
    volume, params = volume_of(experiment, ROOT), experiment.params
    judged = next(asked for asked in volume.asked if asked.key == "judge")
    model = "twist-7b" if "7b" in name or train else "twist-1.3b"
    cells = (
        f"{volume.prompts / 1e3:.0f} thousand",
        f"{volume.continuations / 1e6:.1f} million",
        f"{volume.speech_h:.0f} h",
        f"{volume.speech_h * FLAC_BYTES_PER_H / 1e12:.1f} TB",
        f"{volume.continuations * SIMULATED_BYTES / 1e9:.1f} GB",
        f"{judged.read_tokens / 1e9:.1f} billion",
        f"{judged.written_tokens / 1e9:.1f} billion",
    )
    judge, lm = shape_of(experiment.judge.weights), shape_of(experiment.lm.weights)
    trainer = experiment.checkpoints["r1"]
    pairs = trainer.max_steps * trainer.batch_size * len(params.rounds)
    corpus_h = LIBRISPEECH_H + MLS_H if train else volume.corpus_h
    gpu_s = {
        "units": corpus_h * 3600 / ENCODER_X,
        "continuations": volume.continuations / ROWS * DRAWN_S[model],
        "speech": volume.continuations * 9 / VOCODER_X,
        "transcripts": (volume.continuations + volume.prompts_transcribed) / WHISPER_CLIPS_S,
        "scores": volume.continuations
        * (
            judged.read_tokens / judged.requests * 2 * judge.parameters / (READ * PRODUCTS)
            + REPLY_TOKENS * STEP_S / ROWS
        ),
        "checkpoint": pairs * PAIR_UNITS * 4 * lm.parameters / PRODUCTS,
    }
    row = f"| {name} | " + " | ".join(cells) + " |"
    return Sizes(row, {stage: seconds / 3600 for stage, seconds in gpu_s.items()}, model)


def told(hours: float, *, measured: bool) -> str:
    return ("" if measured else "~") + (f"{hours:.0f}" if hours >= 10 else f"{hours:.1f}")


def hours_rows(name: str, found: Sizes) -> list[str]:
    """A row for each number of GPUs: hours of every stage, and of all together."""
    rows = []
    for gpus in (1, 8, 64):
        known = {stage: stage in MEASURED and (name != "slam" or stage == "speech") for stage in found.gpu_h}
        shares = TRAINED[found.model]
        share = shares[max(size for size in shares if size <= 512 / gpus)]
        hours = {stage: h / gpus / (share if stage == "checkpoint" else 1) for stage, h in found.gpu_h.items()}
        cells = [told(h, measured=known[stage]) for stage, h in hours.items()]
        rows.append(f"| {name} | {gpus} | {' | '.join(cells)} | {told(sum(hours.values()), measured=False)} |")
    return rows


@pytest.mark.parametrize("name", PRESETS)
def test_volumes_and_hours_of_the_page(name):
    found = sizes(name, PRESETS[name])
    lines = PAGE.splitlines()
    assert found.volume_row in lines
    for row in hours_rows(name, found):
        assert row in lines


def test_the_page_names_every_assumption():
    """Each is in the table of rates."""
    rates = PAGE.split("### GPU hours")[1].split("| preset | GPUs")[0]
    for said in (
        "738 TFLOP/s",
        "9.62 s",
        "10.2 s",
        "787 times",
        "1500 times",
        "20 clips",
        "12.6 s",
        "46 %",
        "24 %",
        "25 %",
    ):
        assert said in rates


@pytest.mark.parametrize("name", ["slam", "twist-1.3b", "twist-7b", "twist-7b-mls"])
@pytest.mark.parametrize("gpus", [1, 8])
def test_a_plan_of_so_many_gpus_has_the_hours_of_the_page(name, gpus):
    edited = preview(name, ROOT)
    experiment = edited.experiment
    execution = load_execution(ROOT).model_copy(update={"num_processes": 4})
    stages = read_stages(ROOT, params=edited.text)
    times = gpu_times(experiment, execution, volume_of(experiment, ROOT), stages, gpus)
    page, model = sizes(name, None).gpu_h, sizes(name, None).model
    for kind in ("units", "continuations", "speech", "transcripts", "scores"):
        kinds = {kind, "prompt_transcripts"} if kind == "transcripts" else {kind}
        ours = [one for stage, one in times.items() if stage.partition("@")[0] in kinds]
        assert sum(one.seconds for one in ours) * gpus / 3600 == pytest.approx(page[kind], rel=0.01)
        assert {one.gpus for one in ours} == {gpus}
        assert {one.measured for one in ours} == {kind in MEASURED and (name != "slam" or kind == "speech")}
    rounds = [times["train@r1"], times["train@r2"]]
    assert {one.gpus for one in rounds} == {min(4, gpus)}
    assert {one.measured for one in rounds} == {name != "slam"}
    hours = sum(one.seconds * one.gpus for one in rounds) / 3600
    assert hours == pytest.approx(page["checkpoint"] / max(TRAINED[model].values()), rel=0.01)


def test_the_example_of_the_page_is_what_a_machine_of_eight_gpus_prints(monkeypatch, tmp_path):
    eight = [DeviceMemory("NVIDIA H200", 150_754_820_096)] * 8
    monkeypatch.setattr(planning, "gpus", lambda: eight)
    monkeypatch.setattr(planning, "device_memory", lambda: eight[0])
    text = (ROOT / "experiments/execution.yaml").read_text().replace("num_processes: 1 ", "num_processes: 8 ")
    (tmp_path / "eight.yaml").write_text(text)
    monkeypatch.setenv("ALIGNSLM_EXECUTION", str(tmp_path / "eight.yaml"))
    monkeypatch.chdir(ROOT)
    printed = CliRunner().invoke(app, ["plan", "--offline", "--preset", "twist-7b"]).stdout
    lines = [line.rstrip() for line in printed.splitlines()]
    start = next(row for row, line in enumerate(lines) if line.startswith("hours on 8 x NVIDIA H200"))
    block = "\n".join(lines[start : next(row for row, line in enumerate(lines) if line.startswith("together")) + 1])
    assert block in PAGE, f"put this into docs/scaling.md:\n{block}"
