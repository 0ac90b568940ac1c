"""What the machine is doing, under MLflow's names."""

import time
from types import SimpleNamespace

import psutil
import pynvml
import pytest
import torch

from dl4ia.training.usage import Usage

CPU = torch.device("cpu")


def test_what_is_found() -> None:
    usage = Usage(CPU)
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass  # one core busy
    found = usage.read()
    assert set(found) == {
        "system/cpu_utilization_percentage",
        "system/system_memory_usage_megabytes",
        "system/process_memory_megabytes",
    }
    assert 50 / psutil.cpu_count() < found["system/cpu_utilization_percentage"] <= 100
    process = psutil.Process().memory_info().rss / 1e6
    assert found["system/process_memory_megabytes"] == pytest.approx(process, rel=0.05)
    whole = psutil.virtual_memory().total / 1e6
    assert process < found["system/system_memory_usage_megabytes"] < whole


def test_it_is_found_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    usage, now = Usage(CPU), time.monotonic()
    first = usage.read()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(used=5e6))
    assert usage.read() == first
    monkeypatch.setattr(time, "monotonic", lambda: now + 1.5)
    assert usage.read()["system/system_memory_usage_megabytes"] == 5.0


def test_a_driver_that_does_not_tell_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a part of a GPU, or without its library, NVML raises errors that are its own."""

    def refuse(device: torch.device) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1e9, 3e9))
    monkeypatch.setattr(torch.cuda, "utilization", refuse)
    found = Usage(torch.device("cuda")).read()
    assert found["system/gpu_0_memory_usage_megabytes"] == 2000
    assert "system/gpu_0_utilization_percentage" not in found


def test_a_driver_that_stops_telling_leaves_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A history has a column for each name of its first epoch."""
    load = iter([40])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1e9, 3e9))
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: next(load))
    usage = Usage(torch.device("cuda"))
    first = usage.read()
    monkeypatch.setattr("dl4ia.training.usage.SELDOM", 0)
    assert usage.read().keys() == first.keys()
    assert usage.read()["system/gpu_0_utilization_percentage"] == 40


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_is_asked_too() -> None:
    found = Usage(torch.device("cuda")).read()
    assert found["system/gpu_0_memory_usage_megabytes"] > 0
