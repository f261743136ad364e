"""Set the global torch settings that change results, whatever another library has left them at.

Code of this package that makes tensors states their dtype and device. What remains are torch's global settings:
:func:`plain_torch` sets them while modules are built, :func:`exact_float32` while results are computed, and
:func:`fixed_shapes` for training. All of them restore the previous settings afterwards.
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

_Setting = tuple[Callable[[], Any], Callable[[Any], None], object]  # getter, setter and wanted value


class _Pinned:
    """Process-wide settings, held by any number of threads: the first one sets them, the last one restores them."""

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
        _attribute(cudnn, "benchmark", False),  # it picks the algorithm that happens to be fastest
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
    """Return whether this processor has bfloat16 instructions; without them bfloat16 is slower than float32.

    Returns:
        None if unknown: on any system but Linux.
    """
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return None
    return not words.isdisjoint(("avx512_bf16", "amx_bf16", "bf16"))


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """Build modules and read weights as a fresh torch does: float32 on the CPU, parameters that can be trained.

    A default dtype, a default device and inference mode are suspended. The default dtype belongs to the whole
    process: other threads see float32 in the meantime.
    """
    with _building.held(), torch.device("cpu"), torch.inference_mode(mode=False):
        yield


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Compute deterministically in the dtype of the tensors, with IEEE float32.

    TF32 and bfloat16 inside float32 products (``torch.set_float32_matmul_precision`` and the flags of the back ends),
    cuDNN's free choice of algorithms, and autocast are switched off; oneDNN and cuDNN are switched on. The flags of the
    back ends belong to the whole process. While they are held, torch 2.9 and newer refuses to read the older names of
    the same flags, such as ``torch.backends.cudnn.allow_tf32``.
    """
    devices = ("cpu", "cuda", "mps") if torch.backends.mps.is_available() else ("cpu", "cuda")
    with _computing.held(), contextlib.ExitStack() as stack:
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread: several would change the order of sums, and slow small products down."""
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
    """Let cuDNN try its algorithms once for each shape and keep the fastest: for training, where shapes do not change.

    The flag belongs to the whole process. Another algorithm may give results that differ in the last bits.
    """
    return _fixed.held()
