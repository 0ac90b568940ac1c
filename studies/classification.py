"""Search a digit classifier: which architecture, head, augmentation, schedule, … and how good.

    python studies/classification.py --trials 50
    python studies/classification.py --data DIR --trials 50
    python studies/classification.py --small-digits --trials 50

DIR holds MNIST's four files (as torchvision leaves them) or a folder for each class,
Train/<class>/ and Test/<class>/ (PNG, TIFF, BMP, JPEG, WebP or GIF). Without --data,
MNIST is read from data/ or downloaded there; where that fails, and with --small-digits, the study
is on small digits that come with scikit-learn. Trains each trial on a part of the training images
and scores it on the rest (accuracy), logs everything to Optuna and MLflow, trains the best ones
again on fresh splits and seeds, retrains the winner on all training images and scores it once on
the test images. The report's eight models are its first trials. The same command goes on where a
stopped one was. Results: README.md.
"""

import argparse
import sys
from pathlib import Path

from dl4ia.command_line.flags import StudyArguments, add_digit_flags, run, study_parser
from dl4ia.environment import tune_process

FOLDER = Path("data")
# Of a full trial, which is pruned soon after a quarter of them or never: MNIST's 60,000 images are
# shown eight times, fewer as much oftener, but forty times at most.
EPOCHS, MOST_EPOCHS, IMAGES_SHOWN = 8, 40, 480_000


def study(arguments: StudyArguments, flags: argparse.Namespace) -> None:
    """Run or go on with the study."""
    tune_process()
    from dl4ia.data.digit_source import ClassSource, digit_source
    from dl4ia.data.embedded_digits import EmbeddedDigits
    from dl4ia.errors import InputError
    from dl4ia.session import Length
    from dl4ia.tasks.classification import ClassificationTask
    from dl4ia.workflow.whole_study import run_study
    from search_spaces import classification

    if flags.small_digits and arguments.data is not None:
        raise InputError(f"--small-digits and --data {arguments.data}: expected one of the two")
    if flags.channels == "rgb" and arguments.data is None:
        raise InputError(
            "--channels rgb: MNIST and the small digits are grey; expected --channels grey, or "
            "--data with a folder of classes"
        )
    wants_mnist = arguments.data is None and not flags.small_digits
    if wants_mnist and not FOLDER.is_dir():
        print(f"No --data given and no {FOLDER} here: looking for MNIST to download", flush=True)
    source: ClassSource = (
        EmbeddedDigits()
        if flags.small_digits
        else digit_source(arguments.data, FOLDER, arguments.out / "cache", flags.channels)
    )
    if wants_mnist and isinstance(source, EmbeddedDigits):
        # For the workers, whose download might succeed, and for whoever makes it again.
        sys.argv.append("--small-digits")
        print(
            f"*** No --data given, no MNIST in {FOLDER} and none downloaded: this study is on\n"
            f"*** {source.description}.\n"
            "*** It tries the program out; its numbers do not compare with MNIST's.",
            flush=True,
        )
    epochs = default_epochs(source.training_images)
    run_study(
        ClassificationTask(source.classes),
        source,
        classification,
        Length(epochs, epochs),
        arguments,
    )


def default_epochs(images: int) -> int:
    """Of a full trial on a training set of so many."""
    return min(MOST_EPOCHS, max(EPOCHS, IMAGES_SHOWN // images))


if __name__ == "__main__":
    parser = study_parser(
        __doc__,
        data_default=f"MNIST in {FOLDER}, or else digits of scikit-learn",
        epochs_default=f"{EPOCHS} of 60,000 images, and more of fewer, up to {MOST_EPOCHS}",
        retraining_default="a trial's",
    )
    add_digit_flags(parser)
    run(parser, study)
