"""The report's tables as data: which points it trained, for how long, and what it found.

The figures are the report's own (tables 2 to 16 and exercises 2.1 to 2.4); read by
studies/replicate.py.
"""

from dataclasses import replace
from typing import Any

from dl4ia.replication.figures import Figure
from dl4ia.replication.run import Illustrations
from dl4ia.replication.tables import Row, Table
from dl4ia.replication.trainings import Scored, Training
from search_spaces.classification import REPORT_MODELS as DIGITS
from search_spaces.segmentation import REPORT_MODELS as GLANDS

ACCURACY = {"scored_accuracy": "accuracy"}
DICE = {"scored_dice_pooled": "Dice, pooled", "scored_dice": "Dice, mean over images"}
BOUNDARY = {
    "surface_dice_1px": "surface Dice, 1 px",
    "surface_dice_2px": "surface Dice, 2 px",
    "hausdorff_95": "Hausdorff 95 %",
}
BASELINE_EPOCHS, GLAND_EPOCHS = 150, 100


def _digits(name: str, point: dict[str, Any], epochs: int, **further: Any) -> Training:
    return Training(name, "classification", point, epochs, **further)


def _glands(
    model: str, epochs: int = GLAND_EPOCHS, scored_on: Scored = "test", turned: bool = False
) -> Training:
    name = "-".join([model, *[scored_on] * (scored_on != "test"), *["turned"] * turned])
    return Training(name, "segmentation", GLANDS[model], epochs, scored_on, turned)


FULLY_CONNECTED = _digits("fully_connected", DIGITS["exercise_1_1"], 60)
HOME_COOKED = _digits("home_cooked", DIGITS["exercise_1_1"], 60, engine="numpy")
CNN = _digits("cnn", DIGITS["exercise_1_2"], 60)
SWAPPED = _digits("cnn_swapped", DIGITS["exercise_1_2"] | {"pool": "before_activation"}, 60)
AS_CODED = _digits("cnn_pool_first", DIGITS["exercise_1_3"], 60)
ADAM = _digits("cnn_adam", DIGITS["exercise_1_4"], 15)
IMPROVED = [_digits(f"digit_{name}", DIGITS[name], 10) for name in DIGITS if "model" in name]

PLAIN_RESNET = replace(
    _glands("resnet"), name="resnet-plain", point=GLANDS["resnet"] | {"residual": False}
)


def _as_coded(training: Training) -> Training:
    """With the loss of the report's code."""
    return replace(training, name=f"{training.name}-as_coded", loss_as_coded=True)


_MODELS = [f"model_{number}" for number in range(1, 6)]
_VALIDATION = dict(zip(_MODELS, (0.73, 0.77, 0.84, 0.66, 0.94), strict=True))


def _validated(models: list[str]) -> list[Row]:
    """Each model's validation Dice with and without the report's leak, and its test Dice."""
    rows = []
    for model in models:
        report = {"scored_dice_pooled": _VALIDATION[model]}
        leaky = _glands(model, scored_on="leaky_validation")
        rows.append(Row(f"{model}, validation, turned and then split", leaky, report))
        right = _glands(model, scored_on="validation", turned=True)
        rows.append(Row(f"{model}, validation, split and then turned", right, {}))
        test = {"scored_dice_pooled": 0.82} if model == "model_5" else {}
        rows.append(Row(f"{model}, test", _glands(model), test))
    return rows


def _scored_as_coded() -> list[Row]:
    """With the loss of the report's code, and on the images that it scores."""
    four, five = (_glands(model, scored_on="training") for model in ("model_4", "model_5"))
    test, baseline = _glands("model_5"), _glands("baseline", BASELINE_EPOCHS)
    return [
        Row(label, training, {"scored_dice_pooled": dice})
        for label, training, dice in (
            ("model_5, on its training images, with cross-entropy", five, 0.94),
            ("model_5, on its training images", _as_coded(five), 0.94),
            ("model_5, test", _as_coded(test), 0.82),
            ("model_4, on its training images", _as_coded(four), 0.66),
            ("baseline, test", _as_coded(baseline), 0.76),
        )
    ]


TABLES = [
    Table(
        "table-2",
        "Table 2: the network in NumPy and in PyTorch (digits, SGD)",
        [
            Row('"HomeCooked NN"', HOME_COOKED, {"scored_accuracy": 0.9726, "seconds": 289}),
            Row("PyTorch", FULLY_CONNECTED, {"scored_accuracy": 0.9722, "seconds": 22.28}),
        ],
        ACCURACY,
        "Both ways come out alike, here as in the report; here both are a little higher, by three "
        "to four standard deviations, for which no reason was found (the report's are of one run "
        "each). Of a network so small, in batches of 30, PyTorch's time on a processor is what "
        "its calls cost, not its arithmetic.",
    ),
    Table(
        "table-4",
        "Table 4: accuracy against weights (digits, SGD)",
        [
            Row("fully connected", FULLY_CONNECTED, {"scored_accuracy": 0.9722}),
            Row("CNN", CNN, {"scored_accuracy": 0.9855}),
        ],
        ACCURACY,
        "The caption of the report's Figure 2 says 98.35 % of this very CNN, which is within one "
        "standard deviation of ours; the 98.55 % of Table 4 is further from ours than its seeds "
        "explain. Both are of one run. "
        "Our fully connected network is a little better than the report's.",
    ),
    Table(
        "table-5",
        "Table 5: swapped layers (digits, SGD)",
        [
            Row("pool after activation", CNN, {"scored_accuracy": 0.9855, "seconds": 202}),
            Row("pool before activation (the sheet)", SWAPPED, {}),
            Row(
                "pool before convolution (the report's code)",
                AS_CODED,
                {"scored_accuracy": 0.9687, "seconds": 135},
            ),
        ],
        ACCURACY,
        "The first line is Table 4's CNN. Maximum and ReLU commute, so that the swap which the "
        "sheet asks for cannot change the function. The report's code pooled before the "
        "convolution, which is another network, with a smaller step size (0.003): that is where "
        "its 96.87 % comes from.",
    ),
    Table(
        "table-7",
        "Table 7: SGD against Adam (digits)",
        [
            Row("SGD", CNN, {"scored_accuracy": 0.9855, "seconds": 202}),
            Row("Adam", ADAM, {"scored_accuracy": 0.9869, "seconds": 73}),
        ],
        ACCURACY,
        "Here too Adam needs a quarter of the epochs, and ends a little higher. (SGD's line is "
        "Table 4's CNN.)",
    ),
    Table(
        "tables-8-11",
        "Tables 8 to 11: models 1 to 4 (digits, Adam)",
        [
            Row(label, training, {"scored_accuracy": accuracy})
            for label, training, accuracy in zip(
                (
                    "model 1: 50 units, dropout",
                    "model 2: batch normalization",
                    "model 3: schedule",
                    "model 4: 200 units, dropout, schedule",
                ),
                IMPROVED,
                (0.988, 0.9889, 0.9904, 0.9911),
                strict=True,
            )
        ],
        ACCURACY,
        "The report's four are within two standard deviations of ours.",
    ),
    Table(
        "exercise-2-1",
        "Exercise 2.1: the baseline (glands)",
        [Row("baseline, test", _glands("baseline", BASELINE_EPOCHS), {"scored_dice_pooled": 0.76})],
        DICE,
        "Ours is higher by three standard deviations. The report's code does not train with the "
        "loss that the report names (`report_code_loss` in dl4ia/training/losses.py is it); with "
        "it ours ends as high (the table *as coded*), so that this is not the reason.",
    ),
    Table(
        "table-15",
        "Table 15: models 1 to 3 (glands)",
        _validated(_MODELS[:3]),
        DICE,
        "The report's code turned copies of all images before it split them, so that copies of its "
        "validation images were trained on: the leak is the difference between the first two lines "
        "of a model. In networks so small it is no more than the seeds' own spread, and three "
        "splits of 17 images differ more than it. Both ways models 1 and 2 do better than the "
        "report's. On the test images models 2 and 3 are trained without turned copies.",
    ),
    Table(
        "table-16",
        "Table 16: models 4 and 5 (glands)",
        _validated(_MODELS[3:]),
        DICE,
        "Here too the leak is the difference between the first two lines of a model, and is not "
        "seen beside the seeds' spread. So it does not explain the report's 0.94 either, which "
        "ours falls short of by three standard deviations; of the pixels that it is trained on "
        "ours has 0.89 to 0.95 right. (The leaky line is scored on turned copies too.) What does "
        "explain it is the table after this one. On the test images both are trained without "
        "turned copies; model 5 ends as the report's did, model 4, of which the report has no test "
        "score, a little lower.",
    ),
    Table(
        "as-coded",
        "Tables 14 to 16, as the report's code trains and scores them (glands)",
        _scored_as_coded(),
        DICE,
        "In the public version of the report's code the images that it validates on are a copy of "
        "those that it trains on. Scored so, model 5 has the report's 0.94 within its seeds' "
        "spread, whichever the loss. The loss of that code is not the cross-entropy that the "
        "report names. On test images model 5 and the baseline end with it as they do without. "
        "Model 4, which has no batch normalization, hardly learns with it: three seeds end "
        "anywhere from 0.0 to 0.5, and the report's 0.66, of one, was lower than the smaller "
        "models' too.",
    ),
    Table(
        "exercise-2-3",
        "Exercises 2.3 and 2.4: skip and residual connections, on test images (glands)",
        [
            Row("encoder-decoder (model 5)", _glands("model_5"), {"scored_dice_pooled": 0.82}),
            Row("U-Net", _glands("unet"), {"scored_dice_pooled": 0.83}),
            Row("ResNet", _glands("resnet"), {"scored_dice_pooled": 0.84}),
            Row(
                "ResNet without residual connections",
                PLAIN_RESNET,
                {},
            ),
        ],
        DICE | BOUNDARY,
        "At the boundary the U-Net is a little better than the encoder-decoder within one pixel, "
        "hardly within two, and not by the Hausdorff distance. The ResNet is better than both "
        "within one and two pixels, with twice the weights, where the report sees worse "
        "boundaries than the U-Net's. What its residual connections add at the end is about one "
        "standard deviation (Figure 19 of the replication's page has the epochs before).",
    ),
]

ILLUSTRATIONS = Illustrations(
    histories=[
        Figure("Figure 1: fully connected", {"": "fully_connected"}, "accuracy"),
        Figure("Figure 2: CNN", {"": "cnn"}, "accuracy"),
        Figure(
            "Figure 3: swapped layers",
            {"before the activation": "cnn_swapped", "before the convolution": "cnn_pool_first"},
            "accuracy",
        ),
        Figure("Figure 4: Adam", {"": "cnn_adam"}, "accuracy"),
        Figure("Figure 5: model 4", {"": "digit_model_4"}, "accuracy"),
        Figure("Figure 13b: U-Net", {"": "unet"}, "dice_pooled"),
        Figure("Figure 16b: ResNet", {"": "resnet"}, "dice_pooled"),
        Figure(
            "Figure 19: with and without residual connections",
            {"with": "resnet", "without": "resnet-plain"},
            "dice_pooled",
        ),
    ],
    confusion=IMPROVED[-1],
    segmentations={
        "baseline": _glands("baseline", BASELINE_EPOCHS),
        "model 5": _glands("model_5"),
        "U-Net": _glands("unet"),
        "ResNet": _glands("resnet"),
    },
)
