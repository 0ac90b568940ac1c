"""An Optuna study that can be stopped at any moment and goes on where it was.

The storage is the one record. A study's identity (data, split, space, metric, training length) is
written into it and compared on every start: what does not match is refused, never mixed.
"""

import uuid
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import optuna
from optuna.samplers._tpe.sampler import default_gamma, default_gamma_multiobjective
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from dl4ia.addresses import check_has_study, exists, hide_password
from dl4ia.errors import InputError
from dl4ia.search.objective import REDUCTION, derive_seed, rung
from dl4ia.search.storage import open_storage
from dl4ia.search_space import Point, SpaceModule, check_point

RANDOM_TRIALS = 8  # after the named points, before the sampler begins to model
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


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


class Sampler(optuna.samplers.TPESampler):
    """Optuna's TPE with a random stream of its own for each trial.

    One stream would begin again on every start, and in every process, and repeat its first trials.
    It begins to model after `startup_trials`, and takes the best tenth of them for good, as Optuna
    does; among neither a point counts that was skipped.
    """

    def __init__(self, seed: int, startup_trials: int) -> None:
        super().__init__(n_startup_trials=startup_trials)
        self._study_seed, self._startup_trials = seed, startup_trials

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Called by Optuna before it samples anything for `trial`."""
        # Not for a finished one, which the dashboard's notes make a `Trial` of in the meantime.
        if trial.state == TrialState.RUNNING:
            seed = derive_seed(self._study_seed, "sampler", trial.number)
            self._rng.rng.seed(seed)
            self._random_sampler._rng.rng.seed(seed)
            # They ended as pruned ones, which Optuna's counts take for trials.
            known = study._get_trials(deepcopy=False, use_cache=True)  # as the sampler reads them
            skipped = [each for each in known if is_skipped(each)]
            drawn = sum("point" not in each.user_attrs for each in skipped)
            self._n_startup_trials = self._startup_trials + drawn
            good = default_gamma if len(study.directions) == 1 else default_gamma_multiobjective
            self._gamma = lambda ended: good(max(1, ended - len(skipped)))
        super().before_trial(study, trial)


class Halving(optuna.pruners.BasePruner):
    """Asynchronous successive halving (Li et al. 2020) with one rung, deciding as Optuna's does.

    Of the trials that have come to epoch `rung`, the best one in REDUCTION go on; until there are
    so many, the best one. A trial that was cut off does not compete, as it would in Optuna's: its
    point is trained again, from the same seed, and would have its own ghost beside it. Nor do named
    points, which are trained to the end whatever comes.
    """

    def __init__(self, rung: int) -> None:
        self._rung = rung

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether `trial` is to end here: where it has come no further than the rung, and lost."""
        if trial.last_step != self._rung:
            return False
        value = trial.intermediate_values[self._rung]
        others = [
            other.intermediate_values[self._rung]
            for other in study.get_trials(deepcopy=False)
            if self._rung in other.intermediate_values
            and other.number != trial.number
            and "point" not in other.user_attrs
            and not is_interrupted(other)
        ]
        places = max(1, (len(others) + 1) // REDUCTION)
        return sum(other > value for other in others) >= places


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
    enqueued = {trial.user_attrs.get("point") for trial in study.get_trials(deepcopy=False)}
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


def enqueue_points(study: optuna.Study, points: Mapping[str, Point], trials: int) -> None:
    """Have points run next, by their labels, but for those that the study knows already.

    Raises InputError, and enqueues none, where they do not fit into `trials` in all. Of a study
    that skips large networks nobody knows beforehand how many will.
    """
    known = study.get_trials(deepcopy=False)
    tried = [trial.system_attrs.get("fixed_params", {}) | trial.params for trial in known]
    new: dict[str, Point] = {}
    for label, point in points.items():
        if point not in [*tried, *new.values()]:
            new[label] = point
    taken = [trial for trial in known if counts(trial) or not trial.state.is_finished()]
    some_are_skipped = study.user_attrs["identity"].get("most_weights")
    if new and len(taken) + len(new) > trials and not some_are_skipped:
        raise InputError(
            f"--points: {len(new)} new ones after {len(taken)} trials that the study has or begins "
            f"with; expected --trials of at least {len(taken) + len(new)}"
        )
    for label, point in new.items():
        study.enqueue_trial(dict(point), user_attrs={"point": label})
    study.sampler = _sampler_of(study)


def _sampler_of(study: optuna.Study) -> Sampler:
    """Which begins to model when as many random trials have ended besides the named ones."""
    labels = {trial.user_attrs.get("point") for trial in study.get_trials(deepcopy=False)} - {None}
    return Sampler(study.user_attrs["identity"]["seed"], len(labels) + RANDOM_TRIALS)


def check_identity(url: str, name: str, identity: Identity) -> None:
    """Raise InputError where `name` is another study already; writes nothing."""
    if not exists(url):
        return
    storage = open_storage(url)
    if name not in optuna.get_all_study_names(storage):
        return
    study = optuna.load_study(study_name=name, storage=storage)
    trials = study.get_trials(deepcopy=False)
    known = study.user_attrs.get("identity", {})
    if not known and not trials:
        return  # it was cut off while it was created
    later = ("split_by", "objectives", "most_weights")  # fields that older studies lack
    known = {name: getattr(Identity, name) for name in later} | known
    differences = [
        f"{key} is {known.get(key)!r} there and {value!r} here"
        for key, value in asdict(identity).items()
        if known.get(key) != value
    ]
    if differences:
        raise InputError(
            f"study {name!r} is another one: {'; '.join(differences)}; "
            "give another --study-name, or the same data and flags"
        )


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether the trial was cut off: it says nothing of its point, and does not count."""
    return trial.state == TrialState.FAIL and "failure" not in trial.user_attrs


def has_died(trial: FrozenTrial) -> bool:
    """Whether its process died, for the last time or not: no sign that trials get anywhere."""
    return not {"interrupted", "crashed"}.isdisjoint(trial.user_attrs)


def first_value(trial: FrozenTrial) -> float:
    """A completed trial's validation metric, of several objectives the first."""
    values: list[float] = trial.values
    return values[0]


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count towards `--trials`: completed, pruned, or failed for a reason."""
    return [trial for trial in study.get_trials(deepcopy=False) if counts(trial)]


def counts(trial: FrozenTrial) -> bool:
    """Whether it is one of `finished_trials`."""
    return trial.state in FINISHED and not is_interrupted(trial) and not is_skipped(trial)


def is_skipped(trial: FrozenTrial) -> bool:
    """Whether its point was never trained, for it has more weights than the study is to have."""
    return "skipped" in trial.user_attrs


def ended_trials(study: optuna.Study) -> list[FrozenTrial]:
    """All that were trained, to whatever end: those that count, and the interrupted."""
    ended = study.get_trials(deepcopy=False, states=FINISHED)
    return [trial for trial in ended if not is_skipped(trial)]
