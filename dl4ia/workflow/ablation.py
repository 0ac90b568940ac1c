"""What each of the winner's choices buys: `--ablate`."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from tqdm import tqdm

from dl4ia.command_line.flag_types import ALL
from dl4ia.errors import InputError, OutOfMemory, TrialFailure
from dl4ia.models.layers import weight_count
from dl4ia.report.terminal import epoch_bar
from dl4ia.search.trials import trial_of
from dl4ia.search_space import Point, defaults_of
from dl4ia.selection.ablation import (
    ablate,
    effects_of,
    is_measured,
    measured_effects,
    turned_back,
)
from dl4ia.selection.finalists import Selection
from dl4ia.session import Session
from dl4ia.text import plural
from dl4ia.workflow.ahead import Ahead
from dl4ia.workflow.finalists import repeats_of


def run_ablation(session: Session, selection: Selection, ahead: Ahead) -> None:
    """Turn back the winner's choices, and write the effects into the study."""
    if not session.arguments.ablate:
        return
    if ablation_is_done(session, selection):
        _tell_left_out(session, selection)
        return
    label, baseline = f"trial {selection.winner}", session.whole.BASELINE
    winner = trial_of(session.study, selection.winner).params
    turned = _turned_back(session, winner)
    wanted = {name: turned[name] for name in _wanted(session, turned)}
    repeats = repeats_of(session, _of_ablation(session), ahead)
    print(
        f"\nAblation: {plural(len(wanted), 'choice')} of {label} turned back to {baseline}'s"
        + (f", {len(repeats)} further repeats each" if wanted else ""),
        flush=True,
    )
    _tell_left_out(session, selection)

    def keep() -> None:
        effects = measured_effects(winner, turned, repeats)
        record = {
            "trial": selection.winner,
            "repeats": len(repeats),
            "first_repeat": repeats.numbers.start,
            "reused": repeats.reused,
            "held_out": repeats.held_out,
            "step": repeats.step,
            "baseline": baseline,
            "effects": [asdict(effect) for effect in effects],
        }
        if effects or not turned:
            session.study.set_user_attr("ablation", record)

    def after_repeat(number: int, value: float) -> None:
        where = f"repeat {number - repeats.numbers.start + 1}/{len(repeats)}"
        tqdm.write(f"  {where}  {value:.4f}  {label}")
        keep()

    if not wanted:
        keep()
        return
    with epoch_bar((len(wanted) + 1) * len(repeats) * session.identity.epochs) as bar:
        try:
            ablate(winner, wanted, repeats, label, bar.update, after_repeat)
        except OutOfMemory as failure:
            raise InputError(
                f"--ablate: {failure}; the study is intact: {failure.advice}"
            ) from failure
        except TrialFailure as failure:
            raise InputError(
                f"--ablate: {label} fails on fresh splits ({failure}), so that nothing can be "
                "compared with it; the study is intact: without --ablate its winner is scored"
            ) from failure
        finally:  # what was trained says something where the rest was stopped, too
            keep()


def ablation_is_done(session: Session, selection: Selection) -> bool:
    """Whether the study has the effects of this winner's choices over as many repeats."""
    winner = trial_of(session.study, selection.winner).params
    turned = _turned_back(session, winner)
    names = _wanted(session, turned)
    if turned and not names:
        return True
    known = session.study.user_attrs.get("ablation", {})
    numbers = _of_ablation(session)
    asked = (selection.winner, len(numbers), numbers.start)
    if (known.get("trial"), known.get("repeats"), known.get("first_repeat")) != asked:
        return False
    if "step" not in known:  # an earlier version's: made again, of what is trained
        return False
    return is_measured(effects_of(known), names, len(numbers))


def _turned_back(session: Session, winner: Mapping[str, Any]) -> dict[str, Point]:
    """Each of the winner's choices turned back, as far as that keeps to `--most-weights`."""
    most = session.arguments.most_weights
    return {
        name: point
        for name, point in _all_turned_back(session, winner).items()
        if most is None or _weights(session, point) <= most
    }


def _weights(session: Session, point: Point) -> int:
    return weight_count(session.task.build(point, session.dataset))


def _all_turned_back(session: Session, winner: Mapping[str, Any]) -> dict[str, Point]:
    models = session.whole.REPORT_MODELS | session.whole.REFERENCE_MODELS
    known = [models[session.whole.BASELINE], *models.values()]
    return turned_back(session.whole.SPACE, winner, known, defaults_of(session.task.settings))


def _tell_left_out(session: Session, selection: Selection) -> None:
    """Which of the choices that the user asked for are not turned back, and why."""
    winner = trial_of(session.study, selection.winner).params
    turned = _turned_back(session, winner)
    asked = session.arguments.ablate
    for name in _all_turned_back(session, winner) if asked == ALL else asked:
        if name not in turned:
            print(f"  --ablate {name}: {_why_not(session, winner, name)}", flush=True)


def _why_not(session: Session, winner: Mapping[str, Any], name: str) -> str:
    """Why one of the winner's choices is not turned back."""
    label = session.whole.BASELINE
    baseline = session.whole.REPORT_MODELS[label]
    for whose, point in (("the winner", winner), (label, baseline)):
        if name not in point:
            return f"{whose} has none"
    if winner[name] == baseline[name]:
        return f"the winner has {label}'s"
    if name in (points := _all_turned_back(session, winner)):
        weights, most = _weights(session, points[name]), session.arguments.most_weights
        return f"with {label}'s the network has {weights:,} weights, over --most-weights {most:,}"
    return f"with {label}'s another choice would apply, which has no value"


def _wanted(session: Session, turned: Iterable[str]) -> list[str]:
    """Those of the choices that can be turned back that the user asked for."""
    asked = session.arguments.ablate
    return [name for name in turned if asked == ALL or name in asked]


def _of_ablation(session: Session) -> range:
    """The repeats after the finalists', by which the winner was not chosen."""
    count = session.arguments.repeats
    return range(count, 2 * count)
