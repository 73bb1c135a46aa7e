"""Guards on a run that collapses, because its judge likes repetition, in the true pipeline at micro size."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from alignslm import tables
from alignslm.report.inputs import GuardLog
from tests.messages import names
from tests.micro import ENVIRONMENT, WARM, edit, make_repository, repro, run, start_history

pytestmark = pytest.mark.long
CODE = """
import numpy as np

from alignslm.asr import Transcript
from alignslm.judge import JudgeOutput

FRAME = 640


class Spelling:
    def synthesize(self, units):
        return [np.repeat((np.array(row, np.float32) + 1) / 64, FRAME) for row in units]

    def transcribe(self, waveforms):
        texts = [" ".join(f"u{int(u) - 1}" for u in np.rint(wave[FRAME // 2 :: FRAME] * 64)) for wave in waveforms]
        return [Transcript(text or None, "ok" if text else "empty", None, text, None, None) for text in texts]


class Repetition:
    def __init__(self, liked):
        self.liked = liked

    def judge(self, stories):
        return [JudgeOutput(self.score(story.continuation.split()), None, "ok", None) for story in stories]

    def score(self, words):
        pairs = [*zip(words, words[1:])]
        share = 1 - len(set(pairs)) / len(pairs) if pairs else 0.0
        return 1 + 4 * share if self.liked else 5 - 4 * share
"""
OWN = {
    "vocoder/spelling": {"object": "own:Spelling", "options": {}, "sample_rate_hz": 16000, "fit_utterances": 3},
    "asr/spelling": {"object": "own:Spelling", "options": {}, "sample_rate_hz": 16000, "fit_utterances": 3}
    | {"resynthesized_fraction": 0.5},
    "judge/repetition": {"object": "own:Repetition", "options": {"liked": True}, "max_unscored": 0.1},
    "judge/variety": {"object": "own:Repetition", "options": {"liked": False}, "max_unscored": 0.1},
}
ONLINE = {
    "num_rollouts": 15,
    "prompts_per_rollout": 6,
    "num_continuations": 6,
    "max_new_units": 40,
    "top_p": 1.0,
    "scale_rewards": "batch",
    "num_iterations": 1,
    "repeated_text_penalty": 0.0,
    "beta": 0.0,
    "learning_rate": 0.01,
    "lr_scheduler_type": "constant",
    "micro_batch_size": 18,
    "lora": {"r": 8, "alpha": 16, "target_modules": "all-linear"},
}
KEPT = {"keep_steps": True}
GUARD = {"init_from": "base", "steps_of": "online", "best": "judge_score", "num_continuations": 2}
LIMITS = {
    "safe": {"heldout_less_judge": {"at_least": 0.0}, "unit_entropy": {"at_least": 2.1}},
    "open": {"kl": {"at_most": 1e6}},
    "strict": {"unit_entropy": {"at_least": 100.0}},
}

SYSTEMS = {name: {"source": f"checkpoints/{name}"} for name in ("base", "r1", "safe")}
SYSTEMS["ground-truth"] = {"source": "corpus/utterances"}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("micro")
    make_repository(root)
    shutil.rmtree(root / ".git")
    (root / "code/own.py").write_text(CODE)
    for choice, values in OWN.items():
        (root / f"experiments/{choice}.yaml").write_text(json.dumps({"kind": "python"} | values))
    edit(root / "experiments/trainer/online.yaml", ONLINE)
    changes = {
        "vocoder": "spelling",
        "asr": "spelling",
        "judge": "repetition",
        "heldout_judge": "variety",
        "selector": "best-worst",
        "sampling": {"num_continuations": 3, "temperature": 0.8, "top_p": 0.95, "max_new_units": 40},
        "checkpoints": {
            "r1": {"init_from": "base", "train_on": "pairs/r1", "trainer": "dpo-nll", "warmup_steps": 1, **KEPT},
            "ntp": {"init_from": "base", "train_on": "units", "trainer": "ntp", **KEPT},
            "online": {"init_from": "base", "train_on": "scores/r1", "trainer": "online", **KEPT},
        },
        "guards": {name: GUARD | {"limits": limits} for name, limits in LIMITS.items()}
        | {"paired": GUARD | {"steps_of": "r1", "limits": LIMITS["open"]}},
    }
    edit(root / "params.yaml", json.loads(json.dumps(changes)))  # no value twice: YAML would name it by an anchor
    start_history(root)
    said = run(root, *WARM, "dvc", "repro", *(f"guard@{name}" for name in (*LIMITS, "paired")), "train@ntp")
    (root / "said.txt").write_text(said)
    return root


def guard_of(root: Path, name: str) -> pl.DataFrame:
    return tables.read(tables.GUARD, root / f"artifacts/checkpoints/{name}/guard.parquet")


def kept_by(root: Path, name: str) -> int:
    return guard_of(root, name).filter("kept")["step"].item()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def weights_of(root: Path, folder: str, file: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(root / "artifacts/checkpoints" / folder / file)


def test_a_run_that_collapses_ends_with_its_last_good_step(root):
    found = guard_of(root, "safe")
    proxy, gold = found["judge_score"], found["heldout_judge_score"]
    assert proxy[-1] > proxy[0] + 1.5  # what this judge likes is learnt ...
    assert gold[-1] < gold[0] - 1.5  # ... and no other judge does
    outside = found.filter(pl.col("exceeded").list.len() > 0)["step"].to_list()
    inside = [step for step in (3, 6, 9, 12, 15) if step not in outside]
    assert found["step"].to_list() == [0, 3, 6, 9, 12, 15]
    assert inside + outside == [3, 6, 9, 12, 15]  # where exactly it collapses depends on the processor
    assert inside
    assert outside
    best = found.filter(pl.col("step").is_in(inside)).sort("judge_score")["step"][-1]
    assert found.filter("kept")["step"].to_list() == [best]
    (why,) = found.filter(step=outside[0])["exceeded"]
    names(" ".join(why), "heldout_less_judge", "< 0")
    log = GuardLog.model_validate_json((root / "artifacts/training_logs/safe.json").read_text())
    assert log.kept == best
    names(log.outcome, f"step {best} of 15 of online", f"step {outside[0]}", "heldout_less_judge")


def test_the_checkpoint_is_the_start_with_the_adapter_of_the_kept_step(root):
    start, made = weights_of(root, "base"), weights_of(root, "safe")
    adapter = weights_of(root, f"online/steps/{kept_by(root, 'safe'):06d}", "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    low, high = (adapter[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    expected = start[f"{name}.weight"] + 16 / 8 * high @ low
    assert torch.allclose(made[f"{name}.weight"], expected, atol=1e-6)
    assert not torch.allclose(made[f"{name}.weight"], start[f"{name}.weight"], atol=1e-3)


@pytest.mark.parametrize(("name", "steps"), [("online", (3, 6, 9, 12, 15)), ("r1", (2, 4)), ("ntp", (1, 2, 3, 4))])
def test_every_trainer_keeps_every_saved_step(root, name, steps):
    folder = root / f"artifacts/checkpoints/{name}"
    assert sorted(path.name for path in (folder / "steps").iterdir()) == [f"{step:06d}" for step in steps]
    kept = [files_of(path) for path in sorted((folder / "steps").iterdir())]
    assert all(set(files) == {"adapter_config.json", "adapter_model.safetensors"} for files in kept)
    weights = [files["adapter_model.safetensors"] for files in kept]
    assert len(set(weights)) == len(steps)
    (trained,) = (folder / "adapter").rglob("adapter_model.safetensors")
    assert trained.read_bytes() in (weights if name == "r1" else weights[-1:])  # preference training keeps its best


def test_a_guard_watches_preference_training(root):
    assert guard_of(root, "paired")["step"].to_list() == [0, 2, 4]


def test_without_a_step_inside_the_start_is_kept_and_the_stage_says_so(root):
    assert guard_of(root, "strict").filter("kept")["step"].to_list() == [0]
    start, made = weights_of(root, "base"), weights_of(root, "strict")
    assert start.keys() == made.keys()
    assert all(torch.equal(start[name], made[name]) for name in start)
    said = (root / "said.txt").read_text().partition("guard@strict: ")[2].partition("\n")[0]
    names(said, "online", "base", "step 3", "unit_entropy", "< 100")


def test_it_measures_what_evaluation_would(root):
    """The wide limits keep the highest judge score; kl is none at the start and grows."""
    found = guard_of(root, "open")
    assert found["kl"][0] == 0
    assert found["kl"].is_sorted()
    kept = found.filter("kept")["judge_score"][0]
    assert kept == found.filter(pl.col("step") > 0)["judge_score"].max()
    assert (found["judge_score"] + found["heldout_judge_score"] - 6).abs().max() < 1e-9  # as these judges are made
    assert found["heldout_less_judge"].to_list() == (found["heldout_judge_score"] - found["judge_score"]).to_list()
    assert found["predicted_mos"].is_between(0, 5).all()  # the published polynomial goes below 1 for noise
    assert found["predicted_mos"].n_unique() > 1
    shared = guard_of(root, "safe").drop("kept", "exceeded")
    assert shared.equals(found.drop("kept", "exceeded"))  # limits change what is kept, not what is measured


@pytest.mark.parametrize(
    ("stage", "name", "begun"),
    [("guard", "safe", "measured/part-00002.parquet"), ("train", "online", "steps/000009")],
)
def test_killed_and_continued_it_makes_the_same_bytes(root, stage, name, begun):
    places = [root / f"artifacts/checkpoints/{name}", root / "artifacts/training_logs"]
    before = [files_of(place) for place in places]
    command = [sys.executable, "-m", f"stages.{stage}", name]
    process = subprocess.Popen(command, cwd=root, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not [*root.glob(f".work/{stage}-{name}/*/{begun}")]:
        assert process.poll() is None, process.communicate()[0].decode()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    said = run(root, *command)
    assert "interrupted run" in said
    assert [files_of(place) for place in places] == before


def test_plan_and_stages_tell_of_guards(root):
    assert f"{(3 * 6 + 3) * 10 * 2} by guards" in run(root, "alignslm", "plan", "--offline")
    shown = run(root, "alignslm", "stages")
    names(shown.replace("\N{NO-BREAK SPACE}", " "), "safe (guard)", "guard@strict")


def test_the_report_shows_every_guard(root):
    edit(root / "params.yaml", {"systems": SYSTEMS})
    repro(root, "report")
    page, text = (root / "reports/index.html").read_text(), (root / "reports/report.md").read_text()
    for name in LIMITS:
        outcome = GuardLog.model_validate_json((root / f"artifacts/training_logs/{name}.json").read_text()).outcome
        names(text.replace("\n", " "), f"Guard `{name}`", outcome)
        assert (root / f"reports/plots/guard-{name}.svg").exists()
    assert f"kept: step {kept_by(root, 'safe')}" in page
    assert "> ⚑ Guard `strict`" in text
