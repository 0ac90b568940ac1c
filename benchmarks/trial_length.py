"""Does what a study's trials rank hold after longer training? The rank correlation.

    python benchmarks/trial_length.py segmentation-warwick --data data/WARWICK --out DIR

Takes a finished study's completed trials, every so many of their ranking, trains each again from
its own seed on the study's own split, for as many epochs as a winner is retrained, and prints both
validation scores, Spearman's and Kendall's rank correlations, and what the search's best of them
lacks of the best after the longer training. Trainings are kept in --out: the same command goes on
where it was, and shares the work where it runs several times at once. Takes as long
as so many retrainings. The test images are not read.
"""

import sys
from pathlib import Path

from flags import parser_of
from kept import make_missing, read

from dl4ia.environment import tune_process

POINTS = 10


def main() -> None:
    """Train what is missing, print a line for each trial, and the correlations."""
    parser = parser_of(__doc__)
    parser.add_argument("study")
    parser.add_argument("--data", type=Path, help="its folder (default: what dl4ia brings along)")
    parser.add_argument("--storage", default="sqlite:///mlruns/optuna.db")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--out", type=Path, required=True, help="where the trainings are kept")
    arguments = parser.parse_args()
    tune_process()
    import torch
    from materials import open_task
    from scipy.stats import kendalltau, spearmanr

    from dl4ia.data.splits import make_splits
    from dl4ia.errors import TrialFailure
    from dl4ia.search.objective import Objective
    from dl4ia.search.study import Identity, find_study
    from dl4ia.search.trials import first_value
    from dl4ia.selection.ranking import ranked_trials

    study = find_study(arguments.storage, arguments.study)
    identity = Identity.recorded(study.user_attrs["identity"])
    name = {"classification": "digits", "segmentation": "glands"}[identity.task]
    task, source, searched = open_task(name, arguments.data)
    dataset = source.train()
    if dataset.fingerprint() != identity.data_fingerprint:
        sys.exit(f"--data {arguments.data}: other images than those of study {arguments.study}")
    groups = dataset.groups if identity.split_by == "patient" else None
    splits = make_splits(task.strata(dataset), identity.folds, identity.seed, groups)
    device = torch.device("cpu")
    longer = Objective(
        task, searched.SPACE, dataset, splits, arguments.epochs, identity.seed, device, {}
    )
    completed = ranked_trials(study)
    if min(len(completed), arguments.points) < 3:
        sys.exit(f"{len(completed)} completed trials, --points {arguments.points}: expected three")
    places = [
        round(place * (len(completed) - 1) / (arguments.points - 1))
        for place in range(arguments.points)
    ]
    chosen = {str(completed[place].number): completed[place] for place in places}

    def train(number: str) -> float | str:
        trial = chosen[number]
        try:
            *_, last = longer.results(trial.params, trial.user_attrs["seed"])
        except TrialFailure as failure:
            return str(failure)
        return last[f"val_{task.metric}"]

    folder = arguments.out / f"{arguments.study}-{arguments.epochs}"
    for number in make_missing(folder, chosen, train):
        print(f"trial {number}: {read(folder, number)}", flush=True)
    found = {number: read(folder, number) for number in chosen}
    if None in found.values():
        print("other processes are at work on the rest")
        return
    print(f"| trial | {identity.epochs} epochs | {arguments.epochs} epochs |\n|---:|---:|---:|")
    for number, trial in chosen.items():
        after = found[number] if isinstance(found[number], str) else f"{found[number]:.4f}"
        print(f"| {number} | {first_value(trial):.4f} | {after} |")
    pairs = [
        (first_value(trial), found[number])
        for number, trial in chosen.items()
        if not isinstance(found[number], str)
    ]
    short, long = zip(*pairs, strict=True)
    print(
        f"{len(pairs)} trials: Spearman's rank correlation {spearmanr(short, long)[0]:.2f}, "
        f"Kendall's {kendalltau(short, long)[0]:.2f}; the search's best lacks "
        f"{max(long) - long[0]:.4f} of the best after {arguments.epochs} epochs"
    )


if __name__ == "__main__":
    main()
