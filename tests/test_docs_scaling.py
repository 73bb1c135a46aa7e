"""docs/scaling.md: its volumes are `alignslm plan`'s, and its hours follow from them by the formulas it gives."""

from typing import NamedTuple

import pytest

from alignslm.config.presets import preview
from alignslm.plan.memory import memory_of, shape_of
from alignslm.plan.workload import FLAC_BYTES_PER_H, volume_of
from tests.micro import ROOT

PAGE = (ROOT / "docs/scaling.md").read_text() if (ROOT / "docs/scaling.md").exists() else ""
PRESETS = {"slam": None, "twist-1.3b": None, "twist-7b": None, "twist-7b-mls": None, "every MLS utterance": 11_000_000}
BATCH_ROWS = 256
COMPUTE_FLOPS = 312e12 * 0.3  # an A100's bfloat16 peak, and the share of it that is assumed
MEMORY_BYTES_S = 2.0e12 * 0.5  # likewise its memory
STEP_S = 0.025  # of any decoding step, at least: launching kernels from Python
ENCODER_X, VOCODER_X = 1500, 168  # times as fast as the speech lasts
WHISPER_CLIPS_S = 20
LIBRISPEECH_H, MLS_H = 961, 44_659
SIMULATED_BYTES = 170  # of a continuation: units, scores, its share of a prompt


class Sizes(NamedTuple):
    """One preset: what the plan says, and the GPU hours of every stage, rounds together."""

    volume_row: str
    gpu_h: dict[str, float]


def sizes(name: str, train: int | None) -> Sizes:
    experiment = preview("twist-7b-mls" if train else name, ROOT).experiment
    if train:
        prompts = experiment.params.prompts.model_copy(update={"train": train})
        params = experiment.params.model_copy(update={"prompts": prompts})
        experiment = experiment.model_copy(update={"params": params})
    volume, params = volume_of(experiment, ROOT), experiment.params
    lm = memory_of(experiment, batch_size=BATCH_ROWS)[0]
    judged = next(asked for asked in volume.asked if asked.key == "judge")
    drawn = volume.continuations + volume.evaluated
    cells = (
        f"{volume.prompts / 1e3:.0f} thousand",
        f"{volume.continuations / 1e6:.1f} million",
        f"{volume.speech_h:.0f} h",
        f"{volume.speech_h * FLAC_BYTES_PER_H / 1e12:.1f} TB",
        f"{volume.continuations * SIMULATED_BYTES / 1e9:.1f} GB",
        f"{judged.read_tokens / 1e9:.1f} billion",
        f"{judged.written_tokens / 1e9:.1f} billion",
    )
    step_s = max(STEP_S, (lm.weights + lm.cache / 2) / MEMORY_BYTES_S)
    judge = shape_of(experiment.judge.weights)
    positions = params.prompts.max_duration_s * experiment.encoder.frame_rate_hz + params.sampling.max_new_units
    pair_flops = 6 * shape_of(experiment.lm.weights).parameters * 2 * positions
    trainer = experiment.checkpoints["r1"]
    pairs = trainer.max_steps * trainer.batch_size * len(params.rounds)
    corpus_h = LIBRISPEECH_H + (MLS_H if train else 0) + (MLS_H * 600 / 10_808 if name == "twist-7b-mls" else 0)
    gpu_s = {
        "units": corpus_h * 3600 / ENCODER_X,
        "continuations": drawn / BATCH_ROWS * params.sampling.max_new_units * step_s,
        "speech": volume.speech_h * 3600 / VOCODER_X,
        "transcripts": (drawn + volume.prompts_transcribed) / WHISPER_CLIPS_S,
        "scores": judged.read_tokens * 2 * judge.parameters / COMPUTE_FLOPS
        + judged.written_tokens / BATCH_ROWS * STEP_S,
        "checkpoint": pairs * pair_flops / COMPUTE_FLOPS,
    }
    row = f"| {name} | " + " | ".join(cells) + " |"
    return Sizes(row, {stage: seconds / 3600 for stage, seconds in gpu_s.items()})


def hours_rows(name: str, gpu_h: dict[str, float]) -> list[str]:
    """A row for each number of GPUs: hours of every stage, and of all together."""
    rows = []
    for gpus in (1, 8, 64):
        hours = [*(one / gpus for one in gpu_h.values()), sum(gpu_h.values()) / gpus]
        rows.append(f"| {name} | {gpus} | " + " | ".join(f"{h:.0f}" if h >= 10 else f"{h:.1f}" for h in hours) + " |")
    return rows


@pytest.mark.parametrize("name", PRESETS)
def test_volumes_and_hours_of_the_page(name):
    found = sizes(name, PRESETS[name])
    lines = PAGE.splitlines()
    assert found.volume_row in lines
    for row in hours_rows(name, found.gpu_h):
        assert row in lines


def test_the_page_names_every_assumption():
    for said in ("312 TFLOP/s", "0.3", "2.0 TB/s", "0.5", "25 ms", "1500 times", "168 times", "20 clips", "256"):
        assert said in PAGE
