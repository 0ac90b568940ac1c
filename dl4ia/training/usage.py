"""How busy the machine is while a network trains, and what it gets back afterwards."""

import time
from contextlib import suppress

import psutil
import torch

SELDOM = 1.0  # seconds: asking a GPU's driver may take longer than a short epoch
GPU_LOAD = "gpu_0_utilization_percentage"
MEGABYTE = 1e6  # bytes, as MLflow counts


def give_memory_back() -> None:
    """What the last training had of a GPU and no longer needs: others on the same one may."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


class Usage:
    """Asked after each epoch; in the names to which MLflow's pages give a tab, "System metrics".

    Processor: mean share of all cores' time since it was asked before, whoever used it. Memory: in
    use at that moment, of the whole machine and of this process. Where `device` is a GPU its memory
    and utilisation too (the latter with the package nvidia-ml-py alone).
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = psutil.Process()
        self._asked = -SELDOM
        self._last: dict[str, float] = {}
        psutil.cpu_percent()  # begins to count

    def read(self) -> dict[str, float]:
        """What was found, or, within a second, what was found before."""
        now = time.monotonic()
        if not self._last or now - self._asked >= SELDOM:
            self._asked, self._last = now, self._found()
        return {f"system/{name}": value for name, value in self._last.items()}

    def _found(self) -> dict[str, float]:
        found = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": psutil.virtual_memory().used / MEGABYTE,
            "process_memory_megabytes": self._process.memory_info().rss / MEGABYTE,
        }
        if self._device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self._device)
            found["gpu_0_memory_usage_megabytes"] = (total - free) / MEGABYTE
            # Without the package, from some drivers, or of a part of a GPU it is not to be had, and
            # each of these has an error of its own. What was found once is found in every epoch.
            if GPU_LOAD in self._last:
                found[GPU_LOAD] = self._last[GPU_LOAD]
            with suppress(Exception):
                found[GPU_LOAD] = torch.cuda.utilization(self._device)
        return {name: round(value, 1) for name, value in found.items()}
