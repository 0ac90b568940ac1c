"""A winner behind MLflow's own server, asked over HTTP as docs/using-a-model.md says."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from conftest import ROOT
from mlflow import MlflowClient
from servers import serving

from dl4ia.data.gland_folder import GlandFolder

NAME = "segmentation-tiny-glands"
PAGE = (ROOT / "docs" / "using-a-model.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def server(gland_study: Path) -> Iterator[str]:
    """Its address; the command is the page's, with another port and model."""
    found = re.search(r"^    MLFLOW_TRACKING_URI=(\S+) (mlflow models serve .*)$", PAGE, re.M)
    assert found
    words = found[2].replace("segmentation-warwick", NAME).split()
    for flag in ("--host", "--port"):
        place = words.index(flag)
        del words[place : place + 2]
    with serving(gland_study, words, "/ping", None, {"MLFLOW_TRACKING_URI": found[1]}) as address:
        yield address


def test_the_pages_client_gets_a_mask(server: str, gland_study: Path) -> None:
    """Three images at once; the answer is what the model itself says of them."""
    (code,) = [part for part in re.findall(r"```python\n(.*?)```", PAGE, re.S) if "5001" in part]
    files = sorted((gland_study / "Tiny Glands" / "Test").glob("image_*.png"))[:3]
    names = {"FILES": [str(file) for file in files]}
    exec(compile(code.replace("http://127.0.0.1:5001", server), "client", "exec"), names)
    masks = np.asarray(names["masks"])
    source = GlandFolder(gland_study / "Tiny Glands", "stain", names["SHIFT"])
    np.testing.assert_allclose(np.asarray(names["images"]), source.test().images[:3], atol=1e-6)
    client = MlflowClient(f"sqlite:///{gland_study}/mlruns/mlflow.db")
    version = client.get_model_version_by_alias(NAME, "champion")
    logits = mlflow.pyfunc.load_model(version.source).predict(np.asarray(names["images"]))
    assert masks.shape == (3, 32, 32)
    np.testing.assert_array_equal(masks, logits.argmax(1))
    assert 0 < masks.mean() < 1


def test_what_is_no_image_is_refused_and_the_server_goes_on(server: str) -> None:
    for inputs in ([[1.0, 2.0]], "image.png"):
        request = urllib.request.Request(
            f"{server}/invocations",
            json.dumps({"inputs": inputs}).encode(),
            {"Content-Type": "application/json"},
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code == 400
    with urllib.request.urlopen(f"{server}/ping") as answer:
        assert answer.status == 200
