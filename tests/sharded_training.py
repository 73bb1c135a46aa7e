"""What one of several processes does in test_training_sharding.py: adapters trained on models that all share."""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor
from transformers import GPT2Config, GPT2LMHeadModel

from alignslm.lm.checkpoint import RECORD_FILE, UnitLM, load_lm, save_lm
from alignslm.lm.sharding import ShardingError, num_local_parameters
from alignslm.training.adapter import save_adapter_and_merge, unshard_base
from alignslm.training.next_unit import continue_training
from alignslm.training.pair_rows import reference_log_probs
from alignslm.training.preference import train_preferences
from alignslm.training.processes import is_main_process
from tests.test_training import COUNTING, NEXT_UNIT, TRAINER, pairs
from tests.tiny_lm import CONTRACT, VOCABULARY, tiny_model

DTYPE = {"llama": "float32", "opt": "float32", "qwen2": "bfloat16"}  # qwen2: embedding and head are one
CASES = {**{family: family for family in DTYPE}, "sft": "llama"}  # that loss has a pass of its own
STEPS = {"micro_batch_size": 1, "max_steps": 6, "num_evals": 2}
NTP = NEXT_UNIT.model_copy(update={"max_steps": 6, "batch_size": 4, "micro_batch_size": 1, "warmup_steps": 1})


def write_models(root: Path) -> None:
    """Write a checkpoint of every architecture; GPT-2 is one that cannot be shared, as its layers are called `h`."""
    models = {family: tiny_model(family, vocab_size=23) for family in DTYPE}
    models["gpt2"] = GPT2LMHeadModel(GPT2Config(vocab_size=23, n_embd=32, n_layer=2, n_head=2, n_positions=64))
    for family, model in models.items():
        save_lm(model.to(getattr(torch, DTYPE.get(family, "float32"))), VOCABULARY, CONTRACT, root / family)
    (root / "llama" / RECORD_FILE).unlink()  # its identity has to be computed


def train_all(root: Path, *, processes: int, rank: int) -> None:
    """Train every model in both ways, keep what comes out under root/PROCESSES/RANK."""
    place = root / f"{processes}" / f"{rank}"
    place.mkdir(parents=True)
    found = {case: preferences(case, root, place, processes) for case in CASES}
    found["ntp"] = next_units(root, place, processes)
    (place / "found.json").write_text(json.dumps(found | {"gpt2": refused(root, processes)}))


def preferences(case: str, root: Path, place: Path, processes: int) -> dict:
    family, losses = CASES[case], {"sft" if case == "sft" else "sigmoid": 1.0}
    config = TRAINER.model_copy(update={**STEPS, "autocast": DTYPE[family], "loss_weights": losses})
    lm = load_lm(root / family, device="cpu", processes=processes)
    held, total = num_local_parameters(lm.model)
    reference = reference_log_probs(lm, pairs(16), "chosen", batch_size=4)
    work = root / f"{processes}" / f"work-{case}"
    model, run, best = train_preferences(config, lm, pairs(16), warmup_steps=1, seed=3, batch_size=4, work=work)
    dtypes = sorted({str(weight.dtype) for name, weight in model.named_parameters() if "lora_" in name})
    keep(model, root / family, place / case)
    figures = [{name: row.figures.get(f"eval_{name}") for name in ("loss", "rewards/margins")} for row in run.log]
    return {
        "held": held,
        "total": total,
        "model_id": lm.model_id,
        "reference": reference,
        "evaluated": [row for row in figures if row["loss"] is not None],
        "best": best.step,
        "still_shared": all(isinstance(w, DTensor) for n, w in model.named_parameters() if "lora_" not in n),
        "dtypes": dtypes,
    }


def next_units(root: Path, place: Path, processes: int) -> dict:
    lm: UnitLM = load_lm(root / "llama", device="cpu", processes=processes)
    model, run = continue_training(NTP, lm, COUNTING, seed=0, work=root / f"{processes}" / "work-ntp")
    keep(model, root / "llama", place / "ntp")
    return {"loss": [row.figures["loss"] for row in run.log if "loss" in row.figures]}


def keep(model, base: Path, folder: Path) -> None:
    """Write adapter (fp32) and merged model, as a stage's first process does."""
    adapter = {n: w.detach().clone() for n, w in model.state_dict().items() if "lora_" in n}
    folder.mkdir()
    save_file(adapter, folder / "trained.safetensors")
    if is_main_process():
        save_lm(save_adapter_and_merge(unshard_base(model, base), folder / "adapter"), VOCABULARY, CONTRACT, folder)


def refused(root: Path, processes: int) -> str | None:
    try:
        load_lm(root / "gpt2", device="cpu", processes=processes)
    except ShardingError as error:
        return str(error)
    return None


if __name__ == "__main__":
    train_all(Path(sys.argv[1]), processes=2, rank=int(os.environ["RANK"]))
