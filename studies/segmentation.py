"""Search a gland-segmentation network: which architecture, augmentation, schedule, … and how good.

    python studies/segmentation.py --trials 50
    python studies/segmentation.py --data DIR --trials 50

DIR holds Train/ and Test/, each with pairs image_NN (PNG, TIFF, BMP, JPEG, WebP or GIF) and
label_NN (PNG, TIFF, BMP or GIF; 0: background), as docs/own-data.md has it. Without --data, the
course's images are read from data/WARWICK, and where they are missing the program draws glands.

Trains each trial on a part of the training images and scores it on the rest (Dice, a mean over
images), logs everything to Optuna and MLflow, trains the best ones again on fresh splits and seeds,
retrains the winner on all training images and scores it once on the test images. The report's eight
models are its first trials. The same command goes on where a stopped one was. Results, times and
machine: README.md.
"""

import argparse
from pathlib import Path

from dl4ia.command_line.flags import StudyArguments, add_gland_flags, run, study_parser
from dl4ia.environment import tune_process

FOLDER = Path("data/WARWICK")
# Epochs of a full trial (pruned soon after a quarter of them or never) and of the retrainings.
EPOCHS, RETRAINING_EPOCHS = 60, 200
EMBEDDED_EPOCHS, EMBEDDED_RETRAINING_EPOCHS = 28, 28


def study(arguments: StudyArguments, flags: argparse.Namespace) -> None:
    """Run or go on with the study."""
    tune_process()
    from dl4ia.data.dataset import Source
    from dl4ia.data.embedded import EmbeddedGlands
    from dl4ia.data.gland_folder import GlandFolder
    from dl4ia.errors import InputError
    from dl4ia.session import Length
    from dl4ia.tasks.segmentation import SegmentationTask
    from dl4ia.workflow.whole_study import run_study
    from search_spaces import segmentation

    folder = arguments.data or (FOLDER if FOLDER.is_dir() else None)
    source: Source
    if folder is None:
        if flags.channels != "auto" or flags.image_shift is not None:
            raise InputError(f"--channels, --image-shift: expected --data too, or a {FOLDER} here")
        source = EmbeddedGlands()
        length = Length(EMBEDDED_EPOCHS, EMBEDDED_RETRAINING_EPOCHS)
        print(
            f"*** No --data given and no {FOLDER} here: this study is on {source.description}.\n"
            "*** It tries the program out; its numbers say nothing of real tissue.",
            flush=True,
        )
    else:
        source = GlandFolder(folder, flags.channels, flags.image_shift)
        length = Length(EPOCHS, RETRAINING_EPOCHS)
    run_study(SegmentationTask(), source, segmentation, length, arguments)


if __name__ == "__main__":
    parser = study_parser(
        __doc__,
        data_default=f"{FOLDER}, or else glands drawn by the program",
        epochs_default=f"{EPOCHS}; {EMBEDDED_EPOCHS} on the drawn glands",
        retraining_default=f"{RETRAINING_EPOCHS}; {EMBEDDED_RETRAINING_EPOCHS} on the drawn glands",
    )
    add_gland_flags(parser)
    run(parser, study)
