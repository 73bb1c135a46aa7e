"""The true pipeline at micro size: the repository's own files in a fresh git repository, with small numbers."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

from alignslm import code, outside
from alignslm.config.loading import load_experiment

ROOT = Path(__file__).parent.parent
CODE = (
    "alignslm",
    "stages",
    "experiments",
    "code",
    "dvc.yaml",
    "params.yaml",
    ".dvcignore",
    ".gitignore",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvc/plots",
)
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "PYTHONPATH": "",
    "DVC_NO_ANALYTICS": "true",
    "TOKENIZERS_PARALLELISM": "false",
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@example.org",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@example.org",
}
CHOICES = {
    "execution": {"num_workers": 1},  # a spawned worker takes longer to start than all of the speech to be made
    "corpus/storyworld": {
        "stories": {"train": 30, "valid": 12, "dev": 1, "test": 12},
        "num_texts": 500,
        "mismatched_fraction": 0.0,
    },
    "encoder/mfcc-kmeans": {"num_units": 50, "fit_utterances": 20},
    "lm/llama-tiny": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_steps": 40,
        "batch_size": 8,
        "warmup_steps": 10,
    },
    "vocoder/conv-griffinlim": {"fit_utterances": 24, "channels": 64, "layers": 3, "steps": 40, "batch_size": 8},
    "asr/char-ctc": {"fit_utterances": 24, "channels": 64, "layers": 4, "steps": 100, "batch_size": 4},
    "mos/dnsmos-quick": {"max_clips": 1},
    "trainer/dpo-nll": {"max_steps": 4, "batch_size": 4, "min_pairs": 2, "num_evals": 2},
    "trainer/sft": {"max_steps": 4, "batch_size": 4, "min_pairs": 2, "num_evals": 2},
    "trainer/ntp": {"max_steps": 4, "batch_size": 4, "warmup_steps": 1},
    "benchmark/toy-storycloze": {"stories": 4, "num_hard_stories": 2},
}
PARAMS = {
    "judge": "ngram",
    "heldout_judge": "trigram",
    "selector": "best-worst",
    "benchmarks": {"storycloze": "toy-storycloze"},
    "prompts": {
        "train": 24,
        "valid": 10,
        "dev": 1,
        "test": 8,
        "cut_at": "sentence",
        "max_duration_s": 4.0,
        "min_units": 10,
    },
    "sampling": {"num_continuations": 3, "temperature": 0.8, "top_p": 0.95, "max_new_units": 90},
    "preferences": {
        "r1": {
            "sampled_from": "base",
            "min_chosen_score": 3.2,
            "max_rejected_score": 2.2,
            "min_margin": 0.0,
            "max_auto_bleu": 1.0,
        }
    },
    "checkpoints": {
        "r1": {"init_from": "base", "train_on": "pairs/r1", "trainer": "dpo-nll", "warmup_steps": 1},
        "sft": {"init_from": "base", "train_on": "pairs/r1", "trainer": "sft", "warmup_steps": 1},
        "ntp": {"init_from": "base", "train_on": "units", "trainer": "ntp"},
    },
    "systems": {
        "base": {"source": "checkpoints/base"},
        "r1": {"source": "checkpoints/r1"},
        "ground-truth": {"source": "corpus/utterances"},
    },
}
WARM = (sys.executable, "-m", "alignslm.speed")
SECOND_ROUND = (
    *(
        "-S",
        (
            "+preferences.r2={sampled_from: r1, min_chosen_score: 3.4, max_rejected_score: 2.4,"
            " min_margin: 0.0, max_auto_bleu: 1.0}"
        ),
    ),
    *("-S", "+checkpoints.r2={init_from: r1, train_on: pairs/r2, trainer: dpo-nll, warmup_steps: 0}"),
    *("-S", "+systems.r2={source: checkpoints/r2}"),
)


def edit(path: Path, changes: dict) -> None:
    yaml = YAML()
    content = yaml.load(path.read_text())
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) and key == "stories" else value
    with path.open("w") as stream:
        yaml.dump(content, stream)


def run(
    root: Path, *command: str, check: bool = True, fails: bool = False, variables: Mapping[str, str] | None = None
) -> str:
    """Return what a command said that has to succeed, or to fail; without `check` it may do either."""
    environment = {**ENVIRONMENT, **(variables or {})}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    expected = not check or (done.returncode != 0) == fails
    assert expected, f"{command}: status {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr


def copy_project(root: Path) -> None:
    """Copy what an experiment is made of into `root`."""
    root.mkdir(exist_ok=True)
    for name in CODE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name)
        else:
            (root / name).parent.mkdir(exist_ok=True)
            shutil.copy(source, root / name)
    code.write(root, code.current(root))


def start_history(root: Path) -> None:
    """Make `root`, a copy of the project with its settings of DVC, a git repository."""
    run(root, "git", "init", "-q")
    run(root, "git", "add", "-A")
    run(root, "git", "commit", "-q", "-m", "start")


def make_repository(root: Path) -> None:
    """Copy the project into `root`, shrink its numbers, and make it a git and DVC repository."""
    copy_project(root)
    for choice, changes in CHOICES.items():
        edit(root / "experiments" / f"{choice}.yaml", changes)
    shutil.copy(root / "experiments/judge/ngram.yaml", root / "experiments/judge/trigram.yaml")
    edit(root / "experiments/judge/trigram.yaml", {"order": 3})
    shutil.copy(root / "experiments/benchmark/toy-storycloze.yaml", root / "experiments/benchmark/other-stories.yaml")
    edit(root / "experiments/benchmark/other-stories.yaml", {"seed": 8})
    edit(root / "params.yaml", PARAMS)
    start_history(root)


def loopback_only(record: Path) -> dict[str, str]:
    """Return variables under which no process connects to another machine, and each try is a line of `record`."""
    switches = ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK")
    place = {"PYTHONPATH": str(ROOT / "tests/loopback"), "ALIGNSLM_CONNECTIONS": str(record)}
    return {**place, **dict.fromkeys(switches, "")}


def stages_of(said: str) -> list[str]:
    """Return the names of the stages that DVC says it ran, in order; without `check`, which it runs every time."""
    return [name for name in re.findall(r"Running stage '([^']+)'", said) if name != "check"]


def list_outside(root: Path) -> None:
    """Write the listings that stages which are run by hand read, as the stage `check` does."""
    folder = root / "artifacts/outside"
    outside.write(outside.compare(load_experiment(root), root), folder)


def changed(root: Path) -> dict[str, list]:
    """Return what `dvc status` says has changed, without `check`, which it takes for changed always."""
    said = json.loads(run(root, "dvc", "status", "--json"))
    return {name: how for name, how in said.items() if (name, how) != ("check", ["always changed"])}


def repro(root: Path, *arguments: str, command: tuple[str, ...] = ("dvc", "repro"), warm: bool = True) -> list[str]:
    """Run DVC as `make repro` does, or with every stage on its own; return the stages that ran, in order."""
    return stages_of(run(root, *(WARM if warm else ()), *command, *arguments))
