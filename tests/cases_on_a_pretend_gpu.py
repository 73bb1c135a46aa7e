"""What runs on GPUs, on a pretended one; tests/test_pretend_gpu.py runs this file in a process of its own."""

import polars as pl
import pytest
import torch
from accelerate.state import AcceleratorState

from alignslm import buckets
from alignslm.lm import sampling
from alignslm.training import pass_memory
from tests import online_world
from tests.bench.stages import STAGES
from tests.pretend_gpu import NAME, DeviceError, captured, pretended
from tests.test_passes import trained


@pytest.fixture(autouse=True, scope="module")
def gpu():
    with pytest.MonkeyPatch.context() as patch, pretended():
        patch.setattr(sampling, "capture_of", lambda _: captured)
        patch.setattr(buckets, "free_gpu_bytes", lambda _: 10**9)
        patch.setattr(pass_memory, "free_gpu_bytes", lambda: 10**9)
        yield


def test_it_refuses_what_a_gpu_refuses():
    there, here = torch.ones(3, device=NAME), torch.ones(3)
    assert (there + there * torch.tensor(2.0)).cpu().tolist() == [3, 3, 3]
    assert there[torch.tensor([0, 2])].tolist() == [1, 1]
    for wrong in (lambda: there + here, lambda: there.index_select(0, torch.tensor([1])), there.numpy):
        with pytest.raises(DeviceError):
            wrong()
    step = captured(lambda: there.add_(1))
    step()
    assert there.sum().item() == 6
    for wrong in (lambda: there.sum().item(), there.cpu, lambda: there.copy_(here), lambda: here.to(NAME)):
        with pytest.raises(DeviceError):
            captured(wrong)()


@pytest.mark.parametrize("stage", sorted(STAGES.keys() - {"preference"}))  # a trainer chooses its own device
def test_a_benchmark_computes_there_what_the_plain_way_does(stage):
    case = STAGES[stage]("tiny", scale=1, device=NAME)
    assert {part.device.type for part in case.model.parameters()} == {NAME}
    ours = case.paths["ours"]()
    for name, path in case.paths.items():
        case.require_equal(name, ours, path())


def trained_online(work, device):
    """Return the weights of an adapter and the units that it was trained on."""
    model, _, store = online_world.train(work, device=device)
    weights = {name: weight.clone() for name, weight in model.state_dict().items() if "lora" in name}
    return weights, pl.concat(store.finished())["units"].to_list()


def move_accelerator(monkeypatch):
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", NAME)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_online_training_there_is_online_training_here(tmp_path, monkeypatch):
    here, said = trained_online(tmp_path / "here", "cpu")
    move_accelerator(monkeypatch)
    there, repeated = trained_online(tmp_path / "there", NAME)
    assert repeated == said
    assert {weight.device.type for weight in there.values()} == {NAME}
    for key, weight in here.items():
        torch.testing.assert_close(there[key].cpu(), weight, atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", ["pairs", "packed", "kto", "reward", "units"])
def test_training_there_is_training_here(tmp_path, monkeypatch, name):
    here = trained(name, tmp_path / "here")
    move_accelerator(monkeypatch)
    there = trained(name, tmp_path / "there", NAME)
    assert {weight.device.type for weight in there.values()} == {NAME}
    for key, weight in here.items():
        torch.testing.assert_close(there[key].cpu(), weight, atol=2e-4, rtol=0)
