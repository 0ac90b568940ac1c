"""`dl4ia predict` against a plain loop over the images, in one run.

    python benchmarks/predict.py

Five hundred drawn gland images of 128x128 in PNG files, and the space's `modern_unet`, untrained,
from MLflow's registry. The peer is what one would write: load the model, then for each image read,
predict, save the mask, count its glands. `dl4ia predict` draws and saves overlays besides. Both
take turns; the ratio is of the medians, loading included. Takes about 2 minutes on two cores.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from flags import add_record, parser_of
from table import record

from dl4ia.environment import tune_process

IMAGES, SIDE, TURNS = 500, 128, 3
NAME = "segmentation-drawn"


def main() -> None:
    """Print the medians and their ratio."""
    parser = parser_of(__doc__)
    add_record(parser)
    arguments = parser.parse_args()
    tune_process()
    import mlflow
    import numpy as np
    from PIL import Image
    from scipy import ndimage

    from dl4ia.console.predict import predict_images
    from dl4ia.data.glands import draw_glands
    from dl4ia.metrics.objects import EIGHT_NEIGHBOURS
    from dl4ia.models.segmentation import ModelSettings, SegmentationModel
    from dl4ia.search_space import settings_of
    from dl4ia.tracking.runs import DatasetRecord, RunRecord
    from dl4ia.tracking.writing import Tracker
    from search_spaces.segmentation import REFERENCE_MODELS

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        uri = f"sqlite:///{folder}/mlflow.db"
        drawn = draw_glands("train", size=SIDE).images  # (N, 2, H, W)
        (folder / "images").mkdir()
        for number in range(IMAGES):
            pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
            pixels[..., :2] = drawn[number % len(drawn)].transpose(1, 2, 0)
            Image.fromarray(pixels).save(folder / "images" / f"image_{number:04d}.png")
        settings = settings_of(ModelSettings, REFERENCE_MODELS["modern_unet"])
        model = SegmentationModel(settings, [0.4, 0.4], [0.2, 0.2])
        tracker = Tracker(uri, "segmentation", folder / "artifacts")
        now = datetime.now()
        winner = RunRecord("winner", "winner", NAME, {}, {}, {}, {}, now, now, "FINISHED")
        profile = {"channels": "stain", "image_shift": 0.0, "classes": ["background", "gland"]}
        data = DatasetRecord("drawn", "0", "drawn", profile, "training")
        run = tracker.write(winner, data, None)
        example = drawn[:2].astype(np.float32) / 255
        tracker.register_model(run, model, example, NAME, {}, "untrained")

        def ours() -> None:
            predict_images([folder / "images"], f"{NAME}@champion", folder / "ours", uri)

        def plain() -> None:
            mlflow.set_tracking_uri(uri)
            version = mlflow.MlflowClient().get_model_version_by_alias(NAME, "champion")
            loaded = mlflow.pyfunc.load_model(version.source)
            (folder / "plain").mkdir(exist_ok=True)
            for path in sorted((folder / "images").iterdir()):
                pixels = np.asarray(Image.open(path).convert("RGB"))[..., :2]
                image = pixels.transpose(2, 0, 1)[np.newaxis].astype(np.float32) / 255
                mask = loaded.predict(image)[0].argmax(0)
                ndimage.label(mask, EIGHT_NEIGHBOURS)
                Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "plain" / path.name)

        seconds: dict[str, list[float]] = {"dl4ia predict": [], "plain loop": []}
        ways: dict[str, Callable[[], None]] = {"dl4ia predict": ours, "plain loop": plain}
        for _ in range(TURNS):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
        same = sum(
            np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(other)))
            for path, other in zip(
                sorted((folder / "ours" / "masks").iterdir()),
                sorted((folder / "plain").iterdir()),
                strict=True,
            )
        )
    for name, found in seconds.items():
        print(f"{name:<14} {IMAGES / statistics.median(found):>6.1f} images/s")
    ratio = statistics.median(seconds["plain loop"]) / statistics.median(seconds["dl4ia predict"])
    print(f"ratio {ratio:.2f}; {same} of {IMAGES} masks the same")
    if arguments.record:
        mine, plainly = [
            f"{IMAGES / statistics.median(found):.0f} images/s" for found in seconds.values()
        ]
        record("dl4ia predict, 128x128, against a plain loop", mine, plainly, f"{ratio:.1f}")


if __name__ == "__main__":
    main()
