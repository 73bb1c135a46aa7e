"""Hours of a run: how often each step is computed, by hand; times are consistent, and compared with no clock."""

import json
import os

import pytest
from typer.testing import CliRunner

from alignslm import machine
from alignslm.cli import app, planning
from alignslm.cli.planning import duration
from alignslm.config.loading import load_execution, load_experiment
from alignslm.config.presets import preview
from alignslm.pipeline import read_stages
from alignslm.plan.hours import gpu_times, shared
from alignslm.plan.probe import Estimate
from alignslm.plan.work import amounts_of, lengths_of, seconds_of
from alignslm.plan.workload import volume_of
from tests.micro import ROOT
from tests.sample_experiment import edit, write_experiment


def amounts(preset=None):
    edited = preview(preset, ROOT) if preset else None
    experiment = edited.experiment if edited else load_experiment(ROOT)
    return experiment, amounts_of(experiment, read_stages(ROOT, params=edited.text if edited else None))


def test_steps_of_the_embedded_experiment_by_hand():
    experiment, found = amounts()
    utterance_s = 18 / 200 * 60  # words of a story at 200 a minute
    spoken_s = utterance_s * 0.6
    assert lengths_of(experiment)[:3] == pytest.approx((utterance_s, utterance_s * 0.4, spoken_s))
    assert lengths_of(experiment).units == round(spoken_s * 25 / 1.1)
    stories = 2400 + 100 + 120 + 120
    assert found["corpus"] == {"story": pytest.approx(stories)}
    assert found["units"] == {"encode": pytest.approx(stories * utterance_s)}
    assert found["base"] == {"base step": 600}
    assert found["vocoder"] == {"vocoder step": 210}
    assert found["asr"] == {"asr step": 270, "synthesize": pytest.approx(800 * utterance_s)}
    assert found["continuations@r1"] == {"draw": 360 * 5}
    assert found["speech@r1"] == {"synthesize": pytest.approx(1800 * spoken_s)}
    assert found["transcripts@r1"] == {"transcribe": 1800}
    assert found["samples@base"] == {"draw": 200, "synthesize": pytest.approx(200 * spoken_s), "transcribe": 200}
    assert found["samples@ground-truth"]["draw"] == 0
    # 1.5 pairs of each of 300 prompts, three epochs in batches of 16
    assert found["train@r1"] == {"train dpo-nll": 85 * 16}
    assert found["train@sft"] == {"train sft": 85 * 16}
    assert "prompt_transcripts" not in found


def test_steps_of_the_papers_experiment_by_hand():
    experiment, found = amounts("twist-1.3b")
    assert lengths_of(experiment).units == 150  # the limit, which nine more seconds of a reader exceed
    assert found["continuations@r2"] == {"draw": 252_000 * 5}
    assert found["scores@r1"]["judge"] == 252_000 * 5
    assert found["train@r1"] == {"train dpo-paper": 100_000 * 512}
    assert found["prompt_transcripts"]["transcribe"] > 0
    assert found["eval@r1"]["heldout_judge"] == 0  # a server's time is its own
    assert "base" not in found
    assert "vocoder" not in found


def test_a_judge_by_perplexity_reads_no_rubric():
    experiment = preview("real-small", ROOT).experiment
    words = 2.7 * (2.5 + 200 * 1.5 / 25)
    assert [one.read_tokens / one.requests for one in volume_of(experiment, ROOT).asked] == [round(1.4 * words)] * 2


def test_a_stage_takes_its_steps_times_or_is_unknown():
    assert seconds_of({"draw": 10, "judge": 4, "never": 0}, {"draw": 0.5, "judge": 2.0}) == 13.0
    assert seconds_of({"draw": 10, "judge": 4}, {"draw": 0.5, "judge": None}) is None
    assert [duration(seconds) for seconds in (2.34, 3599, 3600, 5_000_000)] == [
        "2.3 s",
        "59 min 59 s",
        "1.0 h",
        "1,388.9 h",
    ]


# --- several GPUs ---


def execution(**changes):
    return load_execution(ROOT).model_copy(update=changes)


@pytest.mark.parametrize(
    ("stage", "changes", "gpus", "used"),
    [
        ("continuations@r1", {}, 8, 8),
        ("eval@base", {"replicas": 3}, 8, 3),
        ("units", {"replicas": 16}, 8, 8),
        ("train@r1", {}, 8, 1),
        ("train@r1", {"num_processes": 4}, 8, 4),
        ("reward@rm", {"num_processes": 16}, 8, 8),
        ("base", {"num_processes": 2, "replicas": 8}, 8, 2),
        ("vocoder", {"num_processes": 8}, 8, 1),
        ("scores@r1", {"replicas": 4}, 0, 1),
        ("train@r1", {"num_processes": 2}, 0, 1),
    ],
)
def test_a_stage_is_divided_by_the_gpus_that_share_it(stage, changes, gpus, used):
    assert shared(stage, 24.0, execution(**changes), gpus, measured=True) == (24.0 / used, used, True)


def gpu_rates(preset, processes=1, **changes):
    edited = preview(preset, ROOT)
    experiment = edited.experiment.model_copy(update=changes)
    stages = read_stages(ROOT, params=edited.text)
    shared = execution(num_processes=processes)
    return gpu_times(experiment, shared, volume_of(experiment, ROOT), stages, processes)


def test_only_kinds_and_sizes_with_a_rate_have_hours():
    """The embedded experiment has none; without the published vocoder, what speaks has none."""
    found, vocoder = gpu_rates("twist-1.3b"), preview("tiny", ROOT).experiment.vocoder
    assert not gpu_rates("tiny")
    assert {"speech@r1", "samples@base", "continuations@r1"} <= found.keys()
    assert "base" not in found
    assert found.keys() - gpu_rates("twist-1.3b", vocoder=vocoder).keys() == {
        name for name in found if name.startswith(("speech", "samples"))
    }


def test_sft_reads_one_side_and_is_not_as_measured():
    found = gpu_rates("twist-1.3b")
    assert found["train@r1"].measured
    assert not found["train@sft"].measured
    assert found["train@r1"].seconds == pytest.approx(2 * found["train@sft"].seconds)


def test_a_pass_of_a_size_that_was_not_measured_is_given_the_rate_of_the_next_smaller_one():
    """At 1.3B: 7 % of the product rate at 8 pairs, 13 % at 16, 24 % at 64."""
    trainers = preview("twist-1.3b", ROOT).experiment.checkpoints
    seconds, measured = {}, {}
    for pairs in (4, 8, 16, 20, 128):
        trainer = trainers["r1"].model_copy(update={"micro_batch_size": pairs})
        found = gpu_rates("twist-1.3b", checkpoints={**trainers, "r1": trainer, "r2": trainer})["train@r1"]
        seconds[pairs], measured[pairs] = found.seconds, found.measured
    assert measured == {4: False, 8: True, 16: True, 20: False, 128: False}
    assert seconds[4] == seconds[8] == pytest.approx(13 / 7 * seconds[16])
    assert seconds[20] == seconds[16] == pytest.approx(24 / 13 * seconds[128])


def test_passes_as_large_as_memory_allows_have_the_rate_of_the_largest_measured_one_that_a_process_can_fill():
    """512 pairs a step: 64 and more for each of up to 8 processes, 16 for each of 32, 4 for each of 128."""
    found = {}
    for processes in (1, 8, 32, 128):
        found[processes] = gpu_rates("twist-1.3b", processes)["train@r1"]
        assert found[processes].gpus == processes
    seconds = {processes: one.seconds * processes for processes, one in found.items()}
    assert seconds[8] == pytest.approx(seconds[1])
    assert seconds[32] == pytest.approx(24 / 13 * seconds[1])
    assert seconds[128] == pytest.approx(24 / 7 * seconds[1])
    assert [one.measured for one in found.values()] == [True, True, True, False]


LISTED = "NVIDIA H200, 143771\nNVIDIA H200, 143771\nNVIDIA H200, 143771\n"


@pytest.mark.parametrize(
    ("printed", "visible", "count"),
    [(LISTED, None, 3), (LISTED, "0,2", 2), (LISTED, "", 0), (LISTED, "-1", 0), ("No devices were found\n", None, 0)],
)
def test_gpus_are_those_that_nvidia_smi_lists_and_that_are_visible(printed, visible, count, tmp_path, monkeypatch):
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\ncat <<'END'\n{printed}END\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.gpus() == [("NVIDIA H200", 143_771 << 20)] * count
    assert (machine.device_memory().name == "NVIDIA H200") == (count > 0)


def test_a_probe_on_one_gpu_is_divided_and_a_cpu_has_no_such_column(tmp_path, monkeypatch):
    monkeypatch.chdir(write_experiment(tmp_path))
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    (tmp_path / "code.yaml").write_text((ROOT / "code.yaml").read_text())
    seconds = {"continuations@r1": 14400.0, "continuations@r2": 14400.0, "train@r1": 7200.0, "mos": None}
    monkeypatch.setattr(planning, "_probed", lambda *_: Estimate("a processor", seconds, {}))
    edit(tmp_path / "experiments/execution.yaml", ("replicas: 1", "replicas: auto"))
    told = {}
    for before, device, gpus in (("cpu", "cpu", 2), ("cpu", "auto", 0), ("auto", "auto", 2)):
        edit(tmp_path / "experiments/execution.yaml", (f"device: {before}", f"device: {device}"))
        monkeypatch.setattr(planning, "gpus", lambda gpus=gpus: [machine.DeviceMemory("NVIDIA H200", 1 << 37)] * gpus)
        lines = CliRunner().invoke(app, ["plan", "--offline", "--probe"]).stdout.splitlines()
        start = next(row for row, line in enumerate(lines) if line.startswith("estimate on"))
        told[device, gpus] = [line.split() for line in lines[start : start + 4]]
    assert told["cpu", 2] == told["auto", 0]
    assert told["auto", 0] == [
        ["estimate", "on", "a", "processor", "time"],
        ["continuations", "8.0", "h"],
        ["train", "2.0", "h"],
        ["together", "10.0", "h"],
    ]
    assert told["auto", 2] == [
        ["estimate", "on", "2", "x", "NVIDIA", "H200", "time", "GPUs"],
        ["continuations", "4.0", "h", "2"],
        ["train", "2.0", "h", "1"],
        ["together", "6.0", "h"],
    ]
    data = json.loads(CliRunner().invoke(app, ["plan", "--offline", "--probe", "--json"]).stdout)["gpus"]
    assert data["names"] == ["NVIDIA H200"] * 2
    assert data["stages"]["continuations@r1"] == {"seconds": 7200.0, "gpus": 2, "measured": True}
    monkeypatch.setattr(planning, "gpus", list)
    assert "gpus" not in json.loads(CliRunner().invoke(app, ["plan", "--offline", "--probe", "--json"]).stdout)


@pytest.mark.long
def test_a_probe_times_every_step_of_small_kinds(tmp_path, monkeypatch):
    """The sample experiment under this repository's stages; twice the continuations take twice the draws."""
    monkeypatch.chdir(write_experiment(tmp_path))
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    (tmp_path / "code.yaml").write_text((ROOT / "code.yaml").read_text())
    told = CliRunner().invoke(app, ["plan", "--offline", "--probe", "--json"])
    estimate = json.loads(told.stdout)["estimate"]
    steps, seconds = estimate["steps"], estimate["seconds"]
    assert {"story", "encode", "base step", "draw", "synthesize", "transcribe", "train dpo"} <= steps.keys()
    assert all(seconds > 0 for step, seconds in steps.items() if "judge" not in step)
    assert seconds["base"] == pytest.approx(10 * steps["base step"])
    assert seconds["continuations@r1"] == pytest.approx(55 * 5 * steps["draw"])
    assert seconds["continuations@r1"] == seconds["continuations@r2"]
    edit(tmp_path / "params.yaml", ("num_continuations: 5", "num_continuations: 10"))
    doubled = amounts_of(load_experiment(tmp_path), read_stages(tmp_path))
    assert doubled["continuations@r1"] == {"draw": 550}


@pytest.mark.long
def test_published_kinds_are_timed_without_their_weights(tmp_path):
    """Of small sizes: HuBERT, HiFi-GAN, Whisper tiny, OPT with adapters and a judge that writes."""
    from alignslm.config.loading import load_execution
    from alignslm.plan import lm_probe, speech_probe
    from alignslm.plan.bench import Bench

    experiment = preview("twist-1.3b", ROOT).experiment
    small = {"weights": experiment.asr.weights.model_copy(update={"repo": "openai/whisper-tiny"})}
    text = {"weights": experiment.judge.weights.model_copy(update={"repo": "facebook/opt-125m"})}
    experiment = experiment.model_copy(
        update={"asr": experiment.asr.model_copy(update=small), "judge": experiment.judge.model_copy(update=text)}
        | {"lm": experiment.lm.model_copy(update={"weights": text["weights"]})}
    )
    execution = load_execution(ROOT).model_copy(update={"batch_size": 4, "device": "cpu"})
    bench = Bench(experiment, execution, volume_of(experiment, ROOT), tmp_path)
    timed = (speech_probe.encode, speech_probe.synthesize, speech_probe.transcribe, lm_probe.draw)
    assert all(step(bench) > 0 for step in timed)
    assert lm_probe.judge(bench, "judge") > 0
    assert lm_probe.train_row(bench, "dpo-paper") > 0
    unheard = experiment.lm.model_copy(
        update={"weights": text["weights"].model_copy(update={"repo": "lab/unheard-of"})}
    )
    bench.experiment = experiment.model_copy(update={"lm": unheard})
    assert lm_probe.draw(bench) is None
