"""In which number format a device trains fastest."""

import torch


def training_precision(device: torch.device, may_be_low: bool) -> torch.dtype:
    """bfloat16 where the processor multiplies it in hardware and the task may, else float32.

    Emulated bfloat16 is slower than float32 on a CPU. `benchmarks/precision.py` measures both, and
    what becomes of the score: on an AMD EPYC (Zen 5, AVX-512 BF16) glands train 1.2 to 1.8 times as
    fast but for the smallest network, digits 0.6 to 1.1 times.
    """
    if device.type != "cpu" or not may_be_low:
        return torch.float32
    capabilities = torch.cpu.get_capabilities()
    hardware = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if hardware else torch.float32
