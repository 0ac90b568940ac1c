"""An Optuna study that can be stopped at any moment and goes on where it was.

The storage is the one record. A study's identity (data, split, space, metric, training length) is
written into it and compared on every start: what does not match is refused, never mixed.
"""

import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from dl4ia.addresses import check_has_study, exists, hide_password
from dl4ia.errors import InputError
from dl4ia.search.halving import Halving, rung
from dl4ia.search.sampler import Sampler
from dl4ia.search.storage import open_storage
from dl4ia.search.trials import counts
from dl4ia.search_space import Point, SpaceModule, check_point, defaults_of, settings_of

RANDOM_TRIALS = 8  # after the named points, before the sampler begins to model


@dataclass(frozen=True)
class Identity:
    """What must be the same for two runs of a command to be the same study."""

    task: str
    metric: str
    data: str
    data_fingerprint: str
    preparation: dict[str, str | float]
    split_fingerprint: str
    space_fingerprint: str
    epochs: int
    folds: int
    seed: int
    # As in the studies recorded before there was a choice.
    split_by: str = "image"
    objectives: str = ""  # of several: their names, with commas between
    most_weights: int | None = None
    within: str = ""  # of a part of the space: what `--within` leaves of it

    @classmethod
    def recorded(cls, known: Mapping[str, Any]) -> "Identity":
        """That of a study, whatever another version recorded besides."""
        return settings_of(cls, known)


def find_study(url: str, name: str) -> optuna.Study:
    """The study `name` in the database at `url`, to be read.

    Raises InputError where there is none, or it is not one of ours.
    """
    check_has_study(url)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = open_storage(url)
    names = optuna.get_all_study_names(storage)
    if name not in names:
        raise InputError(
            f"{hide_password(url)}: no study {name!r}; expected one of {', '.join(names)}"
        )
    study = optuna.load_study(study_name=name, storage=storage)
    if "identity" not in study.user_attrs:
        raise InputError(f"study {name!r}: is none of dl4ia's; expected one of a studies/ script")
    return study


def open_study(
    storage: optuna.storages.RDBStorage,
    name: str,
    identity: Identity,
    searched: SpaceModule,
) -> optuna.Study:
    """Create the study, its named points enqueued first, or go on with it.

    Call `check_identity` first.
    """
    named_points = searched.REPORT_MODELS | searched.REFERENCE_MODELS
    for label, point in named_points.items():
        check_point(searched.SPACE, point, label)
    further = [name for name in identity.objectives.split(",")[1:] if name]
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=[StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * len(further)],
        load_if_exists=True,
    )
    if "identity" not in study.user_attrs:
        study.set_user_attr("id", uuid.uuid4().hex)
        study.set_user_attr("identity", asdict(identity))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([f"val_{identity.metric}", *further])
    enqueued = _labels(study.get_trials(deepcopy=False))
    for label, point in named_points.items():
        if label not in enqueued:
            attributes = {"point": label}
            if label in searched.REPORT_MODELS:
                attributes["report_model"] = label
            study.enqueue_trial(dict(point), user_attrs=attributes)
    study.sampler = _sampler_of(study)
    # Not Hyperband: its second bracket would be of trials that are never pruned, two fifths of
    # them, and with one alone it is this, but reads all trials anew for every hyperparameter.
    study.pruner = Halving(rung(identity.epochs))
    return study


def study_id(study: optuna.Study) -> str:
    """What tells it from others of its name, as after it was deleted; "" of the oldest studies."""
    known: str = study.user_attrs.get("id", "")
    return known


def check_points(
    url: str, name: str, searched: SpaceModule, points: Mapping[str, Point], trials: int
) -> None:
    """Raise InputError where `points` would not fit into `trials` in all; writes nothing.

    Not for a study that skips large networks: nobody knows beforehand how many those will be.
    """
    with _known_study(url, name) as study:
        known = [] if study is None else study.get_trials(deepcopy=False)
    labels = _labels(known)
    named = searched.REPORT_MODELS | searched.REFERENCE_MODELS
    missing = [point for label, point in named.items() if label not in labels]
    new = _without(points, [*missing, *map(_point_of, known)])
    taken = len(missing) + sum(counts(each) or not each.state.is_finished() for each in known)
    if new and taken + len(new) > trials:
        raise InputError(
            f"--points: {len(new)} new ones after {taken} trials that the study has or begins "
            f"with; expected --trials of at least {taken + len(new)}"
        )


def enqueue_points(study: optuna.Study, points: Mapping[str, Point]) -> None:
    """Have points run next, by their labels, but for those that the study knows already.

    Call `check_points` first.
    """
    known = study.get_trials(deepcopy=False)
    for label, point in _without(points, list(map(_point_of, known))).items():
        study.enqueue_trial(dict(point), user_attrs={"point": label})
    study.sampler = _sampler_of(study)


def _without(points: Mapping[str, Point], known: Sequence[Point]) -> dict[str, Point]:
    """Those that are not known, each once."""
    new: dict[str, Point] = {}
    for label, point in points.items():
        if point not in [*known, *new.values()]:
            new[label] = point
    return new


def _point_of(trial: FrozenTrial) -> Point:
    """Of one that waits too."""
    return trial.system_attrs.get("fixed_params", {}) | trial.params


def _labels(trials: Iterable[FrozenTrial]) -> set[str]:
    """Of the named points among them."""
    return {trial.user_attrs["point"] for trial in trials if "point" in trial.user_attrs}


def _sampler_of(study: optuna.Study) -> Sampler:
    """Which begins to model when as many random trials have ended besides the named ones."""
    labels = _labels(study.get_trials(deepcopy=False))
    return Sampler(study.user_attrs["identity"]["seed"], len(labels) + RANDOM_TRIALS)


@contextmanager
def _known_study(url: str, name: str) -> Iterator[optuna.Study | None]:
    """None where there is none; its connections are closed again."""
    if not exists(url):
        yield None
        return
    storage = open_storage(url)
    try:
        known = name in optuna.get_all_study_names(storage)
        yield optuna.load_study(study_name=name, storage=storage) if known else None
    finally:
        storage.remove_session()
        storage.engine.dispose()


def check_identity(url: str, name: str, identity: Identity) -> None:
    """Raise InputError where `name` is another study already; writes nothing."""
    with _known_study(url, name) as study:
        known = {} if study is None else study.user_attrs.get("identity", {})
        if study is None or (not known and not study.get_trials(deepcopy=False)):
            return  # or it was cut off while it was created
    known = defaults_of(Identity) | known  # of fields that older studies lack
    differences = [
        f"{key} is {known.get(key)!r} there and {value!r} here"
        for key, value in asdict(identity).items()
        if known.get(key) != value
    ]
    new = identity.preparation.keys() - known.get("preparation", {}).keys()
    if identity.task == "classification" and new == {"channels"}:
        differences.append("colours were read as grey there, as --channels grey does")
    if differences:
        raise InputError(
            f"study {name!r} is another one: {'; '.join(differences)}; "
            "give another --study-name, or the same data and flags"
        )
