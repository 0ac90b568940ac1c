"""In which number format a device trains fastest."""

import torch


def fast_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the processor multiplies it in hardware, float32 elsewhere.

    Emulated bfloat16 is slower than float32 on a CPU. `benchmarks/precision.py` measures both, and
    that the final metric does not suffer.
    """
    if device.type != "cpu":
        return torch.float32
    capabilities = torch.cpu.get_capabilities()
    hardware = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if hardware else torch.float32
