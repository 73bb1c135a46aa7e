"""A GPU that is pretended, for code that has to run on one, where there is none.

Its tensors are those of this machine's memory in a wrapping that says `pretend:0`. They compute with each other, and
meet the host's only where a GPU's do: in copies, as indices, and where the host's is a single number. Nothing that a
CPU forgives is forgiven. While a step is captured, nothing may be copied to or from the host or be waited for.

Setting it up changes torch for the whole process, so it is done in one of its own (tests/test_pretend_gpu.py).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretend"
CPU = torch.device("cpu")
aten = torch.ops.aten
READS_HOST = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default)
COPIES = (aten.copy_.default, aten._to_copy.default)
SAVES = (torch.Tensor.storage, torch.Tensor.untyped_storage, torch.Tensor.__reduce_ex__)
WAITS = (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default)


class DeviceError(RuntimeError):
    """What a GPU would refuse."""


class GpuTensor(torch.Tensor):
    """A tensor of the pretended GPU; `content` is a CPU's."""

    content: torch.Tensor

    @staticmethod
    def __new__(cls, content):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            content.size(),
            strides=content.stride(),
            storage_offset=content.storage_offset(),
            dtype=content.dtype,
            device=f"{NAME}:0",
        )
        made.content = content
        return made

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.tolist:
            return args[0].cpu().tolist()
        if func in SAVES:  # for files: the memory that it is in
            return func(args[0].detach().content, *args[1:], **(kwargs or {}))
        if func in (torch.Tensor.numpy, torch.Tensor.__array__):
            raise DeviceError("a tensor of a GPU has no numpy array: copy it to the host first")
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


def _inside(value):
    return value.content if isinstance(value, GpuTensor) else value


def compute(func, args, kwargs):
    """Run an operation where its tensors are, or where it is told to. Raises DeviceError where a GPU would refuse."""
    given = tree_leaves((args, kwargs))
    tensors = [value for value in given if isinstance(value, torch.Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, GpuTensor)]
    host = [tensor for tensor in tensors if not isinstance(tensor, GpuTensor)]
    named = [value for value in given if isinstance(value, torch.device)]
    to_gpu = named[0].type == NAME if named else bool(ours)
    if ours and func not in (*READS_HOST, *COPIES) and any(tensor.dim() for tensor in host):
        raise DeviceError(f"{func}: tensors of GPU and host: {[(type(t).__name__, *t.shape) for t in tensors]}")
    crossing = any(isinstance(tensor, GpuTensor) != to_gpu for tensor in tensors)
    if PretendGpu.capturing and (func in WAITS or (ours and host) or crossing):
        raise DeviceError(f"{func} copies from or to the host, or waits, while a step is captured")
    if named:
        args, kwargs = tree_map(lambda value: CPU if isinstance(value, torch.device) else value, (args, kwargs))
    found = func(*tree_map(_inside, args), **tree_map(_inside, kwargs))
    writes = [one.alias_info is not None and one.alias_info.is_write for one in func._schema.returns]
    if writes == [True] and isinstance(args[0], GpuTensor):
        return args[0]
    if not to_gpu:
        return found
    return tree_map(lambda value: GpuTensor(value) if isinstance(value, torch.Tensor) else value, found)


class _Module(_DummyBackendModule):
    """What torch asks a kind of device for; random numbers are the host's."""

    def get_rng_state(self, device: object) -> torch.Tensor:
        return torch.empty(0)

    def set_rng_state(self, state: torch.Tensor, device: object) -> None:
        pass


class PretendGpu(TorchDispatchMode):
    """Inside, torch has a device `pretend`."""

    capturing = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """Return what replays a step, under the conditions of a capture each time."""

    def replay():
        PretendGpu.capturing = True
        try:
            step()
        finally:
            PretendGpu.capturing = False

    return replay


@contextmanager
def pretended() -> Iterator[None]:
    """Set the device up, once in a process, and let torch use it inside."""
    _setup_privateuseone_for_python_backend(NAME, _Module())
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes its tensor on the host, and then copies it
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with PretendGpu():
        yield
