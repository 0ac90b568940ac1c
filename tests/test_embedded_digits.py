"""The embedded digits as a data source."""

import pytest
import torch

from dl4ia.data.dataset import Dataset
from dl4ia.data.embedded_digits import EmbeddedDigits


@pytest.fixture(scope="module")
def train() -> Dataset:
    return EmbeddedDigits().train()


@pytest.fixture(scope="module")
def test() -> Dataset:
    return EmbeddedDigits().test()


def test_shapes_types_and_ranges(train: Dataset, test: Dataset) -> None:
    for dataset, count in ((train, 1437), (test, 360)):
        assert len(dataset) == count
        assert dataset.images.shape == (count, 1, 28, 28)
        assert dataset.images.dtype == torch.float32
        assert dataset.images.min() == 0
        assert dataset.images.max() == 1
        assert dataset.labels.shape == (count,)
        assert dataset.labels.dtype == torch.int64


def test_every_digit_is_in_one_part(train: Dataset, test: Dataset) -> None:
    assert not set(train.names) & set(test.names)
    assert len(set(train.names) | set(test.names)) == 1797
    pixels = torch.cat([train.images, test.images]).flatten(1)
    assert len(pixels.unique(dim=0)) == 1797  # and none is another's copy


def test_both_parts_have_each_class_alike(train: Dataset, test: Dataset) -> None:
    parts = train.labels.bincount(), test.labels.bincount()
    assert parts[1].tolist() == [36, 36, 36, 36, 37, 36, 36, 36, 35, 36]
    share = parts[1] / (parts[0] + parts[1])
    assert ((share - 0.2).abs() < 0.005).all()


def test_the_digits_are_those_of_scikit_learn(train: Dataset, test: Dataset) -> None:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    digits = load_digits()
    originals = torch.from_numpy(digits.data).float() / 16  # (1797, 64)
    for dataset in (train, test):
        indices = [int(name.removeprefix("digit_")) for name in dataset.names]
        assert dataset.labels.tolist() == digits.target[indices].tolist()
        # Shrunk again, each is nearer to its own original than to any other.
        glyphs = dataset.images[:, :, 4:24, 4:24]
        shrunk = torch.nn.functional.interpolate(glyphs, size=8, mode="bilinear", antialias=False)
        assert torch.cdist(shrunk.flatten(1), originals).argmin(1).tolist() == indices


def test_they_look_like_mnist(train: Dataset) -> None:
    """MNIST: mean 0.131, standard deviation 0.308, and a black margin of four pixels."""
    assert train.images.mean().item() == pytest.approx(0.13, abs=0.04)
    assert train.images.std().item() == pytest.approx(0.31, abs=0.03)
    inside = torch.nn.functional.pad(torch.ones(20, 20), (4,) * 4)
    assert (train.images * (1 - inside)).max() == 0


def test_they_are_the_same_every_time(train: Dataset, test: Dataset) -> None:
    torch.manual_seed(5)
    source = EmbeddedDigits()
    assert source.train().fingerprint() == train.fingerprint()
    assert source.test().fingerprint() == test.fingerprint()
    assert source.name == "digits"
    assert source.preparation == {"side": 28}
    assert source.classes == tuple("0123456789")
    assert "handwritten digits of scikit-learn" in source.description
    assert "1,437 training and 360 test" in source.description
