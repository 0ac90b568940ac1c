"""The report's trainings from their first to their last epoch, on one device.

    python benchmarks/whole_trainings.py --digits data --glands data/WARWICK --record
    python benchmarks/whole_trainings.py --device cpu --epochs 1  # whether it runs

Of all training images, without a validation part; the images' way onto the device counts, the
imports and the device's first use do not. Seconds are the median of `--repeats`. On a GPU about a
minute; kept with --record on a GPU alone, since absolute times of shared processors mean little.
"""

import statistics
import time
from pathlib import Path

from flags import add_record, check_folders, parser_of
from table import NO_GPU, record

TRAININGS = {  # claim, a key of NO_GPU -> task, the report's model, epochs
    "GPU: fully connected digits, batch 30, 60 epochs": ("digits", "exercise_1_1", 60),
    "GPU: digits' CNN, 60 epochs": ("digits", "exercise_1_2", 60),
    "GPU: digits' CNN, Adam, 15 epochs": ("digits", "exercise_1_4", 15),
    "GPU: U-Net, 85 images, 100 epochs": ("glands", "unet", 100),
}


def main() -> None:
    """Print the seconds of each training beside its goal."""
    parser = parser_of(__doc__)
    parser.add_argument("--digits", type=Path, help="MNIST's folder (default: small digits)")
    parser.add_argument("--glands", type=Path, help="of image pairs (default: drawn glands)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--epochs", type=int, help="of each (default: the report's)")
    parser.add_argument("--repeats", type=int, default=3, help="of each (default: 3)")
    add_record(parser)
    arguments = parser.parse_args()
    from dl4ia.environment import tune_process

    tune_process()
    import torch
    from materials import open_task

    from dl4ia.search.objective import train_point

    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU here; expected one, or --device cpu")
    if arguments.record and (arguments.device == "cpu" or arguments.epochs):
        parser.error("--record: expected a GPU and the report's epochs")
    check_folders(parser, arguments.record, arguments.digits, arguments.glands)
    device = torch.device(arguments.device)
    for claim, (name, model, epochs) in TRAININGS.items():
        task, source, searched = open_task(name, getattr(arguments, name))
        images, point = source.train(), searched.REPORT_MODELS[model]
        seconds = []
        for number in range(arguments.repeats + 1):
            count = (arguments.epochs or epochs) if number else 1  # the first one warms up
            start = time.perf_counter()
            _, results = train_point(task, point, images, None, count, number, device)
            losses = [result["train_loss"] for result in results]  # read back: the device is done
            seconds.append(time.perf_counter() - start)
        median = statistics.median(seconds[1:])
        said = f"{len(losses)} epochs of {len(images)} images, loss {losses[-1]:.4f}"
        what = claim.removeprefix("GPU: ")
        print(
            f"{arguments.device}: {what}: {median:.2f} s (goal {NO_GPU[claim]}); {said}", flush=True
        )
        if arguments.record:
            record(claim, f"{median:.2f} s", goal=NO_GPU[claim], of_training=True)


if __name__ == "__main__":
    main()
