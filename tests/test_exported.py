"""Exported programs that would run code are refused before torch sees them."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dl4ia.errors import InputError
from dl4ia.tracking.exported import check_program

Program = dict[str, Any]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network as `register_model` exports them: of any batch size."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.Upsample(scale_factor=2)
    ).eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        network, (torch.rand(2, 2, 8, 8),), dynamic_shapes={"input": {0: batch}}
    )
    file = tmp_path_factory.mktemp("exported") / "model.pt2"
    torch.export.save(program, file)
    return file


def rewrite(source: Path, target: Path, change: Callable[[Program], None]) -> Path:
    """The same archive with a changed program."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            if member.filename.endswith("models/model.json"):
                program = json.loads(content)
                change(program)
                content = json.dumps(program).encode()
            new.writestr(member.filename, content, zipfile.ZIP_STORED)
    return target


def first_node(program: Program) -> Program:
    node: Program = program["graph_module"]["graph"]["nodes"][0]
    return node


def symbolic_size(program: Program, text: str) -> None:
    """Say `text` in the first size that is a symbol."""

    def walk(part: Any) -> bool:
        if isinstance(part, dict):
            if "expr_str" in part:
                part["expr_str"] = text
                return True
            return any(walk(each) for each in part.values())
        return isinstance(part, list) and any(walk(each) for each in part)

    assert walk(program)


def test_a_networks_own_export_passes_and_computes(exported: Path) -> None:
    check_program(exported)
    assert torch.export.load(exported).module()(torch.rand(5, 2, 8, 8)).shape == (5, 4, 16, 16)


def test_torch_does_execute_the_guards_of_what_it_loads(exported: Path, tmp_path: Path) -> None:
    """Otherwise this module could go."""
    mark = tmp_path / "mark"
    code = f"__import__('pathlib').Path({str(mark)!r}).touch() is None"
    file = rewrite(exported, tmp_path / "x.pt2", lambda each: each.update(guards_code=[code]))
    with pytest.raises(InputError, match="would run code .*__import__"):
        check_program(file)
    assert not mark.exists()
    torch.export.load(file).module()(torch.rand(5, 2, 8, 8))
    assert mark.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda program: symbolic_size(program, "__import__('os').getpid()"),
        lambda program: symbolic_size(program, "(lambda: 3)()"),
        lambda program: first_node(program).update(target="torch.os.getpid"),
        lambda program: first_node(program).update(target="_operator.call"),
        lambda program: first_node(program).update(target="#foreign:x"),
    ],
)
def test_foreign_text_is_refused(
    exported: Path, tmp_path: Path, change: Callable[[Program], None]
) -> None:
    with pytest.raises(InputError, match="would run code") as refused:
        check_program(rewrite(exported, tmp_path / "x.pt2", change))
    assert "\n" not in str(refused.value)


def test_what_is_no_archive_is_refused(tmp_path: Path, exported: Path) -> None:
    (tmp_path / "text.pt2").write_text("no archive")
    shutil.copy(exported, tmp_path / "short.pt2")
    (tmp_path / "short.pt2").write_bytes(exported.read_bytes()[:2000])
    for name in ("text.pt2", "short.pt2", "missing.pt2"):
        with pytest.raises(InputError, match="is not an exported program"):
            check_program(tmp_path / name)
