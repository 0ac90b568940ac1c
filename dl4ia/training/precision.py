"""In which number format a device trains fastest, and how to compute in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def training_precision(device: torch.device, may_be_low: bool) -> torch.dtype:
    """bfloat16 where the processor multiplies it in hardware and the task may, else float32.

    Emulated bfloat16 is slower than float32 on a CPU. `benchmarks/precision.py` measures both, and
    what becomes of the score: on an AMD EPYC (Zen 5, AVX-512 BF16) glands train 1.2 to 1.8 times as
    fast but for the smallest network, digits 0.6 to 1.1 times.
    """
    if device.type != "cpu" or not may_be_low:
        return torch.float32
    if not hasattr(torch.cpu, "get_capabilities"):  # torch 2.10 cannot tell
        return torch.float32
    capabilities = torch.cpu.get_capabilities()
    hardware = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if hardware else torch.float32


def describe_precision(precision: torch.dtype, device: torch.device) -> str:
    """In words. A GPU's convolutions of float32 are in TF32, where it has that."""
    name = str(precision).removeprefix("torch.")
    tf32 = device.type == "cuda" and torch.backends.cudnn.allow_tf32
    if precision == torch.float32 and tf32 and torch.cuda.is_tf32_supported():
        return f"{name} with TF32"
    return name


def computing_in(precision: torch.dtype, device: torch.device) -> torch.autocast:
    """What convolutions and matrix products compute in."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)


@contextmanager
def exactly() -> Iterator[None]:
    """Float32 as such, as the exported model has it: without TF32, which keeps 11 bits of 24."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
