"""TFLite metadata: the normalisation it states is used and replayed, its labels reach the report, damage is left."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
from tflite_cases import CASES, Case
from tflite_models import metadata
from tinytrain_compiler import compile_model
from tinytrain_compiler.frontends import describe
from tinytrain_compiler.replay import replay

LABELS = ["background", "cat", "dog", "a \x1b[31mred\x07 bird"]
BOARD = "stm32f746"


def network(folder: Path, described: bytes | None, labels: list[str] | None = None) -> Path:
    """An int8 network of 4 outputs with metadata, and a label file behind it."""
    case = Case("int8")
    output = CASES["network"](case)
    case.b.metadata = described
    archive = io.BytesIO()
    if labels is not None:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("labels.txt", "\n".join(labels) + "\n")
    path = folder / "net.tflite"
    path.write_bytes(case.b.build(output) + archive.getvalue())
    return path


def test_normalization_and_labels_are_taken_and_replayed(tmp_path: Path) -> None:
    path = network(tmp_path, metadata([127.5, 100, 90], [64, 65, 66], "labels.txt"), LABELS)
    made = compile_model(path, BOARD, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["options"]["mean"] == [127.5, 100, 90]
    assert manifest["options"]["std"] == [64, 65, 66]
    assert "--mean 127.5,100,90 --std 64,65,66" in manifest["command"]
    assert made.report["model"]["labels"] == ["background", "cat", "dog", "a \\x1b[31mred\\x07 bird"]
    assert any("taken from the file's metadata" in note for note in made.notes)
    assert replay(tmp_path / "out", path, tmp_path / "again", None).different == []


def test_what_the_user_gives_counts(tmp_path: Path) -> None:
    """At its default, too: the command says so, and the folder is made again as it was."""
    path = network(tmp_path, metadata([0], [255]))
    made = compile_model(path, BOARD, tmp_path / "out", mean=127.5, std=127.5)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["options"]["mean"] == [127.5]
    assert "--mean 127.5 --std 127.5" in manifest["command"]
    assert made.report["model"]["labels"] is None
    assert not any("metadata" in note for note in made.notes)
    assert replay(tmp_path / "out", path, tmp_path / "again", None).different == []


@pytest.mark.parametrize(
    ("mean", "std"), [([1, 2], [1]), ([0], [0]), ([float("nan")], [1]), ([0], [float("inf")]), ([], [])]
)
def test_a_normalization_that_does_not_fit_is_left_with_a_note(
    mean: list[float], std: list[float], tmp_path: Path
) -> None:
    said = describe(network(tmp_path, metadata(mean, std)))
    assert said.normalization is None
    assert "does not fit" in said.notes[0]


@pytest.mark.parametrize(
    ("labels", "says"),
    [(None, "cannot be read"), (["one", "two"], "2 names for 4 outputs"), (["x" * (1 << 21)], "1 names for 4 outputs")],
)
def test_labels_that_do_not_fit_are_left_with_a_note(labels: list[str] | None, says: str, tmp_path: Path) -> None:
    said = describe(network(tmp_path, metadata([0], [1], "labels.txt"), labels))
    assert said.labels is None
    assert said.normalization == ((0.0,), (1.0,))
    assert says in said.notes[0]


def test_long_names_are_cut(tmp_path: Path) -> None:
    said = describe(network(tmp_path, metadata([0], [1], "labels.txt"), ["a", "b", "c", "d" * 1000]))
    assert said.labels is not None
    assert len(said.labels[3]) == 64


def test_damaged_metadata_raises_nothing(tmp_path: Path) -> None:
    whole = metadata([0, 0, 0], [1, 1, 1], "labels.txt")
    for at in range(len(whole)):
        for changed in (whole[:at], whole[:at] + b"\xff" + whole[at + 1 :]):
            describe(network(tmp_path, changed, LABELS))
    assert describe(network(tmp_path, b"\0" * 16)).notes == ("the file's metadata is damaged and was not used",)
    assert describe(network(tmp_path, None)).notes == ()
