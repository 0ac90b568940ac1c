"""The digit study's search space, and the report's classification models as points of it.

`python -m search_spaces` writes the table in search_spaces/README.md from this file.
"""

from dl4ia.search_space import Point, Space, choice, real

CONVOLUTIONAL = {"architecture": ("convolutional",)}
FULLY_CONNECTED = {"architecture": ("fully_connected",)}
CONVOLUTIONS = {"architecture": ("convolutional", "all_convolutional")}

SPACE: Space = {
    "architecture": choice(
        "fully_connected",
        "convolutional",
        "all_convolutional",
        doc="Ex. 1.1, Ex. 1.2 to 1.5, five convolutions and global average pooling",
    ),
    "hidden_width": choice(
        64,
        128,
        256,
        doc="units of the first hidden layer; half as many follow",
        when=FULLY_CONNECTED,
    ),
    "base_width": choice(8, 14, 16, 24, doc="channels of the first convolution", when=CONVOLUTIONS),
    "head_width": choice(10, 50, 200, doc="units of the first dense layer", when=CONVOLUTIONAL),
    "pool": choice(
        "after_activation",
        "before_activation",
        "before_convolution",
        doc="where 2x2 maxima are taken (Ex. 1.3)",
        when=CONVOLUTIONAL,
    ),
    "activation": choice("relu", "leaky_relu", "tanh", "silu", doc="after each layer but the last"),
    "normalization": choice("none", "batch", doc="before each activation (dense head excepted)"),
    "dropout": real(0.0, 0.5, doc="share of units dropped after the hidden layers"),
    "initialization": choice(
        "report", "he", doc="report: 0.1 N(0, 1), biases 0.1; fully connected 0.01, 1 / units"
    ),
    "standardize": choice(True, False, doc="images minus their mean, by their standard deviation"),
    "optimizer": choice("sgd", "momentum", "adam", "adamw", doc="momentum: SGD with momentum 0.9"),
    "learning_rate": real(3e-4, 1e-1, log=True, doc="largest step size"),
    "weight_decay": real(
        1e-6,
        1e-1,
        log=True,
        doc="decoupled for `adamw`",
        when={"optimizer": ("momentum", "adamw")},
    ),
    "schedule": choice(
        "constant",
        "exponential",
        "fast_exponential",
        "cosine",
        "one_cycle",
        doc="exponential: the report's, Eq. 1; fast: as its code had it",
    ),
    "averaging": choice(
        0.0,
        0.02,
        0.1,
        doc="share of all steps that a mean of the weights goes back; 0: the last weights",
    ),
    "batch_size": choice(30, 50, 100, 200, doc="images a step"),
    "label_smoothing": real(0.0, 0.2, doc="share of the target spread over all classes"),
    "shift": choice(0.0, 0.5, 1.0, doc="strength; 1: ±10 % of the side"),
    "affine": choice(
        0.0, 0.15, 0.3, 0.45, doc="strength; 1: turn ±45°, scale ±30 %, shear ±0.2, shift ±10 %"
    ),
    "elastic": choice(0.0, 0.3, 0.6, doc="strength; 1: displacements of SD 4 % of the side"),
}

_SHARED: Point = {
    "activation": "relu",
    "normalization": "none",
    "dropout": 0.0,
    "initialization": "report",
    "standardize": False,
    "schedule": "constant",
    "averaging": 0.0,
    "label_smoothing": 0.0,
    "shift": 0.0,
    "affine": 0.0,
    "elastic": 0.0,
}
_CONVOLUTIONAL: Point = _SHARED | {
    "architecture": "convolutional",
    "base_width": 8,
    "head_width": 10,
    "pool": "after_activation",
    "optimizer": "adam",
    "learning_rate": 0.003,
    "batch_size": 100,
}
_SGD: Point = {"optimizer": "sgd", "learning_rate": 0.005}
_SCHEDULED: Point = {"schedule": "fast_exponential"}

REPORT_MODELS: dict[str, Point] = {
    "exercise_1_1": _SHARED
    | {
        "architecture": "fully_connected",
        "hidden_width": 128,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "batch_size": 30,
    },
    "exercise_1_2": _CONVOLUTIONAL | _SGD,
    "exercise_1_3": _CONVOLUTIONAL | _SGD | {"pool": "before_convolution", "learning_rate": 0.003},
    "exercise_1_4": _CONVOLUTIONAL | {"learning_rate": 0.001},
    "model_1": _CONVOLUTIONAL | {"head_width": 50, "dropout": 0.25},
    "model_2": _CONVOLUTIONAL | {"normalization": "batch"},
    "model_3": _CONVOLUTIONAL | _SCHEDULED,
    "model_4": _CONVOLUTIONAL | _SCHEDULED | {"head_width": 200, "dropout": 0.25},
}

REPORT_NOTE = (
    "The report trained its networks for 60 epochs with SGD, for 15 in Exercise 1.4 and 10 in 1.5, "
    "on all training images; here they get the epochs, and the images, of every other trial."
)

BASELINE = "exercise_1_4"

_MODERN_CNN: Point = {
    "architecture": "all_convolutional",
    "base_width": 14,
    "activation": "relu",
    "normalization": "batch",
    "dropout": 0.0,
    "initialization": "he",
    "standardize": True,
    "optimizer": "adamw",
    "learning_rate": 0.01,
    "weight_decay": 0.01,
    "schedule": "one_cycle",
    "averaging": 0.0,
    "batch_size": 100,
    "label_smoothing": 0.05,
    "shift": 0.0,
    "affine": 0.3,
    "elastic": 0.3,
}

# Where a practitioner would begin today; enqueued after the report's models. The first is no result
# of a search, and small enough for --most-weights 25000. The second is as wide as the space goes,
# its learning rate the better of two, by validation on other digits than search_strategies.py's.
REFERENCE_MODELS: dict[str, Point] = {
    "modern_cnn": _MODERN_CNN,
    "wide_cnn": _MODERN_CNN | {"base_width": 24, "learning_rate": 0.02},
}
