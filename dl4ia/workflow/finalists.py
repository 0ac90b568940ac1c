"""What follows the search: the finalists' repeats, and who wins them."""

from dataclasses import replace

from optuna.trial import FrozenTrial
from tqdm import tqdm

from dl4ia.report.findings import describe
from dl4ia.report.terminal import epoch_bar
from dl4ia.search.pareto import knee_point, pareto_front
from dl4ia.selection.finalists import Selection, of_today, select, without_finalists
from dl4ia.selection.ranking import best_trial, choose_finalists
from dl4ia.selection.repeats import Repeats, make_repeats
from dl4ia.session import Session
from dl4ia.text import plural
from dl4ia.workers.jobs import Job
from dl4ia.workflow.ahead import Ahead


def run_finalists(session: Session, ahead: Ahead) -> Selection:
    """Train what is missing of the finalists' repeats, and say who wins.

    Raises InputError where no trial was completed, or every finalist fails.
    """
    known = current_selection(session)
    if known:
        return known
    trials = choose_finalists(session.study, session.arguments.finalists)
    repeats = repeats_of(session, range(session.arguments.repeats), ahead)
    epochs = session.identity.epochs
    print(
        f"\nFinalists: {plural(len(trials), 'point')} on up to {len(repeats)} further splits and "
        f"seeds, {epochs} epochs each",
        flush=True,
    )

    def after_repeat(number: int, trial: FrozenTrial, value: float) -> None:
        where = f"repeat {number + 1}/{len(repeats)}"
        tqdm.write(f"  {where}  {value:.4f}  trial {trial.number:>3}  {describe(trial)}")

    with epoch_bar(len(trials) * len(repeats) * epochs) as bar:
        return of_today(select(trials, repeats, bar.update, after_repeat), session.study)


def current_selection(session: Session) -> Selection | None:
    """Who wins, where that is settled for these trials and as many repeats."""
    if session.arguments.objectives:
        front = pareto_front(session.study)
        return without_finalists(session.study, knee_point(front))
    if not session.arguments.finalists:
        return without_finalists(session.study, best_trial(session.study))
    record = session.study.user_attrs.get("selection")
    if record is None:
        return None
    selection = Selection.from_record(record)
    if "step" not in record:  # an earlier version's
        step = repeats_of(session, range(session.arguments.repeats)).step
        selection = replace(selection, step=step)
    chosen = choose_finalists(session.study, session.arguments.finalists)
    same = {each.trial for each in selection.finalists} == {trial.number for trial in chosen}
    if not same or selection.repeats != session.arguments.repeats:
        return None
    return of_today(selection, session.study)


def train_repeat(session: Session, job: Job) -> None:
    """One of those that `Repeats.prepare` asks for."""
    number = job["number"]
    repeats_of(session, range(number, number + 1)).train(job["point"], number, job["label"])


def repeats_of(session: Session, numbers: range, ahead: Ahead | None = None) -> Repeats:
    """Those of these numbers, on this study's images; with `ahead` several are trained at once."""
    by_patient = session.arguments.split_by == "patient"
    groups = session.dataset.groups if by_patient else None
    repeats = make_repeats(session.study, session.objective, numbers, groups)
    return repeats if ahead is None else replace(repeats, train_ahead=ahead.train)
