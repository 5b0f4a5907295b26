"""Bad input: one clear message with the cause and the fix, the right exit code, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import pkgutil
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Cli, Ran
from onnx import TensorProto, helper
from onnx_models import ModelBuilder, small_cnn
from tinytrain_compiler import Artifacts, compile_model
from tinytrain_compiler.errors import UsageError
from tinytrain_compiler.output_folder import write_files
from tinytrain_compiler.resources import BOARDS

Refuse = Callable[..., Ran]


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, hidden files too."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@pytest.fixture
def refuse(run_cli: Cli, tmp_path: Path) -> Refuse:
    """Run tinytrain-compile, expect a refusal: exit code, every expected piece of text, no traces."""

    def call(model: Path, *options: str | Path, code: int = 2, says: list[str], board: str = "stm32f746") -> Ran:
        before = tree(tmp_path)
        output = [] if "-o" in options else ["-o", tmp_path / "out"]
        ran = run_cli("tinytrain-compile", model, "--board", board, *output, *options)
        assert ran.code == code, ran.err
        assert ran.out == ""
        for text in says:
            assert text in ran.err, ran.err
        assert "Traceback" not in ran.err
        assert "internal error" not in ran.err
        assert tree(tmp_path) == before, "traces were left"
        return ran

    return call


def save(proto: onnx.ModelProto, tmp_path: Path, name: str = "net.onnx") -> Path:
    onnx.save(proto, tmp_path / name)
    return tmp_path / name


# -- the file ----------------------------------------------------------------------------------


def test_missing_file(refuse: Refuse, tmp_path: Path) -> None:
    refuse(tmp_path / "nowhere.onnx", says=["nowhere.onnx does not exist"])


def test_empty_file(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    refuse(tmp_path / "net.onnx", says=["net.onnx is empty (0 bytes)", "export or download it again"])


@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_truncated_file(refuse: Refuse, tmp_path: Path, share: float) -> None:
    data = small_cnn().SerializeToString()
    (tmp_path / "net.onnx").write_bytes(data[: int(len(data) * share)])
    refuse(tmp_path / "net.onnx", says=["net.onnx", "again"])


def test_not_onnx(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_text("I am a poem, not a network.\n")
    refuse(tmp_path / "net.onnx", says=["is not an ONNX model but a text file", "export the network to ONNX"])


def test_folder_instead_of_a_file(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").mkdir()
    refuse(tmp_path / "net.onnx", says=["is a folder", "name the .onnx file"])


# -- the network -------------------------------------------------------------------------------


def test_dynamic_shape(refuse: Refuse, tmp_path: Path) -> None:
    b = ModelBuilder((1, 3, "height", 8))
    model = save(b.build(b.conv(b.input, 3, 4)), tmp_path)
    refuse(model, says=["input 'input' has a dynamic shape", "'height'", "make_dynamic_shape_fixed"])


def test_two_inputs(refuse: Refuse, tmp_path: Path) -> None:
    b = ModelBuilder((1, 3, 8, 8))
    proto = b.build(b.node("Add", b.input, "other"))
    proto.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, (1, 3, 8, 8)))
    refuse(save(proto, tmp_path), says=["has 2 inputs (input, other), exactly one is supported", "extract_model"])


def test_float64(refuse: Refuse, tmp_path: Path) -> None:
    proto = small_cnn()
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    refuse(save(proto, tmp_path), says=["input 'input' has type float64", "export the model in float32"])


def test_all_unknown_operators_are_listed_at_once(refuse: Refuse, tmp_path: Path) -> None:
    b = ModelBuilder((1, 3, 8, 8))
    x = b.node("LpNormalization", b.conv(b.input, 3, 4), name="act")
    x = b.node("Conv2D", x, name="typing_error")
    x = b.node("Hardmax", x, name="erf")
    ran = refuse(save(b.build(x), tmp_path), says=["3 nodes cannot be compiled"])
    lines = [line for line in ran.err.splitlines() if line.startswith("  ")]
    assert [line.split(":")[0].strip() for line in lines] == [
        "LpNormalization 'act'",
        "Conv2D 'typing_error'",
        "Hardmax 'erf'",
    ]
    assert all(" -> " in line for line in lines), "each with what to do"


def test_too_much_sram(refuse: Refuse, tmp_path: Path) -> None:
    """Of three tensors that live at once, no layer's two being too many."""
    b = ModelBuilder((1, 3, 64, 64))
    x = b.conv(b.input, 3, 28, 3, pads=[1, 1, 1, 1], name="wide")
    x = b.node("Add", x, b.conv(b.conv(x, 28, 28, 1), 28, 28, 1))
    model = save(b.build(b.gemm(b.node("Flatten", b.node("GlobalAveragePool", x)), 28, 4)), tmp_path)
    ran = refuse(model, code=3, says=["the model does not fit stm32f746", "SRAM: needs 34", "stm32f746 has 327,680"])
    needed = int(ran.err.split("SRAM: needs ")[1].split(" bytes")[0].replace(",", ""))
    assert needed >= 3 * 28 * 64 * 64
    assert f"{needed - 327_680:,} too many" in ran.err
    assert "Live at the worst step: conv_0_out 114,688" in ran.err
    assert "smaller input resolution" in ran.err


def test_too_much_flash(refuse: Refuse, tmp_path: Path) -> None:
    """Of weights and code together, the weights alone not being too many."""
    b = ModelBuilder((1, 1030))
    model = save(b.build(b.gemm(b.node("Relu", b.gemm(b.input, 1030, 1000)), 1000, 10)), tmp_path)
    ran = refuse(model, code=3, says=["flash: needs 1,0", "stm32f746 has 1,048,576", "fewer parameters"])
    needed = int(ran.err.split("flash: needs ")[1].split(" bytes")[0].replace(",", ""))
    assert needed > 1_048_576
    assert f"{needed - 1_048_576:,} too many" in ran.err
    assert "SRAM" not in ran.err


def test_weights_alone_are_too_much_flash(refuse: Refuse, tmp_path: Path) -> None:
    b = ModelBuilder((1, 1200))
    model = save(b.build(b.gemm(b.node("Relu", b.gemm(b.input, 1200, 1000)), 1000, 10)), tmp_path)
    says = ["flash: needs at least 1,210,000 bytes for weights, stm32f746 has 1,048,576: 161,424 too many"]
    ran = refuse(model, code=3, says=says)
    assert "calibration" not in ran.err


def test_flash_and_sram_are_reported_together(refuse: Refuse, tmp_path: Path) -> None:
    text = (BOARDS / "rp2040.toml").read_text().replace("bytes = 0x200000", "bytes = 0x1000")
    text = text.replace("count = 512", "count = 1")
    (tmp_path / "tiny.toml").write_text(text.replace("bytes = 0x40000", "bytes = 0x1400").replace("0x2000\n", "0x10\n"))
    ran_says = ["SRAM: needs", "flash: needs"]
    refuse(save(small_cnn(), tmp_path), board=str(tmp_path / "tiny.toml"), code=3, says=ran_says)


# -- options -----------------------------------------------------------------------------------


def test_unknown_board(refuse: Refuse, small_model: Path) -> None:
    refuse(
        small_model, board="stm32f764", says=["unknown board 'stm32f764'", "Did you mean stm32f746 or", "nrf52840dk"]
    )


def test_board_file_that_does_not_exist(refuse: Refuse, small_model: Path) -> None:
    refuse(small_model, board="./mine.toml", says=["cannot read the board file mine.toml"])


@pytest.mark.parametrize("option", ["--board", "--scheme", "--audio", "model.onnx", "model.tflite"])
@pytest.mark.parametrize("kind", ["device", "pipe", "large", "deep"])
def test_files_without_an_end_are_refused_at_once(
    refuse: Refuse, small_model: Path, tmp_path_factory: pytest.TempPathFactory, option: str, kind: str
) -> None:
    """Each was read until the memory was full, or for ever; values nested too deeply ended in a traceback."""
    path = tmp_path_factory.mktemp("endless") / (option if option.startswith("model") else "settings.toml")
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "large":
        path.touch()
        os.truncate(path, 1 << 33)
    else:
        path.write_text("a = " + "[" * 100_000)
    if option == "--board":
        ran = refuse(small_model, board=str(path), says=[str(path)])
    elif option.startswith("--"):
        ran = refuse(small_model, "--policy", "sparse-update", option, path, says=[str(path)])
    else:
        ran = refuse(path, says=[str(path)])
    assert ran.err.partition("error: ")[2].count("\n") == 1


@pytest.mark.parametrize(
    "name", ["2fast", "with-dash", "tt_net", "TT_net", "tt", "int", "main", "", "ä", "Tinytrain", "string"]
)
def test_bad_name(refuse: Refuse, small_model: Path, name: str) -> None:
    refuse(small_model, "--name", name, says=["--name", "mynet"])


def test_bad_mean(refuse: Refuse, small_model: Path) -> None:
    refuse(small_model, "--mean", "bright", says=["'bright' is not a number or a comma-separated list of numbers"])
    refuse(small_model, "--mean", "1,2", says=["--mean has 2 numbers, this model's input takes 1 or 3"])
    refuse(small_model, "--std", "0", says=["--std must be greater than 0"])
    refuse(small_model, "--std", "nan", says=["--std must be finite"])


@pytest.mark.parametrize("head", ["cosine", "Linear", ""])
def test_bad_head(refuse: Refuse, small_model: Path, head: str) -> None:
    refuse(small_model, "--head", head, says=[f"error: --head {head}: choose one of prototype, linear"])


def test_bad_number_of_classes(refuse: Refuse, small_model: Path) -> None:
    refuse(small_model, "--classes", "0", says=["--classes", "x>=1"])


def test_calibration_of_the_wrong_shape(refuse: Refuse, small_model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "cal.npz", features=np.zeros((4, 3, 9, 12), np.float32))
    refuse(
        small_model, "--calibration", tmp_path / "cal.npz",
        says=["cal.npz does not fit the model's input (1, 3, 12, 12)", "features float32 (4, 3, 9, 12)",
              "(N, 3, 12, 12)"],
    )  # fmt: skip


def test_calibration_that_is_missing_damaged_or_something_else(
    refuse: Refuse, small_model: Path, tmp_path: Path
) -> None:
    refuse(small_model, "--calibration", tmp_path / "no.npz", says=["no.npz does not exist"])
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 not really")
    refuse(small_model, "--calibration", tmp_path / "bad.npz", says=["bad.npz cannot be read", "numpy.savez"])
    with zipfile.ZipFile(tmp_path / "none.npz", "w"):
        pass
    refuse(small_model, "--calibration", tmp_path / "none.npz", says=["it holds no arrays"])
    (tmp_path / "folder").mkdir()
    refuse(small_model, "--calibration", tmp_path / "folder", says=["holds no images"])


def test_unknown_option_and_missing_board(run_cli: Cli, small_model: Path) -> None:
    ran = run_cli("tinytrain-compile", small_model, "--borad", "stm32f746")
    assert ran.code == 2
    assert "No such option" in ran.err
    assert "--board" in ran.err
    ran = run_cli("tinytrain-compile", small_model)
    assert (ran.code, "Missing option '--board'" in ran.err) == (2, True)


# -- the output folder -------------------------------------------------------------------------


def test_output_below_a_file(refuse: Refuse, small_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    refuse(small_model, "-o", tmp_path / "file" / "out", says=["cannot write in", "choose a folder you may write to"])


def test_output_is_a_file(refuse: Refuse, small_model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    refuse(small_model, says=["out: is a file", "give -o a folder"])


def test_output_without_permission(
    refuse: Refuse, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write everywhere, so the system's answer is replaced."""
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    refuse(small_model, says=["cannot write in", "choose a folder you may write to"])


def test_output_with_somebody_elses_files(refuse: Refuse, small_model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    refuse(small_model, says=["is not empty and was not made by tinytrain-compile", "another folder"])
    (tmp_path / "out" / "manifest.json").write_text('{"name": "a browser extension", "files": {}}')
    refuse(small_model, says=["is not empty and was not made by tinytrain-compile", "another folder"])


def test_disk_that_fails_while_writing_leaves_the_old_folder_alone(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_model(small_model, "stm32f746", tmp_path / "out")
    before = tree(tmp_path)
    original = Path.write_bytes

    def full_disk(self: Path, data: bytes) -> int:
        if self.name.endswith("_weights.c"):
            raise OSError(28, "No space left on device")
        return original(self, data)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(UsageError, match="No space left on device"):
        compile_model(small_model, "rp2040", tmp_path / "out")
    assert tree(tmp_path) == before
    with pytest.raises(UsageError, match="No space left on device"):
        compile_model(small_model, "rp2040", tmp_path / "new")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("where", ["tempfile.mkdtemp", "pathlib.Path.chmod", "pathlib.Path.replace", "shutil.rmtree"])
def test_ctrl_c_while_writing_leaves_a_whole_folder(
    compiled_small: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, exists: bool
) -> None:
    """After any step: what was asked for is there, and no temporary folder."""
    out = tmp_path / "out"
    if exists:
        write_files(out, compiled_small.files)
    original = pkgutil.resolve_name(where)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        try:
            return original(*arguments, **options)
        finally:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(where, interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        stops = contextlib.nullcontext() if exists and where.endswith("chmod") else pytest.raises(KeyboardInterrupt)
        with stops:
            write_files(out, compiled_small.files)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert {p for p, data in tree(out).items() if data is not None} == set(compiled_small.files)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"], "no temporary folder"


def test_recompiling_keeps_the_users_files_and_removes_stale_ones(compiled_small: Artifacts, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_files(out, compiled_small.files)
    (out / "my_main.c").write_text("int main(void) { return 0; }")
    (out / "firmware" / "notes.txt").write_text("mine")
    assert (out / "firmware" / "stm32f746.ld").exists()
    changed = {path: data for path, data in compiled_small.files.items() if not path.endswith("stm32f746.ld")}
    changed["firmware/rp2040.ld"] = b"new"
    write_files(out, changed)
    assert not (out / "firmware" / "stm32f746.ld").exists()
    assert (out / "firmware" / "rp2040.ld").read_bytes() == b"new"
    assert (out / "my_main.c").exists()
    assert (out / "firmware" / "notes.txt").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"], "no staging folder"


def test_manifest_cannot_make_a_recompile_delete_outside_its_folder(compiled_small: Artifacts, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_files(out, compiled_small.files)
    (tmp_path / "precious").write_text("mine")
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["files"]["../precious"] = manifest["files"][str(tmp_path / "precious")] = {"bytes": 4, "sha256": ""}
    (out / "manifest.json").write_text(json.dumps(manifest))
    write_files(out, compiled_small.files)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_policy_that_has_to_pass_an_operator_without_backward_rule_says_so(tmp_path: Path) -> None:
    """Softmax has none: the layer is named, and nothing is written."""
    from graphs import GraphBuilder
    from tinytrain_compiler.boards import load_board
    from tinytrain_compiler.errors import TinyTrainError
    from tinytrain_compiler.lowering import lower
    from tinytrain_compiler.training.scheme import Scheme, TrainedLayer

    b = GraphBuilder((8, 8, 3))
    x = b.conv2d(b.input, 4, name="first")
    graph = b.build(features=b.avg_pool(b.softmax(x, name="squeeze")))
    with pytest.raises(TinyTrainError, match=r"squeeze.*no backward rule.*choose another policy") as error:
        lower(graph, load_board("stm32f746"), "net", 3, Scheme({"first": TrainedLayer()}))
    assert error.value.exit_code == 2
