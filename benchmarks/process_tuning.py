"""What `dl4ia.environment.tune_process` buys on a CPU: epochs with and without it, in one run.

    python benchmarks/process_tuning.py

Each variant is a process of its own (both settings must precede torch), alone and beside a process
that keeps one core busy; they take turns, and the median counts. Takes about three minutes.
"""

import os
import statistics
import subprocess
import sys
import time

from flags import parser_of

IMAGES, SIDE, ROUNDS = 32, 128, 3
MODELS = ("baseline", "modern_unet")


def epoch_seconds(model_name: str) -> float:
    """Forward and backward passes over 32 random images in parts of 16: the best of three."""
    import torch
    import torch.nn.functional as F

    from dl4ia.data.dataset import Dataset
    from dl4ia.tasks.segmentation import SegmentationTask
    from search_spaces.segmentation import REFERENCE_MODELS, REPORT_MODELS

    images = torch.rand(IMAGES, 2, SIDE, SIDE)
    labels = torch.randint(0, 2, (IMAGES, SIDE, SIDE))
    dataset = Dataset(images, labels, tuple(str(number) for number in range(IMAGES)))
    model = SegmentationTask().build((REPORT_MODELS | REFERENCE_MODELS)[model_name], dataset)
    model.to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        for part, answers in zip(images.split(16), labels.split(16), strict=True):
            F.cross_entropy(model(part), answers).backward()
        best = min(best, time.perf_counter() - start)
    return best


def run(model_name: str, tuned: bool, disturbed: bool) -> float:
    """The seconds of one process."""
    busy = None
    if disturbed:
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        words = [sys.executable, __file__, model_name, "tuned" if tuned else "plain"]
        environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
        answer = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
        return float(answer.stdout)
    finally:
        if busy:
            busy.kill()
            busy.wait()


def main() -> None:
    """Print the medians and their ratio for every model, alone and disturbed."""
    parser_of(__doc__).parse_args()
    for model_name in MODELS:
        for disturbed in (False, True):
            seconds: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(ROUNDS):
                for tuned in (False, True):
                    seconds[tuned].append(run(model_name, tuned, disturbed))
            plain, tuned_ = (statistics.median(seconds[key]) for key in (False, True))
            where = "beside a busy process" if disturbed else "alone"
            print(
                f"{model_name:<12} {where:<22} plain {plain:6.2f} s  tuned {tuned_:6.2f} s  "
                f"ratio {plain / tuned_:5.2f}",
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        if sys.argv[2] == "tuned":
            from dl4ia.environment import tune_process

            tune_process()
        print(epoch_seconds(sys.argv[1]))
    else:
        main()
