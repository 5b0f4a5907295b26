"""A compiled folder stands alone: it carries its board and its graph, and its oracle where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Cli
from tinytrain_compiler import Artifacts, compile_model
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.compiled import load_compiled
from tinytrain_compiler.errors import UsageError
from tinytrain_compiler.resources import BOARDS
from tools import require_or_skip


@pytest.fixture(scope="module")
def own_board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board of one's own, with a bank that no built-in board has."""
    text = (BOARDS / "stm32f746.toml").read_text()
    path = tmp_path_factory.mktemp("boards") / "mine.toml"
    path.write_text(text.replace('name = "stm32f746"', 'name = "mine"').replace('"DTCM"', '"MYRAM"'))
    return path


@pytest.fixture(scope="module")
def own_folder(own_board: Path, small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled for it, with the board file gone since."""
    folder = tmp_path_factory.mktemp("own") / "out"
    board = shutil.copy(own_board, folder.parent / "gone.toml")
    compile_model(small_model, board, folder, classes=4)
    Path(board).unlink()
    return folder


def test_a_folder_carries_its_board(own_board: Path, own_folder: Path) -> None:
    assert load_compiled(own_folder).board == load_board(own_board)
    assert (own_folder / "board.toml").read_bytes() == own_board.read_bytes()


@pytest.mark.parametrize(
    ("command", "tools"),
    [("verify", ("cc",)), ("stack", ("arm-none-eabi-gcc",)), ("emulate", ("arm-none-eabi-gcc", "qemu-system-arm"))],
)
def test_commands_work_on_a_folder_of_ones_own_board(
    command: str, tools: tuple[str, ...], own_folder: Path, run_cli: Cli
) -> None:
    for tool in tools:
        require_or_skip(tool)
    count = () if command == "stack" else ("--inputs", "2")
    ran = run_cli("tinytrain", command, own_folder, *count, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found.get("board", "mine") == "mine"


def test_a_board_named_like_a_built_in_one_stays_ones_own(small_model: Path, tmp_path: Path) -> None:
    text = (BOARDS / "stm32f746.toml").read_text()
    (tmp_path / "b.toml").write_text(text.replace("clock_hz = 216_000_000", "clock_hz = 100_000_000"))
    compile_model(small_model, tmp_path / "b.toml", tmp_path / "out")
    board = load_compiled(tmp_path / "out").board
    assert (board.name, board.clock_hz) == ("stm32f746", 100_000_000)
    assert board != load_board("stm32f746")


def test_reading_a_folder_reads_no_onnx(compiled_small: Artifacts) -> None:
    code = (
        "import sys; from tinytrain_compiler.compiled import load_compiled; "
        f"load_compiled({str(compiled_small.directory)!r}); print([m for m in sys.modules if m.startswith('onnx')])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def forget(folder: Path, *names: str) -> None:
    """As the folder would be if these files had never been written."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in names:
        del manifest["files"][name]
        (folder / name).unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_folder_of_an_earlier_version_is_to_be_compiled_again(compiled_small: Artifacts, tmp_path: Path) -> None:
    shutil.copytree(compiled_small.directory or "", tmp_path / "out")
    forget(tmp_path / "out", "small.graph", "board.toml")
    said = r"holds no board.toml and no small.graph: an earlier version .* compile the model again"
    with pytest.raises(UsageError, match=said):
        load_compiled(tmp_path / "out")


def test_verify_without_an_oracle_holds_the_c_against_the_reference(
    compiled_small: Artifacts, tmp_path: Path, run_cli: Cli
) -> None:
    require_or_skip("cc")
    shutil.copytree(compiled_small.directory or "", tmp_path / "out")
    forget(tmp_path / "out", "small.qdq.onnx")
    ran = run_cli("tinytrain", "verify", tmp_path / "out", "--inputs", "2")
    assert ran.code == 0, ran.err
    assert "2 inputs, 0 bytes differ" in ran.out
    assert "onnxruntime" not in ran.out
