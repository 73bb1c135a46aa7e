"""Two processes on loopback (gloo) that share the frozen model: everything as where one process has it whole."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from alignslm.config.loading import load_execution
from alignslm.config.problems import ConfigError
from alignslm.lm.checkpoint import RECORD_FILE, load_lm
from alignslm.training.processes import start_processes
from tests.engine_world import edit_yaml
from tests.messages import names
from tests.sample_experiment import write_experiment
from tests.sharded_training import CASES, train_all, write_models

ROOT = Path(__file__).parent.parent
APART = 1e-4  # of an adapter's weight: sums of two halves round otherwise


def test_sharing_among_one_is_an_error_that_says_what_to_set(tmp_path):
    write_experiment(tmp_path)
    edit_yaml(tmp_path / "experiments/execution.yaml", {"fsdp": "full_shard"})
    with pytest.raises(ConfigError) as error:
        load_execution(tmp_path)
    names(error.value, f"{tmp_path}/experiments/execution.yaml:1", "fsdp", "num_processes", "1", "GPUs")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Everything trained in one process, here, and in two that share it."""
    place = tmp_path_factory.mktemp("sharded")
    write_models(place)
    train_all(place, processes=1, rank=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        assert start_processes("tests.sharded_training", [str(place)], processes=2)
    return place


def found(root, processes, rank=0):
    return json.loads((root / f"{processes}" / f"{rank}" / "found.json").read_text())


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_each_process_holds_half_of_a_model_before_and_after_training(root, case):
    shares = [found(root, 2, rank)[case] for rank in (0, 1)]
    assert sum(share["held"] for share in shares) == shares[0]["total"] == found(root, 1)[case]["held"]
    assert all(0.45 < share["held"] / share["total"] < 0.55 for share in shares)
    assert all(share["still_shared"] for share in shares)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_reference_figures_and_identity_are_those_of_a_whole_model(root, case):
    alone = found(root, 1)[case]
    for rank in (0, 1):
        mine = found(root, 2, rank)[case]
        assert mine["model_id"] == alone["model_id"]
        assert mine["reference"] == alone["reference"]
        assert mine["dtypes"] == alone["dtypes"] == ["torch.float32"]


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_evaluations_are_those_of_one_process(root, case):
    alone, mine, other = found(root, 1)[case], found(root, 2)[case], found(root, 2, 1)[case]
    assert mine["evaluated"] == other["evaluated"]
    assert len(mine["evaluated"]) == len(alone["evaluated"]) == 2
    for here, there in zip(mine["evaluated"], alone["evaluated"], strict=True):
        assert here == pytest.approx(there, abs=APART)
    assert mine["best"] == other["best"] == alone["best"]


@pytest.mark.long
@pytest.mark.parametrize("name", [*CASES, "ntp"])
def test_an_adapter_ends_where_one_process_ends_and_alike_in_both(root, name):
    alone, mine, other = (load_file(root / place / name / "trained.safetensors") for place in ("1/0", "2/0", "2/1"))
    assert alone.keys() == mine.keys() == other.keys()
    moved = max(float(alone[weight].abs().max()) for weight in alone if "lora_B" in weight)  # which begins at 0
    apart = max(float((alone[weight] - mine[weight]).abs().max()) for weight in alone)
    assert moved > 100 * APART
    assert apart < APART
    assert all(torch.equal(mine[weight], other[weight]) for weight in mine)


@pytest.mark.long
@pytest.mark.parametrize("name", [*CASES, "ntp"])
def test_what_is_published_is_a_plain_folder_of_equal_form(root, name):
    alone, mine = (root / f"{processes}/0" / name for processes in (1, 2))
    listed = [sorted(str(file.relative_to(place)) for file in place.rglob("*")) for place in (alone, mine)]
    assert listed[0] == listed[1]
    one, two = (load_file(place / "model.safetensors") for place in (alone, mine))
    assert {n: (w.shape, w.dtype) for n, w in one.items()} == {n: (w.shape, w.dtype) for n, w in two.items()}
    settings = [file for file in listed[0] if file.endswith((".json", ".md")) and file != RECORD_FILE]
    assert [(alone / file).read_text() for file in settings] == [(mine / file).read_text() for file in settings]
    assert type(load_lm(mine, device="cpu").model.get_input_embeddings().weight) is torch.nn.Parameter
    assert not (root / "2/1" / name / "config.json").exists()


@pytest.mark.long
def test_an_architecture_whose_layers_cannot_be_shared_is_refused(root):
    assert found(root, 1)["gpt2"] is None
    assert found(root, 2)["gpt2"] == found(root, 2, 1)["gpt2"]
    names(found(root, 2)["gpt2"], f"{root}/gpt2", "fsdp: none", "experiments/execution.yaml")
