"""Does half a pixel of alignment help on the course's images? Cross-validated on Train/ alone.

    python benchmarks/image_shift.py --data data/WARWICK

Trains modern_unet from the same seeds on the images as they are and moved by half a pixel, over
five folds, and prints the validation Dice of each fold and the paired differences. Takes about 10
minutes on two cores with AVX-512 BF16. The test images are not read.
"""

import statistics
from pathlib import Path

from flags import parser_of

from dl4ia.environment import tune_process

FOLDS, SHIFTS = 5, (0.0, 0.5)


def main() -> None:
    """Print each fold's Dice under both shifts, and mean and SD of the difference."""
    parser = parser_of(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/WARWICK"))
    parser.add_argument("--epochs", type=int, default=60)
    arguments = parser.parse_args()
    tune_process()
    import torch

    from dl4ia.data.gland_folder import GlandFolder
    from dl4ia.data.splits import make_splits
    from dl4ia.search.objective import train_point
    from dl4ia.search.seeds import derive_seed
    from dl4ia.tasks.segmentation import SegmentationTask
    from search_spaces.segmentation import REFERENCE_MODELS

    task, point = SegmentationTask(), REFERENCE_MODELS["modern_unet"]
    datasets = [GlandFolder(arguments.data, image_shift=shift).train() for shift in SHIFTS]
    differences: dict[str, list[float]] = {"val_dice": [], "val_dice_pooled": []}
    for number, split in enumerate(make_splits(task.strata(datasets[0]), FOLDS, seed=0)):
        last = []
        for dataset in datasets:
            parts = dataset.subset(split.train), dataset.subset(split.validation)
            seed, device = derive_seed(0, "image shift", number), torch.device("cpu")
            _, results = train_point(task, point, *parts, arguments.epochs, seed, device)
            *_, result = results
            last.append(result)
        cells = []
        for name, values in differences.items():
            plain, shifted = (result[name] for result in last)
            values.append(shifted - plain)
            cells.append(f"{name} {plain:.4f} -> {shifted:.4f}")
        print(f"fold {number}: {', '.join(cells)}", flush=True)
    for name, values in differences.items():
        mean, deviation = statistics.fmean(values), statistics.stdev(values)
        print(f"{name}: difference {mean:+.4f}, SD over folds {deviation:.4f}")


if __name__ == "__main__":
    main()
