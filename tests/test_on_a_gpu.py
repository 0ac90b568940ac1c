"""What a GPU is asked to do, without one: tensors that have a shape and a device and no values.

They refuse what a GPU would (tensors of two devices in one operation), and what would make the
processor wait for it (reading a value).
"""

import traceback

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

import search_spaces.classification
import search_spaces.segmentation
from dl4ia.data.dataset import Dataset
from dl4ia.search_space import SpaceModule, settings_of
from dl4ia.tasks.classification import ClassificationTask
from dl4ia.tasks.segmentation import SegmentationTask
from dl4ia.tasks.task import Task
from dl4ia.training.augmentation import AugmentationSettings, Augmenter
from dl4ia.training.averaging import WeightAverage
from dl4ia.training.fit import TrainingSettings
from dl4ia.training.losses import make_loss
from dl4ia.training.steps import LARGEST_PART_ON_GPU, Steps

GPU = torch.device("cuda", 0)
TASKS: list[tuple[Task, SpaceModule, Dataset]] = [
    (
        SegmentationTask(),
        search_spaces.segmentation,
        Dataset(torch.rand(9, 2, 128, 128), torch.ones(9, 128, 128).long(), tuple("abcdefghi")),
    ),
    (
        ClassificationTask(tuple("0123456789")),
        search_spaces.classification,
        Dataset(torch.rand(9, 1, 28, 28), torch.arange(9), tuple("abcdefghi")),
    ),
]
POINTS = [
    pytest.param(task, data, point, id=f"{task.name} {name}")
    for task, space, data in TASKS
    for name, point in (space.REPORT_MODELS | space.REFERENCE_MODELS).items()
]


def move(model: nn.Module, mode: FakeTensorMode) -> None:
    """As Module.to does, which cannot put such tensors in place of others."""
    for layer in model.modules():
        for name, weight in layer.named_parameters(recurse=False):
            layer._parameters[name] = nn.Parameter(mode.from_tensor(weight.detach()).to(GPU))
        for name, buffer in layer.named_buffers(recurse=False):
            layer._buffers[name] = mode.from_tensor(buffer).to(GPU)


@pytest.mark.parametrize(("task", "data", "point"), POINTS)
def test_an_epoch_neither_mixes_devices_nor_waits(
    task: Task, data: Dataset, point: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(TrainingSettings, point)
    model = task.build(point, data).train()

    def backward(loss: Tensor) -> None:  # the engine itself asks for a driver
        assert loss.device == GPU
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)

    monkeypatch.setattr(Tensor, "backward", backward)
    monkeypatch.setattr(nn.Module, "to", lambda module, *_, **__: module)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        move(model, mode)
        on_gpu = data.to(GPU)
        augmenter = Augmenter(settings_of(AugmentationSettings, point), on_gpu.images, seed=0)
        steps = Steps(
            model,
            torch.optim.SGD(model.parameters(), 0.1, foreach=True),
            make_loss(settings.loss, settings.label_smoothing),
            on_gpu.images,
            on_gpu.labels,
            augmenter,
            [WeightAverage(model, 5)],
            largest_part=LARGEST_PART_ON_GPU,
        )
        totals = steps.take(torch.randperm(9).to(GPU), [0.1, 0.2, 0.1])
        assert totals.device == GPU
        with pytest.raises(DataDependentOutputException) as raised:
            task.evaluate(model, on_gpu, GPU)
    # The first value that is read is of the result: all images have been through the network.
    last = [each for each in traceback.extract_tb(raised.tb) if "dl4ia" in each.filename][-1]
    assert (last.name, ".item()" in str(last.line)) == ("evaluate", True)


def test_reading_a_value_is_refused() -> None:
    """Or the test above would show nothing."""
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        torch.zeros(2, device=GPU).sum().item()


def test_two_devices_are_refused() -> None:
    with FakeTensorMode(), pytest.raises(RuntimeError, match="same device"):
        torch.zeros(2, device=GPU) + torch.zeros(2)
