"""Imports go one way. A package may import those of the rows above its own, never a sibling or a row below."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "alignslm"
ROWS = [
    {"redaction", "training_log"},
    {
        "__init__",
        "artifacts",
        "extras",
        "machine",
        "lifeline",
        "storage",
        "code_deps",
        "templates",
        "terminal",
        "training_log",
    },
    {"config", "user_errors", "locks", "times", "fast_yaml"},
    {"code", "model_cache"},
    {"progress", "pipeline", "serving", "provenance", "integrity", "threads", "speed", "template"},
    {"tables", "units", "statistics", "metrics", "audio", "convnet", "fetching", "device", "loading", "own_code"},
    {"engine", "buckets"},
    {"shards", "browser_audio", "outside"},
    {"utterances", "listing"},
    {"recordings", "prompts"},
    {"encoder", "lm", "vocoder", "asr", "judge", "mos", "pairs"},
    {"training", "benchmarks", "listening", "preferences"},
    {"online", "storyworld", "corpora", "figures"},
    {"report", "lineage", "guard"},
    {"plan", "publishing", "sweep"},
    {"generation"},
    {"demo", "load"},
    {"api", "ingest"},
    {"cli"},
    {"__main__"},
]
RANK = {name: rank for rank, names in enumerate(ROWS) for name in names}
FILES = sorted(ROOT.rglob("*.py"))


def top(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


FRONT_DOOR = ROOT / "__init__.py"  # names what lies deep for type checkers, and imports it when it is asked for


def imports(file: Path) -> set[str]:
    found = set()
    for node in () if file == FRONT_DOOR else ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"alignslm.{alias.name}" for alias in node.names} if node.module == "alignslm" else set()
            found |= names or {node.module}
    return found


def test_every_module_has_its_place():
    assert {top(file) for file in FILES} == set(RANK)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_upwards(file):
    own = top(file)
    others = {name.split(".")[1] for name in imports(file) if name.startswith("alignslm.")} & set(RANK) - {own}
    assert {name for name in others if RANK[name] >= RANK[own]} == set()


def test_the_library_knows_no_stages_only_sweeps_know_dvc_and_four_modules_know_trl():
    assert not [file for file in FILES if "stages" in {name.split(".")[0] for name in imports(file)}]
    assert {top(file) for file in FILES if "dvc" in {name.split(".")[0] for name in imports(file)}} == {"sweep"}
    users = [file for file in FILES if any(name.split(".")[0] == "trl" for name in imports(file))]
    assert [str(file.relative_to(ROOT)) for file in users] == [
        "online/grpo.py",
        "training/kto.py",
        "training/preference.py",
        "training/reward.py",
    ]


HEAVY = ("torch", "transformers", "datasets", "sklearn", "scipy.signal", "scipy.stats", "scipy.optimize", "matplotlib")
WORK_WITH_THEM_FROM_THE_START = {"base", "best_of", "continuations", "report", "reward", "train"}


def test_a_stage_waits_for_no_library_before_it_knows_that_it_needs_it():
    stages = {file.stem for file in (ROOT.parent / "stages").glob("*.py")} - {"__init__"}
    light = sorted(stages - WORK_WITH_THEM_FROM_THE_START)
    code = f"import json, sys, {', '.join(f'stages.{stage}' for stage in light)}; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stdout)) & set(HEAVY)
