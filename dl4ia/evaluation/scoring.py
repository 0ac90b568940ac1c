"""From retrained networks and test images to numbers with intervals.

Knows of no study and no file: it is handed the test images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from dl4ia.data.dataset import Dataset
from dl4ia.statistics import Correction, Scores, bootstrap, difference, interval_of_unanimous
from dl4ia.tasks.task import Task
from dl4ia.training.precision import exactly

BOOTSTRAP_SEED = 0
LOWER_IS_BETTER = ("hausdorff_95", "object_hausdorff")


@dataclass(frozen=True)
class Scored:
    """One point's retrainings on the test images.

    single: each metric, of S seeds. ensemble: of the mean of their probabilities. averaged: of the
        mean over flips and turns too, where the task has them.
    whole: metrics that are no ratio of sums over images, one value a seed.
    """

    single: Mapping[str, Scores]
    ensemble: Mapping[str, Scores]
    averaged: Mapping[str, Scores]
    whole: Mapping[str, Sequence[float]]


def score(task: Task, models: Sequence[nn.Module], test: Dataset, device: torch.device) -> Scored:
    """Every metric of `task`, of every model, image by image."""
    by_seed, whole = [], []
    mean, mean_of_views = None, None
    for model in models:
        with exactly():
            probabilities = task.probabilities(model, test, device)
            views = task.averaged_probabilities(model, test, device)
        by_seed.append(task.image_scores(probabilities, test))
        whole.append(task.whole_scores(probabilities, test))
        mean = probabilities if mean is None else mean + probabilities
        if views is not None:
            mean_of_views = views if mean_of_views is None else mean_of_views + views
    count = len(models)
    return Scored(
        single={name: Scores.of_seeds([each[name] for each in by_seed]) for name in by_seed[0]},
        ensemble={} if mean is None else task.image_scores(mean / count, test),
        averaged={} if mean_of_views is None else task.image_scores(mean_of_views / count, test),
        whole={name: [each[name] for each in whole] for name in whole[0]},
    )


def summary(scored: Scored, other: Scored | None, groups: Sequence[str] | None) -> dict[str, float]:
    """The winner's metrics, and how they differ from those of `other`, the report's best model.

    `test_<metric>` is the mean over seeds, with `_sd` (n - 1), `_seed_<k>`, and the 95 % interval
    `_low` to `_high` of a bootstrap over images (patients where `groups` names them) and seeds;
    without these where images or patients are fewer than five (of a class: its own), and of a
    difference where it is the same in all draws, or one side is right (or wrong) of every image.
    `test_<metric>_ensemble` and `…_ensemble_averaged` are no single model's. `report_<metric>`,
    `difference_<metric>` with its interval, and `p_better_<metric>`, one minus the p of a one-sided
    t-test that the winner is the better one, are paired over images.
    """
    names = list(scored.single)
    rows = [scored.single[name] for name in names]
    if other is not None:
        rows += [other.single[name] for name in names]
    draws = bootstrap(rows, groups, BOOTSTRAP_SEED)
    found: dict[str, float] = {}
    for number, name in enumerate(names):
        by_seed = scored.single[name].by_seed()
        found |= _with_spread(f"test_{name}", by_seed)
        sizes = _sizes(scored.single[name], groups)
        low, high = Correction.of(draws[number], sizes, [by_seed]).interval(draws[number])
        if _are_unanimous(scored.single[name]) and name not in LOWER_IS_BETTER:
            low, high = interval_of_unanimous(float(by_seed[0]), sizes)
        found |= {f"test_{name}_low": low, f"test_{name}_high": high}
        for label, scores in (("", scored.ensemble), ("_averaged", scored.averaged)):
            if name in scores:
                found[f"test_{name}_ensemble{label}"] = scores[name].mean()
        if other is not None:
            its_by_seed = other.single[name].by_seed()
            found |= _with_spread(f"report_{name}", its_by_seed)
            differences = difference(draws[number], draws[len(names) + number])
            correction = Correction.of(differences, sizes, [by_seed, its_by_seed])
            low, high = correction.interval(differences)
            better = correction.one_minus_p(
                -differences if name in LOWER_IS_BETTER else differences
            )
            if _are_unanimous(scored.single[name]) or _are_unanimous(other.single[name]):
                low = high = better = np.nan  # draws know nothing of how that side varies
            found |= {
                f"difference_{name}": float(difference(by_seed.mean(), its_by_seed.mean())),
                f"difference_{name}_low": low,
                f"difference_{name}_high": high,
                f"p_better_{name}": better,
            }
    for name, values in scored.whole.items():
        found |= _with_spread(f"test_{name}", np.asarray(values))
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _counted(scores: Scores) -> np.ndarray:
    """(N,) whether an image counts at all: for the accuracy of a class, that it is one of it."""
    return np.asarray((scores.denominator > 0).any(0))


def _sizes(scores: Scores, groups: Sequence[str] | None) -> np.ndarray:
    """What each image that counts, or each group of them, weighs in a metric: 1 in a mean."""
    weights = scores.denominator.mean(0)
    if groups is not None:
        weights = np.bincount(np.unique(groups, return_inverse=True)[1], weights)
    return np.asarray(weights[weights > 0])


def _are_unanimous(scores: Scores) -> bool:
    """Whether all images have 1 of every seed, or all 0."""
    with np.errstate(invalid="ignore"):
        values = (scores.numerator / scores.denominator)[:, _counted(scores)]
    return bool(values.size and ((values == 1).all() or (values == 0).all()))


def _with_spread(name: str, values: np.ndarray) -> dict[str, float]:
    spread = {name: float(values.mean())}
    if len(values) > 1:
        spread[f"{name}_sd"] = float(values.std(ddof=1))
    return spread | {f"{name}_seed_{number}": float(each) for number, each in enumerate(values)}


def table(scored: Mapping[str, Scored], test: Dataset) -> list[dict[str, str | int | float]]:
    """One row for each model (name -> its scores), seed and image: for the user's own statistics.

    Of the metrics that are means over images.
    """
    rows: list[dict[str, str | int | float]] = []
    for label, each in scored.items():
        means = {name: scores for name, scores in each.single.items() if _is_mean(scores)}
        seeds = len(next(iter(means.values())).numerator)
        for seed in range(seeds):
            for image, name in enumerate(test.names):
                row: dict[str, str | int | float] = {"model": label, "seed": seed, "image": name}
                if test.groups is not None:
                    row["patient"] = test.groups[image]
                row |= {
                    metric: float(scores.numerator[seed, image]) for metric, scores in means.items()
                }
                rows.append(row)
    return rows


def _is_mean(scores: Scores) -> bool:
    return bool((scores.denominator == 1).all())
