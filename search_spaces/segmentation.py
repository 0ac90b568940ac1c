"""The gland study's search space, and the report's segmentation models as points of it.

`python -m search_spaces` writes the table in search_spaces/README.md from this file.
"""

from dl4ia.search_space import Point, Space, choice, integer, real

# The widest networks keep the report's depth: with more they would take minutes an epoch on a CPU.
NARROW = {"base_width": (8, 16, 24)}
WITH_WEIGHT_DECAY = {"optimizer": ("adamw", "momentum")}

SPACE: Space = {
    "architecture": choice(
        "fcn", "encoder_decoder", "unet", "resnet", doc="Table 12, Table 14, Ex. 2.3, Ex. 2.4"
    ),
    "base_width": choice(
        8, 16, 24, 32, doc="channels of the first level, doubled at each (`fcn`: up to 64)"
    ),
    "depth": integer(
        2, 5, doc="levels of resolution (`fcn`: stages in a row); 3 at width 32", when=NARROW
    ),
    "convolutions": integer(
        1,
        2,
        doc="3x3 convolutions in a row at each level; 1 at width 32",
        when={"architecture": ("encoder_decoder", "unet"), **NARROW},
    ),
    "residual": choice(
        True,
        False,
        doc="add a level's first output to its second one's",
        when={"architecture": ("resnet",)},
    ),
    "normalization": choice("none", "batch", "group", doc="after 3x3 convolutions"),
    "dropout": real(0.0, 0.5, doc="share of channels dropped after each level"),
    "initialization": choice("report", "he", doc="report: weights 0.1 N(0, 1), biases 0.1"),
    "loss": choice("cross_entropy", "cross_entropy_dice", doc="cross-entropy, or plus soft Dice"),
    "optimizer": choice("adam", "adamw", "momentum", doc="momentum: SGD with momentum 0.9"),
    "learning_rate": real(3e-4, 3e-2, log=True, doc="largest step size"),
    "weight_decay": real(1e-6, 1e-1, log=True, doc="decoupled for `adamw`", when=WITH_WEIGHT_DECAY),
    "schedule": choice(
        "constant", "exponential", "cosine", "one_cycle", doc="exponential: the report's, Eq. 1"
    ),
    "averaging": choice(
        0.0,
        0.02,
        0.1,
        doc="share of all steps that a mean of the weights goes back; 0: the last weights",
    ),
    "batch_size": choice(4, 8, 16, "full", doc="images a step; the report: all at once"),
    # Three times the images an epoch, as the report had them, in one step as ever. In mini-batches
    # that is three times the steps, and the search went for what merely trains longer: one of
    # fifty trials on WARWICK took 575 s so, where the best three took 100 to 121.
    "report_rotations": choice(
        False,
        True,
        doc="also train on the set turned by -90 and by 180 degrees",
        when={"architecture": ("fcn",), "batch_size": ("full",)},
    ),
    "augmentation": choice(
        "none", "flips_and_quarter_turns", doc="of each image anew in each epoch, with its label"
    ),
    "affine": real(0.0, 1.0, doc="strength; 1: turn ±45°, scale ±30 %, shear ±0.2, shift ±10 %"),
    # Above 0.6 it would fold images, as tests/test_augmentation.py counts.
    "elastic": real(0.0, 0.6, doc="strength; 1: displacements of SD 4 % of the image's side"),
    "stain_jitter": real(0.0, 1.0, doc="strength; 1: each stain times 1 ± 0.3, plus ± 0.1"),
}

_BASELINE: Point = {
    "architecture": "fcn",
    "base_width": 8,
    "depth": 3,
    "normalization": "none",
    "dropout": 0.0,
    "initialization": "report",
    "loss": "cross_entropy",
    "optimizer": "adam",
    "learning_rate": 0.003,
    "schedule": "constant",
    "averaging": 0.0,
    "batch_size": "full",
    "report_rotations": False,
    "augmentation": "none",
    "affine": 0.0,
    "elastic": 0.0,
    "stain_jitter": 0.0,
}
_FCN_ONLY = ("depth", "report_rotations")
_TABLE_14: Point = {name: value for name, value in _BASELINE.items() if name not in _FCN_ONLY} | {
    "architecture": "encoder_decoder",
    "base_width": 32,
}
_SCHEDULED: Point = {"schedule": "exponential"}

REPORT_MODELS: dict[str, Point] = {
    "baseline": _BASELINE,
    "model_1": _BASELINE | {"report_rotations": True},
    "model_2": _BASELINE | _SCHEDULED,
    "model_3": _BASELINE | _SCHEDULED | {"normalization": "batch"},
    "model_4": _TABLE_14,
    "model_5": _TABLE_14 | {"normalization": "batch"},
    "unet": _TABLE_14 | _SCHEDULED | {"architecture": "unet", "normalization": "batch"},
    "resnet": _TABLE_14
    | _SCHEDULED
    | {"architecture": "resnet", "residual": True, "normalization": "batch"},
}

REPORT_NOTE = (
    "The report trained its models, one step an epoch, for 100 epochs (the baseline for 150); here "
    "they get the epochs of every other trial."
)

BASELINE = "baseline"

_MODERN_UNET: Point = {
    "architecture": "unet",
    "base_width": 16,
    "depth": 5,
    "convolutions": 2,
    "normalization": "batch",
    "dropout": 0.0,
    "initialization": "he",
    "loss": "cross_entropy_dice",
    "optimizer": "adamw",
    "learning_rate": 0.003,
    "weight_decay": 0.01,
    "schedule": "one_cycle",
    "averaging": 0.0,
    "batch_size": 4,
    "augmentation": "flips_and_quarter_turns",
    "affine": 0.5,
    "elastic": 0.5,
    "stain_jitter": 0.5,
}

# Where a practitioner would begin today; enqueued after the report's models. The first is no result
# of a search. The second is half as wide again and a level less deep, which of ten changes to the
# first did most, by validation on glands drawn from another seed than the embedded ones.
REFERENCE_MODELS: dict[str, Point] = {
    "modern_unet": _MODERN_UNET,
    "wide_unet": _MODERN_UNET | {"base_width": 24, "depth": 4},
}
