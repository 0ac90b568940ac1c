"""The commands and their flags. Imports nothing heavy: `--help` answers at once."""

import sys
from pathlib import Path
from typing import NoReturn

import click

from dl4ia.command_line.process import run_and_exit
from dl4ia.console.data import data
from dl4ia.console.files import image_files, new_folder, tell
from dl4ia.environment import tune_process
from dl4ia.errors import InputError

OUT = Path("mlruns")
MOST_LISTED = 1_000_000  # trials
TRACKING_URI = f"sqlite:///{OUT / 'mlflow.db'}"

tracking_uri = click.option(
    "--tracking-uri", metavar="URI", default=TRACKING_URI, show_default=True, help="MLflow's."
)

# Of whatever asks both tools.
written = click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default=OUT,
    show_default=True,
    help="What the studies have written.",
)
storage = click.option(
    "--storage", metavar="URL", help="Optuna's.  [default: sqlite:///OUT/optuna.db]"
)
tracking_uri_in_out = click.option(
    "--tracking-uri", metavar="URI", help="MLflow's.  [default: sqlite:///OUT/mlflow.db]"
)


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dl4ia")
def commands() -> None:
    """Look into studies, and use what they have found."""


@commands.command()
@click.argument("experiment")
@click.option(
    "--top", type=click.IntRange(1, MOST_LISTED), default=10, show_default=True, metavar="N"
)
@click.option("--study", metavar="NAME", help="Only its trials.  [default: all studies']")
@click.option(
    "--where",
    metavar="CONDITION",
    help="Only trials that fulfil it, in MLflow's language, such as \"params.architecture = "
    "'unet'\" or \"metrics.weights < 100000 AND params.normalization = 'batch'\".",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="csv and json have every hyperparameter, and the ids of the runs.",
)
@tracking_uri
def best(
    experiment: str, top: int, study: str | None, where: str | None, form: str, tracking_uri: str
) -> None:
    """List the best trials of EXPERIMENT: segmentation or classification.

    Of all studies in it, best first, by the validation metric (mean over images) at the end of
    training. Trials that were pruned or have failed have none.
    """
    import json

    from dl4ia.console.best import best_records, best_runs, best_table

    runs = best_runs(experiment, top, study, where, tracking_uri)
    if form == "csv":
        click.echo(runs.to_csv(index=False), nl=False)
    elif form == "json":
        click.echo(json.dumps(best_records(runs), indent=2))
    else:
        click.echo(best_table(runs))


@commands.command()
@image_files
@click.option(
    "--model",
    required=True,
    metavar="NAME@ALIAS",
    help="The registered model, such as segmentation-warwick@champion, or NAME/VERSION.",
)
@new_folder("Where everything is written, instead of what an earlier run wrote there.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tiles or digits that the network is given at once.  [default: 16 tiles, 256 digits]",
)
@tracking_uri
def predict(
    images: tuple[Path, ...], model: str, out: Path, batch: int | None, tracking_uri: str
) -> int:
    """Use a study's winner on IMAGEs, or on all images in and below folders.

    Glands: DIR/masks (0 and 255), DIR/overlays (the outline on the image), and in
    DIR/predictions.csv each image's number of glands (8-connected), their pixels and share of the
    area. Images larger than the network's are cut into tiles that overlap by a quarter or more,
    blended where they meet; smaller ones are continued by reflection and cut again. Nothing is
    rescaled: give images of the magnification that the network was trained on.

    Digits: DIR/predictions.csv with each image's class and the probability of every class. Images
    of another size are resized to the network's, anti-aliased, whatever their proportions.

    Images are read as the study read its own: grey, two stains (red and green, blue 0), RGB or
    RGBA (otherwise transparency is ignored), and moved by its --image-shift. Of folders PNG, JPEG,
    TIFF, BMP, GIF and WebP files are taken, but for labels beside their images, and links to
    folders are not followed. 8 bits a channel, turned as their EXIF says; of several pages the
    first is read. What cannot be read is named at the end and in predictions.csv, the others go on,
    and the exit status is 1.
    """
    tune_process()
    from dl4ia.console.predict import predict_images

    failures = predict_images(images, model, out, tracking_uri, batch)
    return tell(failures)


@commands.command()
@written
@storage
@tracking_uri_in_out
def ui(out: Path, storage: str | None, tracking_uri: str | None) -> None:
    """Open optuna-dashboard and MLflow's pages on free ports of this machine, until Ctrl-C."""
    from dl4ia.addresses import database_in
    from dl4ia.console.ui import serve

    serve(
        storage or database_in(out, "optuna.db"),
        tracking_uri or database_in(out, "mlflow.db"),
        out / "artifacts" / "optuna",
    )


@commands.command()
@click.argument("study")
@written
@storage
@tracking_uri_in_out
def sync(study: str, out: Path, storage: str | None, tracking_uri: str | None) -> None:
    """Write into MLflow what it lacks of STUDY's trials and repeats.

    After MLflow was away, or into a new database. What is there is left alone, so that it may be
    run at any time. The winner and its model are written by the study's own command.
    """
    from dl4ia.addresses import database_in
    from dl4ia.console.sync import sync_study

    click.echo(
        sync_study(
            study,
            storage or database_in(out, "optuna.db"),
            tracking_uri or database_in(out, "mlflow.db"),
            out,
        )
    )


@commands.command()
@click.argument("study")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A folder of all studies' results.  [default: OUT/results]",
)
@click.option(
    "--readme",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a table of all studies in DIR between its marks <!-- results: begin --> and "
    "<!-- results: end --> too.",
)
@written
@storage
def results(
    study: str, folder: Path | None, readme: Path | None, out: Path, storage: str | None
) -> None:
    """Write what STUDY found into DIR/STUDY, small files to keep, compare and publish.

    README.md (command, machine, commit, tables), study.json (the same for programs), and as CSV the
    trials, the finalists' repeats, the ablation and every test metric; study.png, all of it at a
    glance; the study itself as optuna.db, to look into or to go on with elsewhere. None of the
    data's images, no weights.
    """
    from dl4ia.addresses import database_in
    from dl4ia.console.results import write_results
    from dl4ia.console.results_page import summary_table
    from dl4ia.markdown import around_marks, write_between_marks

    folder = folder or out / "results"
    if readme is not None:
        around_marks(readme, "results")
    files = write_results(study, storage or database_in(out, "optuna.db"), folder)
    if readme is not None:
        write_between_marks(readme, "results", summary_table(folder))
        files.append(readme)
    click.echo("Written: " + ", ".join(map(str, files)))


commands.add_command(data)


def main() -> NoReturn:
    """The command. Exit status 2 and one line for a user's mistake, 130 after Ctrl-C or SIGTERM."""

    def work() -> None:
        try:
            status = commands(standalone_mode=False)
        except click.ClickException as error:
            raise InputError(error.format_message()) from error
        except click.Abort:
            raise KeyboardInterrupt from None
        sys.exit(status or 0)

    run_and_exit(work, stopped="Stopped.")


if __name__ == "__main__":
    main()
