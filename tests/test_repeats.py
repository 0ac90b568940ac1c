from dataclasses import replace

import optuna
import pytest
import torch

from dl4ia.data.embedded import EmbeddedGlands
from dl4ia.data.splits import make_splits
from dl4ia.errors import OutOfMemory, TrialFailure
from dl4ia.search.objective import Objective
from dl4ia.selection.repeats import Repeats, kept_repeats, make_repeats
from dl4ia.tasks.segmentation import SegmentationTask
from search_spaces.segmentation import REPORT_MODELS, SPACE

TASK = SegmentationTask()
DATASET = EmbeddedGlands().train().subset(range(12))
BASELINE = REPORT_MODELS["baseline"]
ENVIRONMENT = {"commit": "abc", "dirty": "False"}


def objective() -> Objective:
    splits = make_splits(TASK.strata(DATASET), 1, 0)
    return Objective(TASK, SPACE, DATASET, splits, 2, 0, torch.device("cpu"), ENVIRONMENT)


def repeats(study: optuna.Study, count: int = 7) -> Repeats:
    return make_repeats(study, objective(), range(count), None)


def test_five_repeats_validate_each_image_once_and_the_search_never_had_them() -> None:
    splits = repeats(optuna.create_study()).splits
    assert len(splits) == 7
    validated = [image for split in splits[:5] for image in split.validation]
    assert sorted(validated) == list(range(12))
    known = {frozenset(split.validation) for split in objective().splits}
    found = {frozenset(split.validation) for split in splits}
    assert len(found) == 7 and not found & known
    assert repeats(optuna.create_study(), 3).splits == splits[:3]


def by_patient(folds: int, patients: int, count: int) -> Repeats:
    """Of twelve images, as even as can be over so many patients."""
    groups = tuple(sorted(str(image % patients) for image in range(12)))
    splits = make_splits(TASK.strata(DATASET), folds, 0, groups)
    searched = replace(objective(), splits=splits)
    return make_repeats(optuna.create_study(), searched, range(count), groups)


def test_patients_are_split_as_the_search_never_did() -> None:
    found = by_patient(1, 12, 10)
    assert found.reused == 0
    assert len({frozenset(split.validation) for split in found.splits}) == 10


@pytest.mark.parametrize(("patients", "folds"), [(2, 2), (3, 3), (4, 4), (5, 1), (5, 5)])
def test_of_few_patients_some_splits_are_the_search_s(patients: int, folds: int) -> None:
    """There are no others, and the study says so."""
    found = by_patient(folds, patients, 5)
    assert len(found) == 5
    assert found.reused == (1 if folds == 1 else 5)
    validated = [image for split in found.splits[:patients] for image in split.validation]
    assert sorted(validated) == list(range(12))


def test_of_few_patients_an_ablation_has_the_finalists_splits() -> None:
    """Five patients have one deal of five parts."""
    found = by_patient(1, 5, 10)
    assert replace(found, numbers=range(5, 10)).reused == 5
    assert replace(by_patient(1, 12, 10), numbers=range(5, 10)).reused == 0


def test_further_repeats_are_others() -> None:
    """As an ablation has them."""
    study = optuna.create_study()
    further = make_repeats(study, objective(), range(5, 10), None)
    assert len(further) == 5 and list(further.numbers) == [5, 6, 7, 8, 9]
    first = {frozenset(split.validation) for split in further.splits[:5]}
    assert not first & {frozenset(split.validation) for split in further.splits[5:]}
    assert further.splits[:7] == repeats(study, 7).splits


def test_what_is_held_out_is_a_quarter_of_what_is_trained_on() -> None:
    assert repeats(optuna.create_study(), 5).held_out == pytest.approx(0.25)


def test_a_repeat_is_trained_once_and_kept_in_the_study() -> None:
    study, epochs = optuna.create_study(), []
    first = repeats(study).value(BASELINE, 0, "trial 0", lambda: epochs.append(1))
    assert len(epochs) == 2
    assert repeats(study).value(BASELINE, 0, "again", lambda: epochs.append(1)) == first
    assert len(epochs) == 2
    other = repeats(study).value(BASELINE, 1, "trial 0", lambda: epochs.append(1))
    assert other != first and len(epochs) == 4
    (kept, _) = kept_repeats(study).values()
    assert kept["label"] == "trial 0" and kept["point"] == BASELINE and kept["repeat"] == 0
    assert kept["environment"] == ENVIRONMENT
    assert len(kept["history"]["val_dice"]) == 2 and kept["history"]["val_dice"][-1] == first


def test_points_are_trained_from_the_same_seed() -> None:
    study = optuna.create_study()
    for rate in (0.003, 0.004):
        repeats(study).value(BASELINE | {"learning_rate": rate}, 0, "", lambda: None)
    assert len({kept["seed"] for kept in kept_repeats(study).values()}) == 1


def failing(study: optuna.Study) -> Repeats:
    """Of images that are no numbers."""
    broken = objective()
    images = torch.full_like(broken.dataset.images, torch.nan)
    broken = replace(broken, dataset=replace(broken.dataset, images=images))
    return replace(repeats(study), objective=broken)


def test_what_fails_ahead_beside_others_is_not_kept() -> None:
    study = optuna.create_study()
    with pytest.raises(TrialFailure):
        failing(study).train(BASELINE, 0, "trial 0")
    assert not kept_repeats(study)
    repeats(study).train(BASELINE, 0, "trial 0")
    (kept,) = kept_repeats(study).values()
    assert repeats(study).value(BASELINE, 0, "", lambda: None) == kept["history"]["val_dice"][-1]


def test_that_the_memory_ran_out_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been another process's."""
    study = optuna.create_study()
    with monkeypatch.context() as patch:

        def evaluate(*_: object) -> dict[str, float]:
            raise torch.OutOfMemoryError

        patch.setattr(SegmentationTask, "evaluate", evaluate)
        with pytest.raises(OutOfMemory):
            repeats(study).value(BASELINE, 0, "trial 0", lambda: None)
    assert not kept_repeats(study)
    assert repeats(study).value(BASELINE, 0, "trial 0", lambda: None) > 0


def test_what_is_kept_is_not_asked_for_ahead() -> None:
    study, asked = optuna.create_study(), []
    known = replace(repeats(study), train_ahead=asked.extend)
    known.value(BASELINE, 1, "trial 0", lambda: None)
    known.prepare({"trial 0": BASELINE}, range(3))
    assert [(job["number"], job["label"]) for job in asked] == [(0, "trial 0"), (2, "trial 0")]
    assert all(job["point"] == BASELINE and job["kind"] == "repeat" for job in asked)


def test_a_failure_is_kept_too() -> None:
    study = optuna.create_study()
    with pytest.raises(TrialFailure):
        failing(study).value(BASELINE, 0, "trial 0", lambda: None)
    with pytest.raises(TrialFailure):  # of images that would train
        repeats(study).value(BASELINE, 0, "trial 0", lambda: None)
    (kept,) = kept_repeats(study).values()
    assert kept["failure"]
