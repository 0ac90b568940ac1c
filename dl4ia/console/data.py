"""The commands `dl4ia data …`. Imports nothing heavy, as main.py."""

import shlex
from pathlib import Path

import click

from dl4ia.console.files import image_files, new_folder, tell
from dl4ia.text import plural

LARGEST_SIZE = 4096  # pixels of a side


@click.group(no_args_is_help=False)
def data() -> None:
    """Prepare images for a study."""


@data.command("prepare-glas")
@click.argument("release", metavar="ZIP_OR_DIR", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--size",
    type=click.IntRange(16, LARGEST_SIZE),
    default=128,
    show_default=True,
    metavar="PIXELS",
)
@click.option(
    "--split",
    type=click.Choice(["testA", "testB", "both"]),
    default="testA",
    show_default=True,
    help="The test images; those of testB are numbered from 61.",
)
def prepare_glas(release: Path, out: Path, size: int, split: str) -> None:
    """Make the gland study's folder OUT from the release of the GlaS contest.

    The release (train_N.bmp, testA_N.bmp, testB_N.bmp, their _anno.bmp and Grade.csv) is not
    downloaded: it is for research, and its authors, at the University of Warwick, ask people to
    agree to that. Look for "Warwick-QU dataset, GlaS challenge contest".

    Writes Train/ and Test/ with image_NN.png (red: haematoxylin, green: eosin), label_NN.png (0,
    255) and instances_NN.png (each gland's number), and patients.csv for --split-by patient. Images
    are squeezed to squares of PIXELS a side; labels lie on the same grid.
    """
    from tqdm import tqdm

    from dl4ia.data.glas_release import count_images
    from dl4ia.data.glas_release import prepare_glas as prepare

    with tqdm(total=count_images(release, split), unit="image", disable=None, leave=False) as bar:
        counts = prepare(release, out, size, split, bar.update)
    click.echo(f"{out}: {counts['Train']} training and {counts['Test']} test images")
    place = shlex.quote(str(out))
    click.echo(f"Search a network for them:  python studies/segmentation.py --data {place}")


@data.command("unmix")
@image_files
@new_folder("A new or an empty folder for the PNG files.")
@click.option(
    "--size",
    type=click.IntRange(16, LARGEST_SIZE),
    metavar="PIXELS",
    help="Squeeze them to squares of so many a side, anti-aliased.  [default: as they are]",
)
def unmix(images: tuple[Path, ...], out: Path, size: int | None) -> int:
    """Make two-stain images of IMAGEs of haematoxylin and eosin in colour, or of all in folders.

    As prepare-glas does, for images without labels: what a network that was trained on stains can
    be given by `dl4ia predict`. For one that was trained on the course's images, fields of 775 by
    522 pixels squeezed to 128, give --size 128 and fields of that magnification, not whole slides.

    Writes PNG files, red haematoxylin and green eosin, and sources.csv: which is of which file.
    Files are found and read as `dl4ia predict` finds and reads them. Images that are grey all over
    are refused, blank fields among them; the others go on, and the exit status is 1.
    """
    from dl4ia.console.unmix import unmix_images

    written, failures = unmix_images(images, out, size)
    click.echo(f"{out}: {plural(written, 'image')} of two stains")
    return tell(failures)
