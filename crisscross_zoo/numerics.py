"""The settings of torch that change numbers: stated here, whatever another library has left them at.

What makes tensors in this package says their dtype and device. What remains are settings that torch takes up by
itself: :func:`plain_torch` for modules that are built, :func:`exact_float32` for what is computed, and
:func:`fixed_shapes` for training. All put everything back afterwards.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""torch's names of :data:`crisscross_zoo.settings.PRECISIONS`."""

_Setting = tuple[
    Callable[[], Any], Callable[[Any], None], object
]  # reads it, writes it, and what it is to be


class _Pinned:
    """Settings of the whole process, held by any number of threads: the first in sets them, the last out restores."""

    def __init__(self, settings: Callable[[], list[_Setting]]) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._holders = 0
        self._undo = contextlib.ExitStack()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:
            self._holders += 1
            if self._holders == 1:
                try:
                    for read, write, value in self._settings():
                        self._undo.callback(write, read())
                        write(value)
                except BaseException:
                    self._holders = 0
                    self._undo.close()
                    raise
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if self._holders == 0:
                    self._undo.close()


def _attribute(owner: Any, name: str, value: object) -> _Setting:
    return lambda: getattr(owner, name), lambda new: setattr(owner, name, new), value


def _of_computing() -> list[_Setting]:
    backends: Any = torch.backends
    cudnn, mkldnn, matmul = backends.cudnn, backends.mkldnn, backends.cuda.matmul
    settings = [
        _attribute(cudnn, "enabled", True),
        _attribute(cudnn, "deterministic", True),
        _attribute(cudnn, "benchmark", False),  # it picks what is fastest just then
        _attribute(mkldnn, "enabled", True),
    ]
    if hasattr(cudnn, "conv"):  # torch 2.9
        products = (cudnn.conv, matmul, mkldnn.conv, mkldnn.matmul)
        return settings + [_attribute(product, "fp32_precision", "ieee") for product in products]
    return [
        *settings,
        _attribute(cudnn, "allow_tf32", False),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
    ]


def _of_building() -> list[_Setting]:
    return [(torch.get_default_dtype, torch.set_default_dtype, torch.float32)]


def _of_fixed_shapes() -> list[_Setting]:
    return [_attribute(torch.backends.cudnn, "benchmark", True)]


_computing, _building, _fixed = _Pinned(_of_computing), _Pinned(_of_building), _Pinned(_of_fixed_shapes)


def cpu_has_bfloat16() -> bool | None:
    """Whether this processor has instructions for products in bfloat16; without, they are slower than float32's.

    Returns:
        None where the system does not say (anything but Linux).
    """
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return None
    return not words.isdisjoint(("avx512_bf16", "amx_bf16", "bf16"))


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """Build modules and read weights as a fresh torch does: float32 on the CPU, parameters that can be trained.

    Undone are a default dtype, a default device and inference mode. The default dtype is the whole process's: other
    threads see float32 for as long.
    """
    with _building.held(), torch.device("cpu"), torch.inference_mode(mode=False):
        yield


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Compute in the dtype of the tensors, float32 by the IEEE's rules, and the same numbers each time.

    Undone are TF32 and bfloat16 inside float32 products (``torch.set_float32_matmul_precision`` and the flags of the
    back ends), cuDNN's free choice of algorithms, oneDNN or cuDNN switched off, and autocast. The back ends' flags are
    the whole process's; while they are held, torch 2.9 and newer refuses to read the older names of the same flags,
    such as ``torch.backends.cudnn.allow_tf32``.
    """
    devices = ("cpu", "cuda", "mps") if torch.backends.mps.is_available() else ("cpu", "cuda")
    with _computing.held(), contextlib.ExitStack() as stack:
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread: sums over several have another order, and small products wait longer than they work."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def fixed_shapes() -> AbstractContextManager[None]:
    """Let cuDNN try its algorithms once for each shape and keep the fastest: for training, where shapes stay.

    The flag is the whole process's. Results are those of another algorithm, so they may differ in the last bits.
    """
    return _fixed.held()
