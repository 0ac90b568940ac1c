"""Training on eight small images: what it yields, repeats, and refuses."""

import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dl4ia.data.dataset import Dataset
from dl4ia.errors import OutOfMemory, TrialFailure
from dl4ia.models.segmentation import ModelSettings, SegmentationModel
from dl4ia.tasks.segmentation import SegmentationTask
from dl4ia.training.augmentation import AugmentationSettings
from dl4ia.training.checkpoint import Checkpoint
from dl4ia.training.fit import Result, TrainingSettings, fit
from dl4ia.training.precision import describe_precision, training_precision

CPU = torch.device("cpu")
MODEL = ModelSettings("fcn", 8, 2, "none", 0.0, "he")
TRAINING = TrainingSettings("adam", 0.01, "constant", 4)
FULL_BATCH = replace(TRAINING, optimizer="momentum", batch_size="full")
AUGMENTED = AugmentationSettings(augmentation="flips_and_quarter_turns", affine=0.5, elastic=0.5)


def draw(count: int, seed: int) -> Dataset:
    """`count` images of 32x32: a bright disc on darker noise."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.arange(32)
    centres = 8 + 16 * torch.rand(count, 2, 1, 1, generator=generator)
    distances = (steps[:, None] - centres[:, 0]) ** 2 + (steps - centres[:, 1]) ** 2
    labels = (distances < 64).long()
    noise = torch.rand(count, 2, 32, 32, generator=generator)
    return Dataset(0.4 * labels[:, None] + 0.6 * noise, labels, tuple(map(str, range(count))))


TRAIN, VALIDATION = draw(8, seed=0), draw(4, seed=1)


def make_model(settings: ModelSettings = MODEL) -> SegmentationModel:
    torch.manual_seed(0)
    return SegmentationModel(settings, [0.4, 0.4], [0.2, 0.2])


def train(model: nn.Module, **changes: Any) -> list[Result]:
    """The results of three epochs, unless `changes` says otherwise."""
    arguments: dict[str, Any] = {
        "train": TRAIN,
        "validation": VALIDATION,
        "settings": TRAINING,
        "augmentation": AugmentationSettings(),
        "evaluate": SegmentationTask().evaluate,
        "epochs": 3,
        "seed": 0,
        "device": CPU,
    }
    return list(fit(model, **arguments | changes))


def without_seconds(results: list[Result]) -> list[Result]:
    return [
        {name: value for name, value in result.items() if name != "seconds"} for result in results
    ]


def weights_of(model: nn.Module) -> Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def test_each_epoch_yields_its_metrics() -> None:
    results = train(make_model())
    assert len(results) == 3
    for result in results:
        assert set(result) == {
            "train_loss",
            "train_accuracy",
            "learning_rate",
            "seconds",
            "val_loss",
            "val_dice",
            "val_dice_pooled",
            "val_iou",
        }
        assert result["seconds"] > 0
        assert result["learning_rate"] == 0.01


def test_the_loss_falls_and_the_dice_rises() -> None:
    results = train(make_model(), epochs=25)
    assert results[-1]["train_loss"] < 0.5 * results[0]["train_loss"]
    assert results[-1]["val_loss"] < 0.5 * results[0]["val_loss"]
    assert results[-1]["val_dice"] > 0.8


def test_the_training_loss_is_a_mean_over_images() -> None:
    """One step at a learning rate of nearly 0: each image's loss is that of the fresh network."""
    model = make_model()
    with torch.no_grad():
        expected = nn.functional.cross_entropy(model(TRAIN.images), TRAIN.labels).item()
    still = replace(TRAINING, learning_rate=1e-12, batch_size=3)  # parts of 3, 3 and 2 images
    (result,) = train(model, settings=still, epochs=1)
    assert result["train_loss"] == pytest.approx(expected, rel=1e-5)


def test_without_a_validation_part_there_are_no_validation_metrics() -> None:
    for result in train(make_model(), validation=None):
        assert set(result) == {"train_loss", "train_accuracy", "learning_rate", "seconds"}


def test_a_seed_repeats_and_another_does_not() -> None:
    dropout = replace(MODEL, dropout=0.3, normalization="batch")
    runs, weights = [], []
    for seed in (0, 0, 1):
        model = make_model(dropout)
        runs.append(without_seconds(train(model, seed=seed, augmentation=AUGMENTED)))
        weights.append(weights_of(model))
    assert runs[0] == runs[1]
    assert torch.equal(weights[0], weights[1])
    assert runs[0] != runs[2]


@pytest.mark.parametrize("loss", ["cross_entropy", "cross_entropy_dice"])
def test_a_full_batch_in_parts_is_the_same_step(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(FULL_BATCH, loss=loss)
    whole, parts = make_model(), make_model()
    expected = train(whole, settings=settings)
    monkeypatch.setattr("dl4ia.training.steps.LARGEST_PART", 3 * 32 * 32)
    results = train(parts, settings=settings)
    torch.testing.assert_close(weights_of(parts), weights_of(whole), atol=1e-5, rtol=0)
    for result, known in zip(results, expected, strict=True):
        assert result["train_loss"] == pytest.approx(known["train_loss"], abs=1e-5)
        assert result["val_loss"] == pytest.approx(known["val_loss"], abs=1e-5)


def test_a_step_follows_the_mean_gradient() -> None:
    model, expected = make_model(), make_model()
    nn.functional.cross_entropy(expected(TRAIN.images), TRAIN.labels).backward()
    with torch.no_grad():
        for weight in expected.parameters():
            assert weight.grad is not None
            weight -= 0.01 * weight.grad
    train(model, settings=replace(FULL_BATCH, optimizer="sgd"), epochs=1)
    torch.testing.assert_close(weights_of(model), weights_of(expected), atol=1e-6, rtol=0)


def test_bfloat16_trains_as_float32_does_and_is_scored_in_float32() -> None:
    exact, fast = make_model(), make_model()
    expected = train(exact, epochs=10)
    results = train(fast, epochs=10, precision=torch.bfloat16)
    assert {weight.dtype for weight in fast.parameters()} == {torch.float32}
    assert not torch.equal(weights_of(fast), weights_of(exact))
    scores = SegmentationTask().evaluate(fast, VALIDATION, CPU)
    assert results[-1]["val_loss"] == scores["loss"]
    for result, known in zip(results, expected, strict=True):
        assert result["train_loss"] == pytest.approx(known["train_loss"], abs=0.02)
        assert result["val_loss"] == pytest.approx(known["val_loss"], abs=0.02)


def test_the_last_epoch_alone_is_scored_in_float32() -> None:
    low: list[bool] = []

    def evaluate(model: nn.Module, dataset: Dataset, device: torch.device) -> Result:
        low.append(torch.is_autocast_enabled("cpu"))
        return SegmentationTask().evaluate(model, dataset, device)

    train(make_model(), evaluate=evaluate, precision=torch.bfloat16)
    assert low == [True, True, False]


@pytest.mark.parametrize(
    ("hardware", "chosen"),
    [
        ({"avx2": True}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
    ],
    ids=["AVX2", "AVX-512 BF16", "AMX"],
)
def test_the_processor_chooses_the_precision(
    monkeypatch: pytest.MonkeyPatch, hardware: dict[str, bool], chosen: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: hardware, raising=False)
    assert training_precision(CPU, True) == chosen
    assert training_precision(CPU, False) == torch.float32
    assert training_precision(torch.device("cuda"), True) == torch.float32


def test_a_diverging_loss_is_a_failure_that_names_the_epoch() -> None:
    wild = replace(FULL_BATCH, learning_rate=1e30)
    with pytest.raises(TrialFailure, match=r"^epoch 1: val_loss is (nan|inf)$"):
        train(make_model(), settings=wild)
    with pytest.raises(TrialFailure, match=r"^epoch 2: train_loss is (nan|inf)$"):
        train(make_model(), settings=wild, validation=None)


def test_a_broken_image_is_a_failure() -> None:
    images = TRAIN.images.clone()
    images[5, 0, 3, 3] = math.nan
    with pytest.raises(TrialFailure, match="^epoch 1: train_loss is nan$"):
        train(make_model(), train=Dataset(images, TRAIN.labels, TRAIN.names))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("CUDA error: out of memory"),  # where another process has it
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    ],
    ids=lambda error: str(error)[:20],
)
def test_a_lack_of_memory_is_a_failure_of_its_own(error: BaseException) -> None:
    def evaluate(*_: object) -> Result:
        raise error

    with pytest.raises(OutOfMemory, match="^epoch 1: out of memory$"):
        train(make_model(), evaluate=evaluate)


@pytest.mark.parametrize(
    ("free", "said", "expected"),
    [
        (1 << 30, "GET was unable to find an engine to execute this computation", OutOfMemory),
        (40 << 30, "GET was unable to find an engine to execute this computation", TrialFailure),
        (1 << 30, "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `c(h)`", OutOfMemory),
        (40 << 30, "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `c(h)`", RuntimeError),
        (1 << 30, "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", OutOfMemory),
    ],
)
def test_what_gpu_libraries_cannot_do_is_a_lack_of_memory_where_a_gpu_is_full(
    free: int, said: str, expected: type[RuntimeError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And never an error of ours, which would stop the study, where cuDNN has no engine."""

    def evaluate(*_: object) -> Result:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 80 << 30))
        raise RuntimeError(f"{said}\nException raised from")

    with pytest.raises((TrialFailure, RuntimeError)) as raised:
        train(make_model(), evaluate=evaluate)
    assert raised.type is expected


def test_a_lack_of_memory_is_one_before_the_first_epoch_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_room(*_: object) -> None:
        raise torch.OutOfMemoryError

    for name in ("Augmenter", "WeightAverage", "extend_with_report_rotations"):
        with monkeypatch.context() as patch:
            patch.setattr(f"dl4ia.training.fit.{name}", no_room)
            with pytest.raises(OutOfMemory, match="^epoch 1: out of memory$"):
                train(
                    make_model(),
                    settings=replace(TRAINING, averaging=0.1),
                    augmentation=AugmentationSettings(report_rotations=True),
                )


def test_what_counts_is_computed_exactly() -> None:
    """In the last epoch a GPU's convolutions are not in TF32."""
    allowed: list[bool] = []

    def evaluate(model: nn.Module, dataset: Dataset, device: torch.device) -> Result:
        allowed.append(torch.backends.cudnn.allow_tf32)
        return SegmentationTask().evaluate(model, dataset, device)

    before = torch.backends.cudnn.allow_tf32
    train(make_model(), evaluate=evaluate)
    assert allowed == [before, before, False] and torch.backends.cudnn.allow_tf32 == before


def test_a_gpus_float32_is_named_for_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    for has, named in ((True, "float32 with TF32"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_tf32_supported", lambda has=has: has)
        assert describe_precision(torch.float32, cuda) == named
    assert describe_precision(torch.float32, CPU) == "float32"
    assert describe_precision(torch.bfloat16, CPU) == "bfloat16"


def test_other_errors_are_not_hidden() -> None:
    grey = Dataset(TRAIN.images[:, :1].repeat(1, 5, 1, 1), TRAIN.labels, TRAIN.names)
    with pytest.raises(RuntimeError, match="size of tensor"):
        train(make_model(), train=grey)


def test_the_validation_part_is_neither_augmented_nor_split() -> None:
    seen: list[Dataset] = []

    def evaluate(model: nn.Module, dataset: Dataset, device: torch.device) -> Result:
        seen.append(dataset)
        return SegmentationTask().evaluate(model, dataset, device)

    known = VALIDATION.fingerprint()
    train(make_model(), augmentation=replace(AUGMENTED, stain_jitter=1.0), evaluate=evaluate)
    assert len(seen) == 3
    assert all(dataset.fingerprint() == known for dataset in seen)


def test_training_leaves_its_data_alone() -> None:
    known = TRAIN.fingerprint()
    train(make_model(), augmentation=replace(AUGMENTED, stain_jitter=1.0), epochs=1)
    assert TRAIN.fingerprint() == known


def test_evaluation_leaves_the_weights_alone() -> None:
    """Batch normalisation's statistics among them, and the next epoch drops out again."""
    normalised = replace(MODEL, normalization="batch", dropout=0.3)
    watched = make_model(normalised)
    train(watched)
    alone = make_model(normalised)
    train(alone, validation=None)
    assert torch.equal(weights_of(watched), weights_of(alone))


def test_augmentation_changes_what_is_learned() -> None:
    plain, augmented = make_model(), make_model()
    train(plain, epochs=1)
    train(augmented, epochs=1, augmentation=AUGMENTED)
    assert not torch.equal(weights_of(plain), weights_of(augmented))


def test_every_epoch_is_augmented_anew() -> None:
    """At a learning rate of nearly 0 only the augmentation can change the training loss."""
    still = replace(FULL_BATCH, learning_rate=1e-12)
    losses = [
        result["train_loss"]
        for result in train(make_model(), settings=still, augmentation=AUGMENTED)
    ]
    assert max(losses) - min(losses) > 1e-3


@pytest.mark.parametrize(("rotations", "steps"), [(False, 2), (True, 6)])
def test_the_reports_rotations_triple_the_steps(rotations: bool, steps: int) -> None:
    """The last step's cosine tells how many there were."""
    settings = replace(TRAINING, schedule="cosine")
    (result,) = train(
        make_model(),
        settings=settings,
        augmentation=AugmentationSettings(report_rotations=rotations),
        epochs=1,
    )
    factor = (1 + math.cos(math.pi * (steps - 1) / steps)) / 2
    assert result["learning_rate"] == pytest.approx(0.01 * factor)


def test_the_schedule_runs_over_all_epochs() -> None:
    rates = [
        result["learning_rate"]
        for result in train(make_model(), settings=replace(FULL_BATCH, schedule="exponential"))
    ]
    expected = [0.01 * (1 / 30 + 29 / 30 * math.exp(-step / 3)) for step in range(3)]
    assert rates == pytest.approx(expected)


def test_a_batch_larger_than_the_data_is_the_full_batch() -> None:
    small, full = make_model(), make_model()
    train(small, settings=replace(FULL_BATCH, batch_size=16))
    train(full, settings=FULL_BATCH)
    assert torch.equal(weights_of(small), weights_of(full))


@pytest.mark.parametrize(("count", "batch_size"), [(17, "full"), (17, 4), (17, 16), (5, 4)])
def test_no_batch_is_left_with_one_image(count: int, batch_size: int | str) -> None:
    """At 1x1 pixels batch normalisation raises where there is a single image."""
    small = draw(count, 0)
    images = Dataset(small.images[..., 8:24, 8:24], small.labels[:, 8:24, 8:24], small.names)
    model = make_model(ModelSettings("unet", 8, 5, "batch", 0.0, "he"))
    settings = replace(TRAINING, batch_size=batch_size)
    (result,) = train(model, train=images, settings=settings, epochs=1, validation=None)
    assert math.isfinite(result["train_loss"])


def test_a_last_step_that_diverges_is_seen_without_a_validation_part() -> None:
    settings = replace(TRAINING, learning_rate=1e30, batch_size="full")
    with pytest.raises(TrialFailure, match="epoch 1: final_loss"):
        train(make_model(), settings=settings, epochs=1, validation=None)


DROPPING = replace(MODEL, dropout=0.3)  # draws from the global stream


def cut_off(file: Path, epochs_done: int, **changes: Any) -> None:
    """A training that ends after some epochs, each of which is kept."""
    arguments: dict[str, Any] = {
        "train": TRAIN,
        "validation": VALIDATION,
        "settings": TRAINING,
        "augmentation": AUGMENTED,
        "evaluate": SegmentationTask().evaluate,
        "epochs": 6,
        "seed": 0,
        "device": CPU,
        "checkpoint": Checkpoint(file, "recipe", seconds=0.0),
    }
    results = fit(make_model(DROPPING), **arguments | changes)
    for _ in range(epochs_done):
        next(results)
    results.close()


@pytest.mark.parametrize(
    "settings",
    [
        TRAINING,
        replace(TRAINING, optimizer="adamw"),
        replace(TRAINING, optimizer="momentum"),
        replace(TRAINING, averaging=0.3),
    ],
    ids=["adam", "adamw", "momentum", "averaging"],
)
def test_a_training_that_was_cut_off_goes_on_to_the_bit(
    tmp_path: Path, settings: TrainingSettings
) -> None:
    file = tmp_path / "training.checkpoint"
    whole = make_model(DROPPING)
    changes: dict[str, Any] = {"settings": settings, "augmentation": AUGMENTED, "epochs": 6}
    expected = without_seconds(train(whole, **changes))
    cut_off(file, 4, settings=settings)
    model = make_model(DROPPING)
    torch.rand(5)  # the global stream is elsewhere in another process
    again = train(model, **changes, checkpoint=Checkpoint(file, "recipe"))
    assert without_seconds(again) == expected
    assert torch.equal(weights_of(model), weights_of(whole))


@pytest.mark.parametrize("damage", ["another recipe", "half a file", "no file", "a pickle"])
def test_what_is_no_checkpoint_of_this_training_is_not_taken(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "training.checkpoint"
    cut_off(file, 2)
    if damage == "half a file":
        file.write_bytes(file.read_bytes()[:500])
    elif damage == "no file":
        file.unlink()
    elif damage == "a pickle":
        file.write_bytes(pickle.dumps({"recipe": "recipe"}))
    recipe = "another" if damage == "another recipe" else "recipe"
    assert Checkpoint(file, recipe).load() is None


def test_a_checkpoint_is_kept_now_and_then(tmp_path: Path) -> None:
    file = tmp_path / "training.checkpoint"
    cut_off(file, 3, checkpoint=Checkpoint(file, "recipe", seconds=1000.0))
    assert not file.exists()


def test_a_full_disk_does_not_end_a_training(tmp_path: Path) -> None:
    (tmp_path / "training.part").symlink_to("/dev/full")
    Checkpoint(tmp_path / "training.checkpoint", "recipe").save({"history": [1.0]})
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    cut_off(tmp_path / "file" / "training.checkpoint", 3)
