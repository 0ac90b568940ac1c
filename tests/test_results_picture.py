"""The picture of `dl4ia results`: what a study's files say is what is drawn."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dl4ia.console.results_picture import draw_results
from dl4ia.report.style import ACCENT, REPORT

DPI = 130


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a study whose test set is shut, with a name in which others would see a formula."""
    (tmp_path / "study.json").write_text(json.dumps({"metric": "dice"}))
    pd.DataFrame(
        {
            "trial": [0, 1, 2, 3],
            "state": ["complete", "complete", "pruned", "interrupted"],
            "model": ["unet", "a$_$ for $5", "unet", "unet"],
            "of_the_report": [True, False, False, False],
            "value": [0.8, 0.9, None, None],
            "val_dice": [0.8, 0.9, 0.85, None],
        }
    ).to_csv(tmp_path / "trials.csv", index=False)
    return tmp_path


def drawn(folder: Path) -> np.ndarray:
    """(H, W, 3) of the picture."""
    return np.asarray(Image.open(draw_results(folder)).convert("RGB"))


def pixels(picture: np.ndarray, colour: str) -> np.ndarray:
    """(n, 2) rows and columns of this very colour."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return np.argwhere((picture == rgb).all(-1))


def test_a_search_alone_is_one_panel(folder: Path) -> None:
    picture = drawn(folder)
    assert picture.shape[:2] == (round(2.6 * DPI), 8 * DPI)
    assert len(pixels(picture, ACCENT)) and len(pixels(picture, REPORT))


@pytest.mark.filterwarnings("error")
def test_values_all_alike_have_an_axis_too(folder: Path) -> None:
    trials = pd.read_csv(folder / "trials.csv")
    trials["value"] = 1.0
    trials.to_csv(folder / "trials.csv", index=False)
    assert len(pixels(drawn(folder), ACCENT))


def test_each_file_has_a_panel_of_as_many_lines(folder: Path) -> None:
    low = drawn(folder).shape[0]
    pd.DataFrame(
        {
            "trial": [1, 0],
            "model": ["a$_$ for $5", "unet"],
            "search": [0.9, 0.8],
            "mean": [0.88, None],  # the second was given up before its first repeat
            "repeat_1": [0.88, None],
        }
    ).to_csv(folder / "finalists.csv", index=False)
    finalists = drawn(folder).shape[0]
    assert finalists - low == pytest.approx((0.9 + 0.34) * DPI, abs=2)
    pd.DataFrame(
        {
            "choice": ["dropout", "loss", "depth"],
            "winner": ["0.123456", "dice", "3"],
            "baseline": ["0.0", "cross_entropy", "2"],
            "effect": [0.01, 0.0, None],
            "failure": ["", "", "out of memory"],
        }
    ).to_csv(folder / "ablation.csv", index=False)
    ablation = drawn(folder).shape[0]
    assert ablation - finalists == pytest.approx((0.9 + 2 * 0.34) * DPI, abs=2)
    scores = {"test_dice": 0.9, "test_dice_low": 0.85, "test_dice_high": 0.95, "report_dice": 0.8}
    record = {
        "metric": "dice", "seeds": 1, "scores": scores, "winner_model": "unet",
        "report_model": "resnet",
    }  # fmt: skip
    (folder / "study.json").write_text(json.dumps(record))
    assert drawn(folder).shape[0] - ablation == pytest.approx((0.9 + 2 * 0.34) * DPI, abs=2)


def test_an_effect_stands_on_its_side_of_zero_and_a_huge_one_hides_no_other(folder: Path) -> None:
    """Effects of 0.01 and -0.01 are told apart beside one of 5 too."""

    def middle_of(effects: list[float]) -> float:
        """The column where the lowest effect is drawn, with its interval."""
        names = [f"choice {number}" for number in range(len(effects))]
        pd.DataFrame(
            {
                "choice": names,
                "winner": ["1"] * len(effects),
                "baseline": ["2"] * len(effects),
                "effect": effects,
                "low": [effect - 0.005 for effect in effects],
                "high": [effect + 0.005 for effect in effects],
            }
        ).to_csv(folder / "ablation.csv", index=False)
        picture = drawn(folder)
        below = pixels(picture, ACCENT)
        last = below[below[:, 0] > picture.shape[0] - (0.34 + 0.45) * DPI]
        return float(last[:, 1].mean())

    right, left = middle_of([0.01, 0.01, 0.01]), middle_of([0.01, 0.01, -0.01])
    assert right - left > DPI
    assert middle_of([5.0, 0.01, 0.01]) - middle_of([5.0, 0.01, -0.01]) > DPI / 2
