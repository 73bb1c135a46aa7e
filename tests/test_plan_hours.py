"""Hours of a run: how often each step is computed, by hand; times are consistent, and compared with no clock."""

import json

import pytest
from typer.testing import CliRunner

from alignslm.cli import app
from alignslm.cli.planning import duration
from alignslm.config.loading import load_experiment
from alignslm.config.presets import preview
from alignslm.pipeline import read_stages
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
