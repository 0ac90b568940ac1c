"""The embedded glands as a data source."""

import pytest
import torch

from dl4ia.data.dataset import Dataset
from dl4ia.data.embedded import EmbeddedGlands
from dl4ia.data.glands import IMAGES_OF_PATIENT


@pytest.fixture(scope="module")
def train() -> Dataset:
    return EmbeddedGlands().train()


@pytest.fixture(scope="module")
def test() -> Dataset:
    return EmbeddedGlands().test()


def test_shapes_types_and_ranges(train: Dataset, test: Dataset) -> None:
    for dataset, count in ((train, 85), (test, 60)):
        assert len(dataset) == count
        assert dataset.images.shape == (count, 2, 64, 64)
        assert dataset.images.dtype == torch.float32
        assert dataset.images.min() >= 0
        assert 0.5 < dataset.images.max() <= 1
        assert dataset.labels.shape == (count, 64, 64)
        assert dataset.labels.dtype == torch.int64
        assert dataset.labels.unique().tolist() == [0, 1]
        assert len(set(dataset.names)) == count


def test_fingerprints_are_stable_and_tell_parts_and_seeds_apart(
    train: Dataset, test: Dataset
) -> None:
    assert EmbeddedGlands().train().fingerprint() == train.fingerprint()
    assert train.fingerprint() != test.fingerprint()
    assert EmbeddedGlands(seed=1).train().fingerprint() != train.fingerprint()
    assert EmbeddedGlands(seed=1).preparation != EmbeddedGlands().preparation


def test_fingerprints_see_one_pixel_one_label_and_the_order(train: Dataset) -> None:
    known = train.fingerprint()
    images, labels = train.images.clone(), train.labels.clone()
    images[3, 0, 5, 5] += 1 / 255
    labels[3, 5, 5] = 1 - labels[3, 5, 5]
    assert Dataset(images, train.labels, train.names).fingerprint() != known
    assert Dataset(train.images, labels, train.names).fingerprint() != known
    assert train.subset(range(84, -1, -1)).fingerprint() != known
    assert train.subset(range(85)).fingerprint() == known


def test_a_subset_keeps_images_labels_and_names_together(train: Dataset) -> None:
    subset = train.subset([7, 2])
    assert subset.names == (train.names[7], train.names[2])
    assert torch.equal(subset.images[1], train.images[2])
    assert torch.equal(subset.labels[0], train.labels[7])
    assert train.groups is not None
    assert subset.groups == (train.groups[7], train.groups[2])


def test_groups_are_the_patients(train: Dataset, test: Dataset) -> None:
    for dataset, part in ((train, "train"), (test, "test")):
        assert dataset.groups is not None
        counts = IMAGES_OF_PATIENT[part]  # type: ignore[index]
        assert [dataset.groups.count(str(patient)) for patient in range(16)] == list(counts)
