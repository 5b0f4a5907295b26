"""The commands as others call them: JSON alone on stdout, progress on stderr, exit codes, quick help."""

from __future__ import annotations

import hashlib
import json
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Cli
from onnx_models import ModelBuilder
from tinytrain_compiler import Artifacts, __version__
from tinytrain_compiler.boards import list_boards
from tinytrain_compiler.output_folder import write_files
from tools import require_or_skip

COMMANDS = Path(sys.executable).parent
HEX64 = re.compile(r"[0-9a-f]{64}")


def typed(value: Any, shape: Any, where: str = "") -> None:
    """Assert that a JSON value has at least the keys of `shape`, with values of these types."""
    if isinstance(shape, dict):
        assert isinstance(value, dict), where
        for key, inner in shape.items():
            assert key in value, f"{where}.{key} is missing"
            typed(value[key], inner, f"{where}.{key}")
    elif isinstance(shape, list):
        assert isinstance(value, list), where
        assert value, f"{where} is empty"
        for i, item in enumerate(value):
            typed(item, shape[0], f"{where}[{i}]")
    else:
        allowed = shape if isinstance(shape, tuple) else (shape,)
        assert type(value) in allowed, f"{where} is {value!r}, expected {shape}"


# The contract of issue 2; keys may be added, never renamed.
REPORT = {
    "tool": {"version": str},
    "model": {"sha256": str, "macs": int, "parameters": int},
    "board": {"name": str},
    "memory": {
        "sram": {"arena_bytes": int, "lower_bound_bytes": int, "budget_bytes": int, "total_bytes": int},
        "flash": {"weights_bytes": int, "total_bytes": int, "budget_bytes": int},
    },
    "quantization": {"calibration": {"samples": int}, "top1_agreement": (float, type(None))},
    "layers": [
        {
            "name": str,
            "op": str,
            "input_shape": [int],
            "output_shape": [int],
            "macs": int,
            "weight_bytes": int,
            "kernel": (str, type(None)),
        }
    ],
}
VERIFY = {
    "host": {"inputs": int, "mismatched_bytes": int},
    "onnxruntime": {"within_one_step": float, "top1_agreement": float},
}
EMULATE = {
    "runner": str,
    "core": str,
    "inputs": int,
    "mismatched_bytes": int,
    "instructions_per_inference": int,
    "flash_bytes": int,
    "sram_bytes": int,
}


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (20, 12, 12, 3), np.uint8)
    np.savez(tmp_path / "cal.npz", images=images, labels=np.arange(20) % 5)
    return tmp_path / "cal.npz"


# -- compile -----------------------------------------------------------------------------------


def test_compile_prints_its_report_as_json(run_cli: Cli, small_model: Path, calibration: Path, tmp_path: Path) -> None:
    ran = run_cli(
        "tinytrain-compile", small_model, "--board", "stm32f746", "--calibration", calibration, "--classes", "7",
        "--name", "Net7", "-o", tmp_path / "out", "--json",
    )  # fmt: skip
    assert ran.code == 0
    report = json.loads(ran.out)
    assert (tmp_path / "out" / "report.json").read_text() == ran.out
    typed(report, REPORT)
    assert report["tool"]["version"] == __version__
    assert HEX64.fullmatch(report["model"]["sha256"])
    sram, flash = report["memory"]["sram"], report["memory"]["flash"]
    assert sram["total_bytes"] == sram["arena_bytes"] + sram["session_bytes"] + sram["static_bytes"]
    assert (sram["budget_bytes"], flash["budget_bytes"]) == (320 * 1024, 1024 * 1024)
    assert sram["lower_bound_bytes"] <= sram["arena_bytes"]
    assert report["model"]["classes"] == 7
    assert 0 <= report["quantization"]["top1_agreement"] <= 1
    calibration = {"source": "cal.npz", "array": "images", "samples": 20, "available": 20}
    assert report["quantization"]["calibration"] == calibration
    assert report["model"]["macs"] == sum(layer["macs"] for layer in report["layers"])
    assert "quantising" in ran.err, "progress"
    assert "comparing int8 with float" in ran.err
    assert (tmp_path / "out" / "Net7.c").is_file()


def test_tinytrain_compile_is_the_same_command(run_cli: Cli, small_model: Path, tmp_path: Path) -> None:
    options = (small_model, "--board", "rp2040", "--json", "-o")
    first = run_cli("tinytrain-compile", *options, tmp_path / "a")
    second = run_cli("tinytrain", "compile", *options, tmp_path / "b")
    assert first == second
    assert first.code == 0


def test_without_calibration_data_accuracy_is_called_unverified(
    run_cli: Cli, small_model: Path, tmp_path: Path
) -> None:
    ran = run_cli("tinytrain-compile", small_model, "--board", "stm32f746", "-o", tmp_path / "out")
    assert ran.code == 0
    assert "accuracy is unverified" in " ".join(ran.out.split())
    assert "comparing" not in ran.err, "nothing is compared"
    assert json.loads((tmp_path / "out" / "report.json").read_text())["quantization"]["top1_agreement"] is None


def test_output_folder_defaults_to_the_models_name(
    run_cli: Cli, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli("tinytrain-compile", small_model, "--board", "stm32f746").code == 0
    assert run_cli("tinytrain-compile", small_model, "--board", "stm32f746", "--name", "other").code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "small"]


def test_graph_is_dumped_to_stderr_after_a_pass(run_cli: Cli, small_model: Path, tmp_path: Path) -> None:
    options = (small_model, "--board", "stm32f746", "-o", tmp_path / "out", "--json", "--dump-after")
    ran = run_cli("tinytrain-compile", *options, "import")
    assert "--- after import\ninput" in ran.err
    json.loads(ran.out)
    ran = run_cli("tinytrain-compile", *options, "nonsense")
    assert (ran.code, "no such pass; choose one of all, import" in ran.err) == (2, True)


# -- verify and emulate ------------------------------------------------------------------------


def test_verify_prints_json(run_cli: Cli, compiled_small: Artifacts) -> None:
    require_or_skip("cc")
    ran = run_cli("tinytrain", "verify", str(compiled_small.directory), "--inputs", "30", "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    typed(found, VERIFY)
    assert found["host"] == {"inputs": 30, "mismatched_bytes": 0}
    assert found["onnxruntime"]["within_one_step"] >= 0.999
    assert "verifying" in ran.err


def test_verify_on_labelled_data(run_cli: Cli, compiled_small: Artifacts, small_model: Path, calibration: Path) -> None:
    require_or_skip("cc")
    ran = run_cli(
        "tinytrain", "verify", str(compiled_small.directory), "--data", calibration, "--float", small_model, "--json"
    )
    found = json.loads(ran.out)["data"]
    assert found["inputs"] == 20
    assert found["float_top1_agreement"] >= 0.5
    assert 0 <= found["accuracy"] <= 1


def test_verify_fails_where_the_c_computes_other_bytes(run_cli: Cli, compiled_small: Artifacts, tmp_path: Path) -> None:
    """A copy with one weight changed, its manifest rewritten to match."""
    require_or_skip("cc")
    files = dict(compiled_small.files)
    weights = files["small_weights.c"].decode()
    match = re.search(r" weights_of_\w+\[\d+\] WORD_ALIGNED = \{\n *(-?\d+),", weights)
    assert match
    changed = weights[: match.start(1)] + str(-int(match[1]) or 1) + weights[match.end(1) :]
    write_files(tmp_path / "out", files | {"small_weights.c": changed.encode()})
    ran = run_cli("tinytrain", "verify", tmp_path / "out")
    assert ran.code == 2
    assert "small_weights.c changed since the compile" in ran.err
    manifest = json.loads(files["manifest.json"])
    manifest["files"]["small_weights.c"]["sha256"] = hashlib.sha256(changed.encode()).hexdigest()
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    ran = run_cli("tinytrain", "verify", tmp_path / "out", "--json")
    assert ran.code == 1
    found = json.loads(ran.out)
    assert found["host"]["mismatched_bytes"] > 0
    assert (found["error"]["kind"], found["error"]["exit_code"]) == ("disagreement", 1)
    assert "bytes differ" in ran.err


def test_emulate_prints_json(run_cli: Cli, compiled_small: Artifacts) -> None:
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm", "cc")
    ran = run_cli("tinytrain", "emulate", str(compiled_small.directory), "--inputs", "3", "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    typed(found, EMULATE)
    assert (found["core"], found["runner"], found["inputs"]) == ("cortex-m7", "qemu mps2-an500", 3)
    assert found["mismatched_bytes"] == 0
    macs = compiled_small.report["model"]["macs"]
    assert macs / 2 < found["instructions_per_inference"] < 20 * macs
    assert found["flash_bytes"] > compiled_small.report["memory"]["flash"]["weights_bytes"]
    assert found["sram_bytes"] >= compiled_small.report["memory"]["sram"]["total_bytes"]


def test_emulate_profile_adds_up(run_cli: Cli, compiled_small: Artifacts) -> None:
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm", "cc")
    ran = run_cli("tinytrain", "emulate", str(compiled_small.directory), "--inputs", "2", "--profile", "--json")
    found = json.loads(ran.out)
    assert abs(sum(found["profile"].values()) - found["instructions_per_inference"]) <= len(found["profile"])
    assert any("depthwise" in symbol for symbol in found["profile"])


@pytest.mark.parametrize("command", ["verify", "emulate", "stack"])
def test_folder_that_no_compile_wrote(run_cli: Cli, tmp_path: Path, command: str) -> None:
    ran = run_cli("tinytrain", command, tmp_path / "nothing")
    assert (ran.code, ran.out) == (2, "")
    assert "no manifest.json; give the folder that tinytrain-compile -o wrote" in ran.err
    (tmp_path / "manifest.json").write_text('{"files": ')
    ran = run_cli("tinytrain", command, tmp_path)
    assert (ran.code, "cannot be read" in ran.err) == (2, True)


# -- lists, help, internal errors --------------------------------------------------------------


def test_boards_are_listed(run_cli: Cli) -> None:
    ran = run_cli("tinytrain", "boards")
    assert ran.code == 0
    assert [line.split()[0] for line in ran.out.splitlines()] == list(list_boards())
    rows = json.loads(run_cli("tinytrain", "boards", "--json").out)
    typed(rows, [{"name": str, "core": str, "dsp": bool, "fpu": str, "flash_bytes": int, "ram_bytes": int}])
    wanted = {"stm32f746", "nrf52840dk", "rp2040", "mps2_an385", "mps2_an386", "mps2_an500"}
    assert wanted <= {row["name"] for row in rows}


def test_operators_are_listed(run_cli: Cli) -> None:
    ran = run_cli("tinytrain", "ops")
    assert ran.code == 0
    rows = json.loads(run_cli("tinytrain", "ops", "--json").out)
    typed(rows, [{"op": str, "support": str}])
    # fmt: off
    wanted = {
        "Conv", "Gemm", "BatchNormalization", "Relu", "Clip", "Add", "GlobalAveragePool", "AveragePool", "MaxPool",
        "ReduceMean", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Softmax", "Identity", "Dropout",
    }
    # fmt: on
    assert wanted <= {row["op"] for row in rows}
    assert all(row["support"].strip() for row in rows)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


def test_help_answers_at_once() -> None:
    """Of its own processor time, and the least of five: what else the machine does must not count."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "compile" in run(COMMANDS / "tinytrain", "--help").stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.3


@pytest.mark.parametrize("command", ["compile", "verify", "emulate", "stack", "evaluate", "boards", "ops"])
def test_help_loads_no_heavy_package(command: str) -> None:
    code = (
        "import sys; from tinytrain_compiler.cli import main; sys.argv = ['tinytrain', sys.argv[1], '--help']; main()"
    )
    ran = run(sys.executable, "-X", "importtime", "-c", code, command)
    assert ran.returncode == 0
    loaded = {line.rsplit("|")[-1].strip().split(".")[0] for line in ran.stderr.splitlines()}
    assert not loaded & {"numpy", "onnx", "onnxruntime", "jinja2", "rich", "PIL", "elftools"}


def test_version_and_unknown_command(run_cli: Cli) -> None:
    assert __version__ in run_cli("tinytrain", "--version").out
    ran = run_cli("tinytrain", "complie")
    assert ran.code == 2
    assert "No such command" in ran.err


def test_installed_commands_keep_stdout_pure(small_model: Path, tmp_path: Path) -> None:
    """In a process of its own: libraries that write to the descriptors themselves would show."""
    ran = run(COMMANDS / "tinytrain-compile", small_model, "--board", "stm32f746", "--json", "-o", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    typed(json.loads(ran.stdout), REPORT)
    ran = run(COMMANDS / "tinytrain-compile", tmp_path / "no.onnx", "--board", "stm32f746", "--json")
    assert ran.returncode == 2
    assert json.loads(ran.stdout)["error"]["kind"] == "usage"
    assert ran.stderr.splitlines()[-1].startswith("error: ")


def test_misfit_exits_with_3_and_an_own_bug_with_1(
    run_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_model: Path
) -> None:
    b = ModelBuilder((1, 3, 256, 256))
    onnx.save(b.build(b.node("GlobalAveragePool", b.conv(b.input, 3, 16))), tmp_path / "big.onnx")
    ran = run_cli("tinytrain-compile", tmp_path / "big.onnx", "--board", "rp2040", "--json", "-o", tmp_path / "out")
    error = json.loads(ran.out)["error"]
    assert (ran.code, error["kind"], error["exit_code"]) == (3, "does_not_fit", 3)
    assert error["message"] in ran.err

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr("tinytrain_compiler.compile.read", broken)
    ran = run_cli("tinytrain-compile", small_model, "--board", "stm32f746", "-o", tmp_path / "out")
    assert ran.code == 1
    assert "internal error: boom; this is a bug of ours, please report it" in ran.err


@pytest.mark.parametrize("command", ["compile", "verify", "emulate", "stack", "evaluate"])
def test_an_error_is_a_json_document_too(run_cli: Cli, tmp_path: Path, command: str) -> None:
    """Of an option the command does not have, and of a file or folder that is not there."""
    extra = {"compile": ["--board", "stm32f746"], "evaluate": ["--pack", "no.npz"]}.get(command, [])
    for arguments in (["--nonsense"], [tmp_path / "nothing", *extra]):
        ran = run_cli("tinytrain", command, *arguments, "--json")
        error = json.loads(ran.out)["error"]
        assert (ran.code, error["kind"], error["exit_code"]) == (2, "usage", 2)
        assert " ".join(error["message"].split()) in " ".join(ran.err.split())


def test_every_node_that_cannot_be_compiled_is_in_the_json_document(run_cli: Cli, tmp_path: Path) -> None:
    b = ModelBuilder((1, 3, 8, 8))
    onnx.save(
        b.build(b.node("Hardmax", b.node("LpNormalization", b.input, name="act"), name="erf")), tmp_path / "net.onnx"
    )
    ran = run_cli("tinytrain-compile", tmp_path / "net.onnx", "--board", "rp2040", "--json")
    error = json.loads(ran.out)["error"]
    assert (ran.code, error["kind"]) == (2, "unsupported_model")
    assert [(p["op"], p["node"]) for p in error["problems"]] == [("LpNormalization", "act"), ("Hardmax", "erf")]
    typed(error["problems"], [{"node": str, "op": str, "reason": str, "fix": str}])


def test_a_bug_of_ours_is_a_json_document_too(
    run_cli: Cli, monkeypatch: pytest.MonkeyPatch, small_model: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr("tinytrain_compiler.compile.load_board", lambda name: 1 / 0)
    ran = run_cli("tinytrain-compile", small_model, "--board", "rp2040", "-o", tmp_path / "out", "--json")
    error = json.loads(ran.out)["error"]
    assert (ran.code, error["kind"], error["exit_code"]) == (1, "internal", 1)
    assert "Traceback" in ran.err


# -- Ctrl-C --------------------------------------------------------------------------------------


def interrupted_at(module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`tinytrain` in a process that gets SIGINT as it begins to import a module; a library that makes something else
    of it is no excuse."""
    code = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored where the tests run

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                raise ImportError("a library's own words") from None

sys.meta_path.insert(0, Interrupt())
from tinytrain_compiler.cli import main
main()
"""
    return run(sys.executable, "-c", code, *arguments)


@pytest.mark.parametrize(
    "module",
    ["tinytrain_compiler.errors", "click", "tinytrain_compiler.cli.verify", "tinytrain_compiler.compile", "onnx"],
)
def test_ctrl_c_while_importing_stops_without_a_traceback(module: str, small_model: Path, tmp_path: Path) -> None:
    ran = interrupted_at(module, "compile", small_model, "--board", "rp2040", "-o", tmp_path / "out")
    assert (ran.returncode, ran.stdout, ran.stderr.splitlines()[-1]) == (130, "", "stopped")
    assert "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_is_a_json_document_too() -> None:
    ran = interrupted_at("tinytrain_compiler.boards", "boards", "--json")
    assert ran.returncode == 130
    assert json.loads(ran.stdout)["error"] == {"kind": "interrupted", "message": "stopped", "exit_code": 130}


@pytest.mark.parametrize("program", [("tinytrain",), ("tinytrain", "compile"), ("tinytrain-compile",)])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_has_two_names_everywhere(run_cli: Cli, program: tuple[str, ...], option: str) -> None:
    ran = run_cli(*program, option)
    assert ran.code == 0
    assert "-h, --help" in ran.out
