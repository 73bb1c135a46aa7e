"""One round's artifacts, complete enough to be published: real tables, a tiny model with its adapter, a dvc.lock."""

import json
import shutil
from pathlib import Path

import polars as pl
import torch
from peft import get_peft_model
from ruamel.yaml import YAML

from alignslm import tables
from alignslm.config.loading import load_experiment
from alignslm.config.models import Lora
from alignslm.config.presets import apply_preset
from alignslm.lm.checkpoint import save_lm
from alignslm.pairs.streaming import Sources
from alignslm.report.inputs import read_inputs
from alignslm.report.writing import report_of
from alignslm.training.adapter import lora_config, save_adapter_and_merge
from tests import report_world
from tests.micro import edit
from tests.pair_selection import selected
from tests.report_world import RATE_HZ, tone
from tests.tiny_lm import CONTRACT, VOCABULARY, tiny_lm

ROOT = Path(__file__).parent.parent
SPLITS = {"train": 12, "valid": 4, "test": 2}
DRAWS = 3
PUBLISH = {
    "kind": "hub",
    "rounds": "all",
    "private": True,
    "tag": "{round}-{experiment}",
    "language": "en",
    "code_url": None,
    "model": {"repo": "me/talk-{round}", "license": "mit", "adapter": True, "base_model": True, "speech_models": True},
    "dataset": {
        "repo": "me/talk-{round}-pairs",
        "license": "mit",
        "prompt_audio": True,
        "continuations": True,
        "evaluation": True,
    },
}
CHAIN = {  # stage -> what it reads, what it makes
    "units": ([], ["artifacts/units.parquet"]),
    "base": (["artifacts/units.parquet"], ["artifacts/checkpoints/base"]),
    "pairs@r1": (["artifacts/checkpoints/base"], ["artifacts/pairs/r1.parquet"]),
    "train@r1": (["artifacts/pairs/r1.parquet", "artifacts/checkpoints/base"], ["artifacts/checkpoints/r1"]),
    "eval@r1": (["artifacts/checkpoints/r1"], ["artifacts/eval/r1"]),
    "train@r2": (["artifacts/checkpoints/r1"], ["artifacts/checkpoints/r2"]),
}


def build(root: Path) -> Path:
    """Write an experiment whose round r1 can be published, and return its folder."""
    shutil.copytree(ROOT / "experiments", root / "experiments")
    shutil.copy(ROOT / "params.yaml", root / "params.yaml")
    with (root / "experiments/publish/mine.yaml").open("w") as stream:
        YAML().dump(PUBLISH, stream)
    apply_preset("embedded-full", root)  # two rounds, every control
    edit(root / "params.yaml", {"publish": "mine"})
    artifacts = root / "artifacts"
    _write_report(root)
    _write_models(artifacts)
    _write_round(artifacts, root)
    for part in ("encoder", "vocoder", "asr"):
        (artifacts / part).mkdir()
        (artifacts / part / f"{part}.json").write_text("{}\n")
    write_lock(root)
    return root


def write_lock(root: Path, **changed: str) -> None:
    """Write a dvc.lock; `changed` gives stages another hash of their output."""
    systems = ("base", "base-low-temp", "ntp", "sft", "ground-truth")
    chain = CHAIN | {f"eval@{name}": (["artifacts/checkpoints/base"], [f"artifacts/eval/{name}"]) for name in systems}
    stages = {
        name: {
            "cmd": f"make {name}",
            "deps": [{"path": path, "md5": "1" * 32} for path in deps],
            "outs": [{"path": path, "md5": changed.get(name.replace("@", "_"), "0" * 32)} for path in outs],
        }
        for name, (deps, outs) in chain.items()
    }
    with (root / "dvc.lock").open("w") as stream:
        YAML().dump({"schema": "2.0", "stages": stages}, stream)


def _write_report(root: Path) -> None:
    told = report_world.build(root / "told")
    (root / "reports").mkdir()
    report = report_of(read_inputs(told, report_world.EXPERIMENT))
    (root / "reports/metrics.json").write_text(report.to_json())
    for folder in ("eval", "training_logs"):
        shutil.copytree(told / folder, root / "artifacts" / folder)
    shutil.rmtree(told)


def _write_models(artifacts: Path) -> None:
    base = tiny_lm()
    save_lm(base.model, VOCABULARY, CONTRACT, artifacts / "checkpoints/base")
    torch.manual_seed(1)
    adapted = get_peft_model(
        base.model, lora_config(Lora(r=4, alpha=8, target_modules="all-linear"), base.model.config)
    )
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    folder = artifacts / "checkpoints/r1"
    save_lm(save_adapter_and_merge(adapted, folder / "adapter"), VOCABULARY, CONTRACT, folder)


def _write_round(artifacts: Path, root: Path) -> None:
    prompts = _prompts()
    tables.write(prompts, tables.PROMPTS, artifacts / "prompts.parquet")
    tables.write(_frame([], tables.TRANSCRIPTS), tables.TRANSCRIPTS, artifacts / "prompt_transcripts.parquet")
    utterances = [
        (name, split, "s", None, None, None, 0.5, None, RATE_HZ, RATE_HZ, _sound(200 + 10 * place, 1.0))
        for place, (name, split) in enumerate(prompts.select("utterance_id", "split").iter_rows())
    ]
    tables.write_shards([_frame(utterances, tables.UTTERANCES)], tables.UTTERANCES, artifacts / "corpus/utterances")
    trained = prompts.filter(pl.col("split") != "test")["prompt_id"]
    drawn = [(f"{prompt}-{draw}", prompt, draw) for prompt in trained for draw in range(DRAWS)]
    continuations = [
        (name, prompt, draw, "m", draw, [place % 20, (place * 7 + 3) % 20, draw], "eos", -3.0)
        for place, (name, prompt, draw) in enumerate(drawn)
    ]
    scores = [
        (name, prompt, draw, 1.5 + draw * (place // DRAWS % 5 > 0), 9.0, 0.0, 4, "ok")
        for place, (name, prompt, draw) in enumerate(drawn)
    ]
    speech = [(name, _sound(300 + 20 * draw, 0.4), round(0.4 * RATE_HZ), RATE_HZ, "ok") for name, _, draw in drawn]
    speech[1] = (speech[1][0], {"bytes": b"", "path": None}, 0, RATE_HZ, "empty")
    texts = [(name, f"she sings song {draw}", "ok", 0.9, None, None, None) for name, _, draw in drawn]
    tables.write_shards([_frame(speech, tables.SPEECH)], tables.SPEECH, artifacts / "speech/r1")
    tables.write(_frame(texts, tables.TRANSCRIPTS), tables.TRANSCRIPTS, artifacts / "transcripts/r1.parquet")
    tables.write(_frame(scores, tables.SCORES), tables.SCORES, artifacts / "scores/r1.parquet")
    drawn_table = _frame(continuations, tables.CONTINUATIONS)
    tables.write(drawn_table, tables.CONTINUATIONS, artifacts / "continuations/r1.parquet", CONTRACT)
    _write_pairs(artifacts, root)


def _write_pairs(artifacts: Path, root: Path) -> None:
    experiment = load_experiment(root)
    params = experiment.params
    names = ("scores/r1.parquet", "continuations/r1.parquet", "prompts.parquet")
    made = selected(
        Sources(*(artifacts / name for name in names)),
        weights=params.weights,
        selector=experiment.selector,
        rules=params.preferences["r1"],
    )
    tables.write(made.pairs, tables.PAIRS, artifacts / "pairs/r1.parquet", CONTRACT)
    tables.write(made.skipped_prompts, tables.SKIPPED_PROMPTS, artifacts / "skipped_prompts/r1.parquet")
    (artifacts / "pair_counts").mkdir()
    (artifacts / "pair_counts/r1.json").write_text(made.account.model_dump_json())


def _prompts() -> pl.DataFrame:
    rows = [
        (
            f"p-{split}-{number:02d}",
            f"u-{split}-{number:02d}",
            split,
            0.5,
            4,
            [1, 2, 3, number],
            [4, 5],
            "a girl",
            "she",
        )
        for split, count in SPLITS.items()
        for number in range(count)
    ]
    return _frame(rows, tables.PROMPTS).sort("prompt_id")


def _sound(hz: float, seconds: float) -> dict[str, object]:
    return {"bytes": tone(hz, seconds=seconds), "path": None}


def _frame(rows: list, table: tables.Table) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict(table.schema), orient="row")


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())
