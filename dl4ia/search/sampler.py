"""Which point is tried next: Optuna's TPE, in a study that can be stopped at any moment."""

import optuna
from optuna.samplers._tpe.sampler import default_gamma, default_gamma_multiobjective
from optuna.trial import FrozenTrial, TrialState

from dl4ia.search.seeds import derive_seed
from dl4ia.search.trials import is_skipped


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
