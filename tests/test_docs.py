"""What the documentation says is so."""

import re
from pathlib import Path

import pytest
from conftest import ROOT
from mlflow import MlflowClient

TABLE = (ROOT / "docs" / "querying-mlflow.md").read_text(encoding="utf-8")
FILTERS = re.findall(r"^\| ([^|]+) \| `+([^|]+?)`+ \|$", TABLE, re.MULTILINE)


def test_the_table_is_found() -> None:
    assert len(FILTERS) == TABLE.count("\n| ") - 1


@pytest.mark.parametrize(("purpose", "condition"), FILTERS)
def test_every_filter_finds_what_it_says(gland_study: Path, purpose: str, condition: str) -> None:
    uri = f"sqlite:///{gland_study / 'mlruns' / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("segmentation")
    assert experiment is not None
    assert client.search_runs([experiment.experiment_id], condition), purpose


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
