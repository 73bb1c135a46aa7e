"""Guards on a run that collapses, because its judge likes repetition, in the true pipeline at micro size."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from alignslm import tables
from tests.micro import edit, make_repository, repro, start_history

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
    "repeated_text_penalty": 0.0,
    "beta": 0.0,
    "learning_rate": 0.02,
    "lr_scheduler_type": "constant",
    "micro_batch_size": 18,
    "lora": {"r": 8, "alpha": 16, "target_modules": "all-linear"},
}
GUARD = {"init_from": "base", "steps_of": "online", "best": "judge_score", "num_continuations": 2}
LIMITS = {
    "safe": {"heldout_less_judge": {"at_least": -1.0}, "unit_repetition": {"at_most": 0.6}},
    "open": {"kl": {"at_most": 1e6}},
    "strict": {"unit_entropy": {"at_least": 100.0}},
}


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
            "r1": {"init_from": "base", "train_on": "pairs/r1", "trainer": "dpo-nll", "warmup_steps": 1},
            "online": {"init_from": "base", "train_on": "scores/r1", "trainer": "online", "keep_steps": True},
        },
        "guards": {name: GUARD | {"limits": limits} for name, limits in LIMITS.items()},
    }
    edit(root / "params.yaml", changes)
    start_history(root)
    repro(root, *(f"guard@{name}" for name in LIMITS))
    return root


def guard_of(root: Path, name: str) -> pl.DataFrame:
    return tables.read(tables.GUARD, root / f"artifacts/checkpoints/{name}/guard.parquet")


def model_of(root: Path, name: str) -> bytes:
    return (root / f"artifacts/checkpoints/{name}/model.safetensors").read_bytes()


def test_a_run_that_collapses_ends_with_its_last_good_step(root):
    found = guard_of(root, "safe")
    print(found.select("step", "judge_score", "heldout_judge_score", "unit_repetition", "kl", "kept", "exceeded"))
    raise AssertionError
