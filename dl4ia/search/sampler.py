"""Which point is tried next: Optuna's TPE, in a study that can be stopped at any moment."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers._tpe.sampler import (
    _split_trials,
    default_gamma,
    default_gamma_multiobjective,
)
from optuna.trial import FrozenTrial, TrialState

from dl4ia.search.seeds import derive_seed
from dl4ia.search.trials import is_skipped

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)

Trials = list[FrozenTrial]


class Sampler(optuna.samplers.TPESampler):
    """Optuna's TPE with a random stream of its own for each trial.

    One stream would begin again on every start, and in every process, and repeat its first trials.
    It begins to model after `startup_trials`, and takes the best tenth of them for good, as Optuna
    does; among neither a point counts that was skipped. It is of one study.
    """

    def __init__(self, seed: int, startup_trials: int) -> None:
        super().__init__(n_startup_trials=startup_trials)
        self._study_seed, self._startup_trials = seed, startup_trials
        self._sampled = -1  # the trial that was sampled last,
        self._parts: tuple[Trials, Trials] = ([], [])  # and how the others were split for it
        self._numbers = Numbers()

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

    def _sample(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As Optuna's; but for all hyperparameters of a trial the others are read and split once,
        where Optuna does so for each that is sampled by itself.
        """
        good, others = self._split(study, trial)
        of_good = self._build_parzen_estimator(study, search_space, good, handle_below=True)
        of_others = self._build_parzen_estimator(study, search_space, others, handle_below=False)
        drawn = of_good.sample(self._rng.rng, self._n_ei_candidates)
        best = self._compare(drawn, self._compute_acquisition_func(drawn, of_good, of_others))
        return {name: domain.to_external_repr(best[name]) for name, domain in search_space.items()}

    def _split(self, study: optuna.Study, trial: FrozenTrial) -> tuple[Trials, Trials]:
        """The good trials and the others, among these the running ones."""
        if trial.number != self._sampled:
            known = study._get_trials(deepcopy=False)  # not as it was asked for: some have begun
            assert self._gamma is not None  # since `before_trial`
            ended = [each for each in known if each.state in ENDED]
            running = [each for each in known if each.state == TrialState.RUNNING]
            running = [each for each in running if each.number != trial.number]
            self._sampled = trial.number
            self._parts = _split_trials(study, ended + running, self._gamma(len(ended)))
        return self._parts

    def _get_internal_repr(
        self, trials: Trials, search_space: dict[str, BaseDistribution], study: optuna.Study
    ) -> dict[str, np.ndarray]:
        """As Optuna's; but what a finished trial had is converted once."""
        rows = np.fromiter((trial.number for trial in trials), int, len(trials))
        for place in self._numbers.missing(rows):
            trial, params = trials[place], self._get_params(trials[place], study)
            known = search_space | trial.distributions
            values = {
                name: known[name].to_internal_repr(params[name])
                for name in known.keys() & params.keys()
            }
            self._numbers.put(trial.number, values, trial.state.is_finished())
        return self._numbers.columns(rows, search_space)


class Numbers:
    """Hyperparameters as Optuna's numbers: a row a trial, a column each, NaN where it has none."""

    def __init__(self) -> None:
        self._final = np.zeros(0, bool)  # which rows will never change
        self._columns: dict[str, np.ndarray] = {}

    def missing(self, rows: np.ndarray) -> np.ndarray:
        """Where in `rows` those are that have to be put first."""
        beyond = rows.max(initial=-1) + 1 - len(self._final)
        if beyond > 0:
            more = beyond + len(self._final)  # so that it is seldom
            self._final = np.append(self._final, np.zeros(more, bool))
            self._columns = {
                name: np.append(column, np.full(more, np.nan))
                for name, column in self._columns.items()
            }
        return np.flatnonzero(~self._final[rows])

    def put(self, row: int, values: Mapping[str, float], final: bool) -> None:
        """Set a row."""
        for name in values.keys() - self._columns.keys():
            self._columns[name] = np.full(len(self._final), np.nan)
        for name, column in self._columns.items():
            column[row] = values.get(name, np.nan)
        self._final[row] = final

    def columns(self, rows: np.ndarray, names: Iterable[str]) -> dict[str, np.ndarray]:
        """The columns of these names, of those of `rows` that have them all."""
        nothing = np.full(len(self._final), np.nan)
        found = {name: self._columns.get(name, nothing)[rows] for name in names}
        whole = ~np.isnan(list(found.values())).any(axis=0)
        return {name: column[whole] for name, column in found.items()}
