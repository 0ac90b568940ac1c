"""Ways to take the steps of several trainings on one GPU: which one trains most in the same time?

    python benchmarks/at_once.py --digits data --glands data/WARWICK
    python benchmarks/at_once.py --device cpu --seconds 1 --at-once 2  # whether it runs

Each way trains the same named networks, without validation, as many at once as `--at-once`
says, and its figure is epochs a second of all of them together:

- steps: as dl4ia does, one training after the other
- graph: the same steps replayed from a CUDA graph, one training after the other
- streams: as many graphs, each on a stream of its own
- fused: as many trainings as one network, whose layers have an axis of trainings (horizontally
  fused training arrays: Wang et al., MLSys 2021), in a CUDA graph
- processes steps, processes graph: as many processes, as `--workers` starts, each its own way;
  under NVIDIA's Multi-Process Service too, where it is installed

Fused trainings share order, augmented batch and learning rate here, so that they do less than the
other ways: their figure is the most that fusing could give, and `--record` leaves it out.
The loss of the first measured epoch stands beside: ways that train alike have similar ones. On a
GPU about a minute for each network and number at once.
"""

import argparse
import json
import os
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flags import add_record, check_folders, parser_of
from materials import open_task
from table import record
from torch import Tensor, nn

from dl4ia.data.dataset import Dataset
from dl4ia.search_space import settings_of
from dl4ia.tasks.task import Task
from dl4ia.training.augmentation import AugmentationSettings, Augmenter
from dl4ia.training.fit import TrainingSettings
from dl4ia.training.losses import make_loss
from dl4ia.training.optimization import make_optimizer
from dl4ia.training.steps import Steps

SHAPES = {  # label -> task, named point
    "fully connected": ("digits", "exercise_1_1"),
    "CNN": ("digits", "exercise_1_4"),
    "modern CNN": ("digits", "modern_cnn"),
    "U-Net": ("glands", "unet"),
    "modern U-Net": ("glands", "modern_unet"),
}
WARM_UP = 3  # steps that are taken as they are, before one is captured
CHUNK = 16  # steps that a graph holds
SERVICE = "nvidia-cuda-mps-control"
Measure = Callable[[], tuple[float, float | None]]
Epoch = Callable[[], Tensor]  # trains an epoch, on its stream; (2,) summed losses and right shares


class GraphSteps(Steps):
    """Steps replayed from CUDA graphs, on the stream that is current.

    What differs from step to step lies on the device, and is counted on there: a replay has no
    arguments. On a CPU, where nothing is captured, it takes the same steps.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        device = self.images.device
        self.on_gpu = device.type == "cuda"
        self.graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
        self.pool = torch.cuda.graph_pool_handle() if self.on_gpu else None
        self.warm: dict[int, int] = {}  # size of a batch -> steps taken as they are
        self.places = torch.arange(len(self.images), device=device)
        self.order = self.places.clone()
        self.rates = torch.zeros(len(self.images), device=device)
        self.rate = torch.zeros((), device=device)
        self.first, self.step = (torch.zeros(1, dtype=torch.long, device=device) for _ in range(2))
        self.totals = torch.zeros(2, device=device)
        drawn = vars(self.augmenter)  # the epoch's random numbers, where graphs look for them
        tables = ("numbers", "stains", "bumps", "_matrices")
        self.tables = {name: drawn[name].clone() for name in tables if name in drawn}
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate if self.on_gpu else 0.0
            if "capturable" in group:
                group["capturable"] = self.on_gpu

    def take(self, order: Tensor, rates: Sequence[float]) -> Tensor:
        """As `Steps.take`."""
        self.order.copy_(order)
        self.rates[: len(rates)].copy_(torch.tensor(rates))
        for start in (self.first, self.step, self.totals):
            start.zero_()
        for name, values in self.tables.items():
            setattr(self.augmenter, name, values.copy_(getattr(self.augmenter, name)))
        larger = len(order) % len(rates)  # as tensor_split: the first ones, by one row
        size = len(order) // len(rates)
        for rows, count in ((size + 1, larger), (size, len(rates) - larger)):
            while count:
                count -= self._some(rows, count)
        return self.totals.clone()

    def _some(self, rows: int, most: int) -> int:
        """Take steps of so many rows each; how many it were."""
        if not self.on_gpu or self.warm.get(rows, 0) < WARM_UP:
            self.warm[rows] = self.warm.get(rows, 0) + 1
            self._next(rows)
            return 1
        count = CHUNK if most >= CHUNK else 1
        if (rows, count) not in self.graphs:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, self.pool, torch.cuda.current_stream()):
                for _ in range(count):
                    self._next(rows)
            self.graphs[rows, count] = graph
        self.graphs[rows, count].replay()
        return count

    def _next(self, rows: int) -> None:
        """The next step, of so many rows; everything it reads and writes is on the device."""
        batch = self.order.index_select(0, self.first + self.places[:rows])
        rate = self.rates.index_select(0, self.step)[0]
        if self.on_gpu:
            self.rate.copy_(rate)
        else:  # where optimizers take a number
            self.optimizer.param_groups[0]["lr"] = rate.item()
        self.totals += self._learn(batch)
        self.first += rows
        self.step += 1


class Fused(nn.Module):
    """Networks of one structure as one.

    images (N, C, H, W) -> logits (trainings, N, classes, …).
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        weights, buffers = torch.func.stack_module_state(list(models))
        self._names = list(weights), list(buffers)
        self.weights = nn.ParameterList(weights.values())
        for number, values in enumerate(buffers.values()):
            self.register_buffer(f"buffer_{number}", values)
        self._one = [models[0]]  # in a list: its weights are not this module's

    def forward(self, images: Tensor) -> Tensor:
        def of_one(weights: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
            found: Tensor = torch.func.functional_call(self._one[0], (weights, buffers), (images,))
            return found

        weights = dict(zip(self._names[0], self.weights, strict=True))
        buffers = dict(zip(self._names[1], self.buffers(), strict=True))
        together = torch.func.vmap(of_one, randomness="different")
        found: Tensor = together(weights, buffers)
        return found


def fused_loss(loss: Callable[[Tensor, Tensor], Tensor], count: int) -> Any:
    """Of all trainings' logits, stacked: the sum of their losses, so that gradients are each's."""
    return lambda logits, labels: sum(loss(logits[number], labels) for number in range(count))


class FusedSteps(GraphSteps):
    """Steps of `Fused` networks."""

    def _learn(self, rows: Tensor) -> Tensor:
        images, labels = self.augmenter(self.images[rows], self.labels[rows], rows)
        self.optimizer.zero_grad()
        logits = self.model(images.contiguous(memory_format=torch.channels_last))
        loss = self.loss(logits, labels)
        loss.backward()
        self.optimizer.step()
        right = (logits.detach().argmax(2) == labels).float().mean() * len(logits)
        return torch.stack([loss.detach(), right]) * len(rows)


class Shape:
    """One of SHAPES on its images."""

    def __init__(self, name: str, folder: Path | None, device: torch.device) -> None:
        self.name = name
        kind, model = SHAPES[name]
        self.task: Task
        self.task, source, searched = open_task(kind, folder)
        self.point: Mapping[str, Any] = (searched.REPORT_MODELS | searched.REFERENCE_MODELS)[model]
        self.images: Dataset = source.train()
        self.on_device, self.device = self.images.to(device), device

    def training(self, way: type[Steps], seed: int, fused: int = 0) -> Epoch:
        """An epoch at a time, at a constant learning rate; fused: so many as one."""
        torch.manual_seed(seed)
        models = [self.task.build(self.point, self.images) for _ in range(fused or 1)]
        model = Fused([each.to(self.device) for each in models]) if fused else models[0]
        model.to(self.device).train()
        if not fused:
            model.to(memory_format=torch.channels_last)
        settings = settings_of(TrainingSettings, self.point)
        loss = make_loss(settings.loss, settings.label_smoothing)
        count = len(self.images)
        batch = count if settings.batch_size == "full" else int(settings.batch_size)
        augmenter = Augmenter(
            settings_of(AugmentationSettings, self.point), self.on_device.images, seed
        )
        steps = way(
            model,
            make_optimizer(
                settings.optimizer,
                model.parameters(),
                settings.learning_rate,
                settings.weight_decay,
            ),
            fused_loss(loss, fused) if fused else loss,
            self.on_device.images,
            self.on_device.labels,
            augmenter,
        )
        rates = [settings.learning_rate] * -(-count // batch)
        shuffler = torch.Generator().manual_seed(seed)

        def epoch() -> Tensor:
            augmenter.draw()
            return steps.take(torch.randperm(count, generator=shuffler).to(self.device), rates)

        return epoch


def train_for(seconds: float, epochs: Sequence[Epoch]) -> tuple[float, float]:
    """Epochs a second of trainings side by side, and the mean of what they sum up first."""
    wait()  # until the networks are there
    streams = [torch.cuda.Stream() for _ in epochs] if torch.cuda.is_available() else []

    def run() -> list[Tensor]:
        if not streams:
            return [epoch() for epoch in epochs]
        found = []
        for epoch, stream in zip(epochs, streams, strict=True):
            with torch.cuda.stream(stream):
                found.append(epoch())
        return found

    for _ in range(WARM_UP + 1 if streams else 1):  # an epoch may be a single step
        run()
    wait()
    sums: list[float] = []
    start = time.perf_counter()
    while not sums or time.perf_counter() - start < seconds:
        found = run()  # all are under way before one is waited for
        wait()
        sums.append(statistics.mean(totals[0].item() for totals in found))
    return len(epochs) * len(sums) / (time.perf_counter() - start), sums[0]


def wait() -> None:
    """For what is under way on the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_processes(name: str, way: str, count: int) -> float:
    """Epochs a second of so many processes together, while all of them train."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # of this process, which keeps what it trained with before
    command = [sys.executable, *sys.argv, "--one", name, way]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(count)]
    try:
        for _ in ("they are ready", "they have trained for long enough"):
            for process in processes:
                assert process.stdout is not None
                process.stdout.readline()
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
        said = [process.communicate()[0] for process in processes]
    finally:  # of those that wait while another has failed: they hold the GPU's memory
        for process in processes:
            process.kill()
            process.wait()
    if not all(said):
        raise RuntimeError("a process failed, and said why above")
    return common_speed([json.loads(times) for times in said])


def train_among_others(seconds: float, epoch: Epoch) -> None:
    """In one of several processes: trains from one line of standard input to the next.

    After so many seconds it says so, and trains on until all others have said so too. Prints when
    the first epoch began, and when each ended, as seconds of a clock that all processes share.
    """
    train_for(0, [epoch])
    print("ready", flush=True)
    sys.stdin.readline()
    times, said = [time.monotonic()], False
    while not (said and select.select([sys.stdin], [], [], 0)[0]):
        epoch()
        wait()
        times.append(time.monotonic())
        if not said and times[-1] - times[0] >= seconds:
            print("long enough", flush=True)
            said = True
    print(json.dumps(times))


def common_speed(times: Sequence[Sequence[float]]) -> float:
    """Epochs a second of all, while all train; of each when it began, and its epochs' ends.

    Of an epoch that begins before, or ends after, the part that lies within counts.
    """
    first, last = max(each[0] for each in times), min(each[-1] for each in times)
    done = sum(float(np.diff(np.interp([first, last], e, range(len(e))))[0]) for e in times)
    return done / (last - first)


@contextmanager
def multi_process_service() -> Iterator[None]:
    """NVIDIA's, for the processes that are started inside: their kernels run side by side."""
    with tempfile.TemporaryDirectory() as folder:
        names = ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")
        os.environ.update(dict.fromkeys(names, folder))
        try:
            subprocess.run([SERVICE, "-d"], check=True)
            yield
        finally:
            subprocess.run([SERVICE], input="quit\n", text=True, check=False)
            for name in names:
                del os.environ[name]


def ways(shape: Shape, seconds: float, counts: Sequence[int]) -> Iterator[tuple[str, Measure]]:
    """The name of each way, and what gives its epochs a second and, where known, its loss."""
    images = len(shape.images)

    def together(way: type[Steps], count: int) -> tuple[float, float | None]:
        speed, total = train_for(seconds, [shape.training(way, seed) for seed in range(count)])
        return speed, total / images

    def fused(count: int) -> tuple[float, float | None]:
        speed, total = train_for(seconds, [shape.training(FusedSteps, 0, count)])
        return count * speed, total / images / count

    def processes(way: str, count: int) -> tuple[float, float | None]:
        return in_processes(shape.name, way, count), None

    def served(way: str, count: int) -> tuple[float, float | None]:
        with multi_process_service():
            return processes(way, count)

    yield "steps", partial(together, Steps, 1)
    yield "graph", partial(together, GraphSteps, 1)
    for count in counts:
        yield f"streams, {count}", partial(together, GraphSteps, count)
        yield f"fused, {count}", partial(fused, count)
        for way in ("steps", "graph"):
            yield f"processes {way}, {count}", partial(processes, way, count)
            if shape.device.type == "cuda" and shutil.which(SERVICE):
                yield f"processes {way}, {count}, service", partial(served, way, count)


def measure(shape: Shape, seconds: float, counts: Sequence[int]) -> dict[str, float]:
    """Epochs a second of each way, a line for each; one that fails leaves the others theirs."""
    speeds: dict[str, float] = {}
    for way, run in ways(shape, seconds, counts):
        line = f"{shape.name:<16} {way:<28}"
        try:
            speeds[way], loss = run()
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            print(f"{line} failed: {str(error).splitlines()[0]}", flush=True)
            continue
        line += f" {speeds[way]:9.3f} epochs/s"
        for known in ("steps", "graph"):
            if known in speeds:
                line += f" {speeds[way] / speeds[known]:6.2f} times {known}"
        print(line + (f"  loss {loss:.4f}" if loss is not None else ""), flush=True)
    return speeds


def keep(name: str, speeds: Mapping[str, float]) -> None:
    """The best of the ways that train several at once, against a graph after the other.

    Without the fused one, which does less.
    """
    one = ("steps", "graph")
    several = {way: speed for way, speed in speeds.items() if way not in one and "fused" not in way}
    if several and "graph" in speeds:
        best = max(several, key=lambda way: several[way])
        record(
            f"{name}: epochs a second, several at once, against one in a CUDA graph",
            f"{several[best]:.2f} ({best})",
            f"{speeds['graph']:.2f}",
            f"{several[best] / speeds['graph']:.1f}",
            "3 times",
            of_training=True,
        )


def main() -> None:
    """Measure each network."""
    parser = parser_of(__doc__)
    parser.add_argument("--digits", type=Path, help="MNIST's folder (default: small digits)")
    parser.add_argument("--glands", type=Path, help="of image pairs (default: drawn glands)")
    parser.add_argument("--shapes", nargs="+", choices=tuple(SHAPES), default=list(SHAPES))
    parser.add_argument("--at-once", nargs="+", type=int, default=[8], metavar="N")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each way (default: 4)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    add_record(parser)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # a shape, and its way
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU here; expected one, or --device cpu")
    if arguments.device == "cpu" and arguments.record:
        parser.error("--record: the figures are of a GPU, where alone a way differs from another")
    check_folders(parser, arguments.record, arguments.digits, arguments.glands)

    def open_shape(name: str) -> Shape:
        return Shape(name, getattr(arguments, SHAPES[name][0]), torch.device(arguments.device))

    if arguments.one:
        name, way = arguments.one
        way_of = {"steps": Steps, "graph": GraphSteps}[way]
        train_among_others(arguments.seconds, open_shape(name).training(way_of, os.getpid()))
        return
    for name in arguments.shapes:
        speeds = measure(open_shape(name), arguments.seconds, arguments.at_once)
        if arguments.record:
            keep(name, speeds)


if __name__ == "__main__":
    main()
