"""bfloat16 against float32: seconds an epoch, and what becomes of the score, in one run.

    python benchmarks/precision.py

The named points of the gland space on the drawn glands, brought to 128x128, and of the digit space
on 6,000 images of the embedded digits' size. Both precisions take turns, so that a busy neighbour
meets both; the ratio is of the medians. The scores are of one seed each: their difference is to be
read against the spread over seeds in README.md. Takes about 3 minutes on two cores.
"""

import statistics

from flags import parser_of

from dl4ia.environment import tune_process

EPOCHS, SIDE = 6, 128
GLANDS = ("baseline", "model_5", "unet", "resnet", "modern_unet")
DIGITS = ("exercise_1_1", "exercise_1_4", "model_2", "modern_cnn")


def main() -> None:
    """Print, for each point, the medians, their ratio and both scores."""
    parser_of(__doc__).parse_args()
    tune_process()
    import torch
    import torch.nn.functional as F

    from dl4ia.data.dataset import Dataset
    from dl4ia.data.embedded import EmbeddedGlands
    from dl4ia.data.embedded_digits import EmbeddedDigits
    from dl4ia.search_space import settings_of
    from dl4ia.tasks.classification import ClassificationTask
    from dl4ia.tasks.segmentation import SegmentationTask
    from dl4ia.training.augmentation import AugmentationSettings
    from dl4ia.training.fit import TrainingSettings, fit
    from search_spaces import classification, segmentation

    def enlarged(dataset: Dataset) -> Dataset:
        labels = F.interpolate(dataset.labels[:, None].float(), (SIDE, SIDE), mode="nearest")
        images = F.interpolate(dataset.images, (SIDE, SIDE), mode="bilinear")
        return Dataset(images, labels[:, 0].long(), dataset.names)

    def compare(task, points, name: str, train: Dataset, validation: Dataset) -> None:  # type: ignore[no-untyped-def]
        seconds: dict[torch.dtype, list[float]] = {}
        trainings, scores = {}, {}
        for precision in (torch.float32, torch.bfloat16):
            torch.manual_seed(0)
            point = points[name]
            trainings[precision] = fit(
                task.build(point, train),
                train,
                validation,
                settings_of(TrainingSettings, point),
                settings_of(AugmentationSettings, point),
                task.evaluate,
                EPOCHS,
                0,
                torch.device("cpu"),
                precision,
            )
        for _ in range(EPOCHS):
            for precision, results in trainings.items():
                result = next(results)
                seconds.setdefault(precision, []).append(result["seconds"])
                scores[precision] = result[f"val_{task.metric}"]
        exact, fast = (statistics.median(values) for values in seconds.values())
        told = " and ".join(f"{value:.4f}" for value in scores.values())
        print(
            f"{name:<13} float32 {exact:6.2f} s  bfloat16 {fast:6.2f} s  "
            f"ratio {exact / fast:5.2f}  {task.metric} {told}",
            flush=True,
        )

    hardware = torch.cpu.get_capabilities()
    print(f"AVX-512 BF16: {bool(hardware.get('avx512_bf16'))}; {torch.get_num_threads()} threads")
    glands = enlarged(EmbeddedGlands().train())
    gland_points = segmentation.REPORT_MODELS | segmentation.REFERENCE_MODELS
    for name in GLANDS:
        parts = glands.subset(range(68)), glands.subset(range(68, 85))
        compare(SegmentationTask(), gland_points, name, *parts)
    digits = EmbeddedDigits().train()
    repeated = digits.subset([*range(1200)] * 5)
    digit_points = classification.REPORT_MODELS | classification.REFERENCE_MODELS
    for name in DIGITS:
        task = ClassificationTask(EmbeddedDigits.classes)
        compare(task, digit_points, name, repeated, digits.subset(range(1200, 1437)))


if __name__ == "__main__":
    main()
