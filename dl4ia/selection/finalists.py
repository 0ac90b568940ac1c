"""Who wins, by validation alone.

The best of many trials is on the bright side of its true value (the winner's curse). So the best
few points, and the best of the report's models, are trained again on splits and seeds that the
search never used, and the winner is the best mean of these.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from dl4ia.errors import InputError, OutOfMemory, TrialFailure
from dl4ia.search.trials import first_value
from dl4ia.selection.ranking import best_report_model, ranked_trials
from dl4ia.selection.repeats import Repeats
from dl4ia.statistics import Estimate, estimate, one_sided_p

FAILED = "failed"  # how it begins why a finalist was given up that could not be trained
STOP_BELOW = 0.05  # p of the one-sided paired test against the leader


@dataclass(frozen=True)
class Finalist:
    """A trial's point, trained again.

    values: the validation metric, one a repeat; fewer than the others' where it was given up.
    given_up: why it was trained no further; "" of those that went through all repeats.
    """

    trial: int
    weights: int
    searched: float  # the trial's own value
    values: tuple[float, ...]
    given_up: str = ""

    @property
    def failed(self) -> bool:
        """Whether it was given up because it could not be trained."""
        return self.given_up.startswith(FAILED)


@dataclass(frozen=True)
class Selection:
    """The finalists, best mean first, those given up last; and who wins.

    simpler: the trial of fewest weights among those within one standard error of the winner; None
        where that is the winner.
    held_out: of the repeats; see `dl4ia.statistics.estimate`.
    """

    finalists: tuple[Finalist, ...]
    winner: int
    simpler: int | None
    report_model: int | None  # the trial of the best report model
    repeats: int
    held_out: float
    reused: int = 0  # how many of the repeats' splits are the search's own
    completed: int = 0  # trials of the study when it was made; 0: an earlier version's
    step: float = 0.0  # of `Repeats.step`

    def estimate(self, finalist: Finalist) -> Estimate:
        """Its mean over repeats, and how far that can be trusted.

        The interval is cut off at 0 and 1: Dice and accuracy are shares, which a t does not know.
        """
        return estimate(finalist.values, self.held_out, self.step).within(0.0, 1.0)

    @property
    def searched_best(self) -> Finalist:
        """Whom the search had taken for the best, of those that have a repeat."""
        trained = [each for each in self.finalists if each.values]
        return min(trained, key=lambda each: (-each.searched, each.weights, each.trial))

    @property
    def optimism(self) -> float:
        """The search's best value minus that trial's mean over the repeats.

        Not the winner's: it is the winner for being high over the repeats.
        """
        return self._fall(self.searched_best)

    @property
    def winners_optimism(self) -> float:
        """The winner's value in the search minus its mean over the repeats: on the low side."""
        return self._fall(self.of(self.winner))

    def _fall(self, finalist: Finalist, count: int | None = None) -> float:
        return finalist.searched - float(np.mean(finalist.values[:count]))

    @property
    def shared_optimism(self) -> tuple[int, float, float, float | None] | None:
        """That of the search's best and of the report's, over so many repeats that both have.

        The latter was chosen from eight alone. What both share is the search's one split, which
        may be easier or harder than others. The last number is the standard error of their
        difference; None of one repeat. None where they are one, or the latter has no repeat.
        """
        best = self.searched_best
        if self.report_model in (None, best.trial):
            return None
        report = self.of(self.report_model)
        count = min(len(best.values), len(report.values))
        if not count:
            return None
        apart = np.subtract(report.values[:count], best.values[:count]).tolist()
        error = estimate(apart, self.held_out).error if count > 1 else None
        return count, self._fall(best, count), self._fall(report, count), error

    def of(self, trial: int) -> Finalist:
        """The finalist that is this trial."""
        return next(each for each in self.finalists if each.trial == trial)

    def as_record(self) -> dict[str, Any]:
        """For the study's attributes."""
        return asdict(self)

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> "Selection":
        """What `as_record` gave, through JSON."""
        finalists = tuple(
            Finalist(**(each | {"values": tuple(each["values"])})) for each in record["finalists"]
        )
        return Selection(**(dict(record) | {"finalists": finalists}))


def without_finalists(study: optuna.Study, winner: FrozenTrial) -> Selection:
    """A trial of the search wins as it is."""
    report = best_report_model(study)
    found = Selection((), winner.number, None, report.number if report else None, 0, 0.0)
    return of_today(found, study)


def of_today(selection: Selection, study: optuna.Study) -> Selection:
    """A choice that holds for all trials that `study` has completed by now."""
    return replace(selection, completed=len(ranked_trials(study)))


def completed_since(study: optuna.Study) -> int:
    """How many trials were completed after the winner was last chosen; 0 where that is unknown."""
    known = study.user_attrs.get("selection", {}).get("completed", 0)
    return len(ranked_trials(study)) - known if known else 0


def select(
    trials: Sequence[FrozenTrial],
    repeats: Repeats,
    after_epoch: Callable[[], object],
    after_repeat: Callable[[int, FrozenTrial, float], object],
) -> Selection:
    """Train the trials' points on all repeats, but the weak ones on fewer, and choose the winner.

    After each repeat a finalist is given up that the one-sided paired test puts below the leader;
    where that leader fails later, it comes back. Raises InputError where every finalist fails, or
    the memory runs out.
    """
    values: dict[int, list[float]] = {trial.number: [] for trial in trials}
    given_up: dict[int, str] = {}
    below: dict[int, int] = {}  # of those that are below a leader: which

    def train(left: Sequence[FrozenTrial], number: int) -> None:
        repeats.prepare({_label(trial): trial.params for trial in left}, [number])
        for trial in left:
            try:
                value = repeats.value(trial.params, number, _label(trial), after_epoch)
            except OutOfMemory as failure:  # of this moment, not of the point
                raise InputError(
                    f"{_label(trial)} on repeat {number + 1}: {failure}, though it trained alone; "
                    "the study is intact and the test set unopened: give it more memory and the "
                    "same command goes on, or name fewer --finalists"
                ) from failure
            except TrialFailure as failure:
                given_up[trial.number] = f"{FAILED} on repeat {number + 1}: {failure}"
                for other in [each for each, leader in below.items() if leader == trial.number]:
                    del given_up[other], below[other]
                continue
            values[trial.number].append(value)
            after_repeat(number, trial, value)

    for done, number in enumerate(repeats.numbers, start=1):
        while waiting := [
            trial
            for trial in trials
            if trial.number not in given_up and len(values[trial.number]) < done
        ]:
            least = min(len(values[trial.number]) for trial in waiting)
            behind = [trial for trial in waiting if len(values[trial.number]) == least]
            train(behind, repeats.numbers[least])
        running = [trial.number for trial in trials if trial.number not in given_up]
        if running and done < len(repeats.numbers):
            leader = max(running, key=lambda trial: float(np.mean(values[trial])))
            for other in running:
                differences = np.subtract(values[leader], values[other]).tolist()
                if (
                    other != leader
                    and one_sided_p(differences, repeats.held_out, repeats.step) < STOP_BELOW
                ):
                    given_up[other] = f"below the leader after {number + 1} repeats"
                    below[other] = leader
    finalists = [
        Finalist(
            trial.number,
            trial.user_attrs["weights"],
            first_value(trial),
            tuple(values[trial.number]),
            given_up.get(trial.number, ""),
        )
        for trial in trials
    ]
    report = [trial.number for trial in trials if "report_model" in trial.user_attrs]
    found = _decide(finalists, report, repeats)
    return replace(found, reused=repeats.reused)


def _label(trial: FrozenTrial) -> str:
    return f"trial {trial.number}"


def _rank_of_report(finalist: Finalist) -> tuple[bool, int, bool, float, int, int]:
    """Which did not fail, stayed longest and, over the same repeats, did best."""
    mean = float(np.mean(finalist.values)) if finalist.values else -np.inf
    ending = (finalist.failed, -len(finalist.values), bool(finalist.given_up))
    return *ending, -mean, finalist.weights, finalist.trial


def _decide(finalists: list[Finalist], report: list[int], repeats: Repeats) -> Selection:
    """The best mean wins; of equals fewer weights.

    Of splits of unequal size as many errors are not quite the same mean: those within half an image
    of the best are its equals.
    """
    means = [float(np.mean(each.values)) for each in finalists if not each.given_up]
    equal = max(means, default=-np.inf) - repeats.step / len(repeats) / 2

    def rank(finalist: Finalist) -> tuple[bool, float, int, int]:
        mean = float(np.mean(finalist.values)) if finalist.values else -np.inf
        score = np.inf if not finalist.given_up and mean >= equal else mean
        return bool(finalist.given_up), -score, finalist.weights, finalist.trial

    ordered = sorted(finalists, key=rank)
    winner = ordered[0]
    if winner.given_up:
        raise InputError(
            f"every finalist failed; of trial {winner.trial}: {winner.given_up}; the study is "
            "intact and the test set unopened: more trials (--trials) may find steadier ones"
        )
    found = estimate(winner.values, repeats.held_out)
    within = [
        each
        for each in ordered
        if not each.given_up
        and each.weights < winner.weights
        and np.mean(each.values) >= found.mean - found.error
    ]
    simpler = min(within, key=lambda each: (each.weights, rank(each)), default=None)
    of_report = sorted((each for each in ordered if each.trial in report), key=_rank_of_report)
    return Selection(
        finalists=tuple(ordered),
        winner=winner.trial,
        simpler=simpler.trial if simpler else None,
        report_model=of_report[0].trial if of_report else None,
        repeats=len(repeats),
        held_out=repeats.held_out,
        step=repeats.step,
    )
