"""All options that shape the output are recorded in banner and manifest, and make the same bytes again."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from tinytrain_compiler import Artifacts, compile_model
from tinytrain_compiler.errors import UsageError
from tinytrain_compiler.options import CompileOptions, compile_options
from tinytrain_compiler.resources import BOARDS
from tinytrain_compiler.training.option import options_of
from tinytrain_compiler.training.policies import POLICIES, policy_options

SCHEME = "depth = 2\n[fractions]\nexpand = 0.5\n"
CHANGED: dict[str, Any] = {  # by option, a value that is not its default
    "calibration": "cal.npz", "mean": (123.456789,), "std": (0.1, 0.2, 0.3), "name": "other", "classes": 11,
    "head": "linear", "gradients": "float32", "rounding": "stochastic", "sram": 100, "storage": "none",
    "scheme": "mine.toml", "audio": "mfcc.toml", "pool": 5, "selection": "random", "macs": 123456,
}  # fmt: skip


def banner(files: Mapping[str, bytes]) -> str:
    return next(data for path, data in files.items() if path.endswith("_weights.c")).decode().split("*/")[0]


@pytest.fixture
def inputs(tmp_path: Path, small_model: Path) -> Path:
    """A folder with all that a compile may read."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    shutil.copy(small_model, folder / "small.onnx")
    images = np.random.default_rng(0).integers(0, 256, (20, 12, 12, 3), np.uint8)
    np.savez(folder / "cal.npz", images=images)
    (folder / "scheme.toml").write_text(SCHEME)
    text = (BOARDS / "stm32f746.toml").read_text().replace('name = "stm32f746"', 'name = "mine"')
    (folder / "board.toml").write_text(text)
    return folder


# -- the record ----------------------------------------------------------------------------------


def test_every_option_has_a_changed_value_here() -> None:
    assert {option.name for option in (*options_of(CompileOptions).values(), *policy_options())} == set(CHANGED)


@pytest.mark.parametrize("name", CHANGED)
def test_every_option_is_on_the_command_line_and_is_read_back(name: str) -> None:
    policy = next((p for p, kind in POLICIES.items() if name in {o.name for o in options_of(kind).values()}), "none")
    plain, changed = (compile_options({"policy": policy} | more) for more in ({}, {name: CHANGED[name]}))
    assert name not in plain.given()
    assert changed.given()[name]
    assert changed.as_json()[name] != plain.as_json()[name]
    assert compile_options(changed.as_json()) == changed
    text = changed.given()[name]
    again = compile_options({"policy": policy, name: text.split(",") if "," in text else _number(text)})
    assert again == changed, "as the command line would read it"


def _number(text: str) -> Any:
    try:
        return float(text) if "." in text and text[0].isdigit() else int(text)
    except ValueError:
        return text


def test_options_are_a_record_or_keywords(small_model: Path) -> None:
    options = CompileOptions(classes=3, policy=POLICIES["bias"]())
    as_record = compile_model(small_model, "stm32f746", options=options)
    assert compile_model(small_model, "stm32f746", classes=3, policy="bias").files == as_record.files
    with pytest.raises(TypeError, match="not both"):
        compile_model(small_model, "stm32f746", None, options, classes=4)
    with pytest.raises(TypeError, match="no such option: colour"):
        compile_model(small_model, "stm32f746", colour="blue")
    with pytest.raises(UsageError, match="--classes 0: give at least 1"):
        compile_model(small_model, "stm32f746", classes=0)
    with pytest.raises(UsageError, match="--pool belongs to --policy tinytrain, not to bias"):
        compile_model(small_model, "stm32f746", policy="bias", pool=4)


# -- banner and manifest -------------------------------------------------------------------------


def test_two_outputs_never_have_one_banner(inputs: Path, compiled_small: Artifacts) -> None:
    """Of files of the same name with other contents, and of numbers that differ in the seventh digit."""

    def compiled(board: str | Path = "stm32f746", **options: Any) -> Artifacts:
        return compile_model(inputs / "small.onnx", board, **options)

    learning = {"policy": "sparse-update", "scheme": inputs / "scheme.toml"}
    made = [
        compiled(), compiled(mean=127.5001), compiled(calibration=inputs / "cal.npz"), compiled(**learning),
        compiled(inputs / "board.toml"),
    ]  # fmt: skip
    np.savez(inputs / "cal.npz", images=np.zeros((20, 12, 12, 3), np.uint8) + np.arange(3, dtype=np.uint8))
    (inputs / "scheme.toml").write_text(SCHEME.replace("0.5", "1.0"))
    text = (inputs / "board.toml").read_text()
    (inputs / "board.toml").write_text(text.replace("stack_bytes = 4096", "stack_bytes = 2048"))
    made += [compiled(calibration=inputs / "cal.npz"), compiled(**learning), compiled(inputs / "board.toml")]
    assert len({banner(a.files) for a in made}) == len(made)
    assert len({json.dumps(json.loads(a.files["manifest.json"])["options"]) for a in made}) == len(made) - 2, "boards"
    assert banner(compiled().files) == banner(made[0].files)


def test_banner_holds_no_path_and_stays_narrow(inputs: Path) -> None:
    made = compile_model(
        inputs / "small.onnx", inputs / "board.toml", calibration=inputs / "cal.npz",
        mean=(123.6751234, 116.281234, 103.531234), std=(58.3951234, 57.121234, 57.3751234),
        policy="sparse-update", scheme=inputs / "scheme.toml", classes=200,
    )  # fmt: skip
    text = banner(made.files)
    assert "/" not in text.replace("/*", "")
    assert max(map(len, text.splitlines())) <= 120
    for name in ("small.onnx", "board.toml", "cal.npz", "scheme.toml"):
        assert f"  {name}\n" in text, "with its digest"
    assert "--board board.toml --calibration cal.npz --mean 123.6751234,116.281234,103.531234" in text


# -- replay --------------------------------------------------------------------------------------


@pytest.fixture
def everything(inputs: Path, tmp_path: Path) -> Path:
    """A folder compiled with as many options as go together."""
    compile_model(
        inputs / "small.onnx", inputs / "board.toml", tmp_path / "first", calibration=inputs / "cal.npz",
        mean=(120, 121.5, 119), std=60.1, name="Net", classes=7, policy="tinytrain", scheme=inputs / "scheme.toml",
        pool=4, selection="layer-score", macs=100000, head="linear", rounding="stochastic", sram=60, storage="none",
    )  # fmt: skip
    return tmp_path / "first"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_replay_makes_the_same_bytes(run_cli: Cli, inputs: Path, everything: Path, tmp_path: Path) -> None:
    (inputs / "scheme.toml").unlink()
    (inputs / "board.toml").unlink()
    options = ("--replay", everything, "--calibration", inputs / "cal.npz", "-o", tmp_path / "again")
    ran = run_cli("tinytrain", "compile", inputs / "small.onnx", *options)
    assert ran.code == 0, ran.err
    assert contents(tmp_path / "again") == contents(everything)
    assert f"replayed: all {len(contents(everything)) - 1} files are as in {everything}" in ran.err


def test_recorded_command_makes_the_same_bytes(
    run_cli: Cli, inputs: Path, everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = shlex.split(json.loads((everything / "manifest.json").read_text())["command"])
    monkeypatch.chdir(inputs)
    assert run_cli(*command, "-o", tmp_path / "again").code == 0
    assert contents(tmp_path / "again") == contents(everything)


def test_replay_refuses_what_did_not_go_into_the_folder(
    run_cli: Cli, inputs: Path, everything: Path, tmp_path: Path
) -> None:
    out = tmp_path / "again"

    def refused(*arguments: str | Path) -> str:
        ran = run_cli("tinytrain", "compile", *arguments, "--replay", everything, "-o", out)
        assert ran.code == 2
        assert not out.exists()
        return ran.err

    model, data = inputs / "small.onnx", ("--calibration", inputs / "cal.npz")
    assert "was calibrated on cal.npz; give it with --calibration" in refused(model)
    assert "--replay takes --classes from" in refused(model, *data, "--classes", "7")
    assert "--replay takes --board from" in refused(model, *data, "--board", "rp2040")
    shutil.copy(model, inputs / "renamed.onnx")
    assert "was made from small.onnx, not renamed.onnx" in refused(inputs / "renamed.onnx", *data)
    np.savez(inputs / "cal.npz", images=np.zeros((20, 12, 12, 3), np.uint8))
    assert "this cal.npz is not the calibration that" in refused(model, *data)
    ran = run_cli("tinytrain", "compile", model, "--replay", tmp_path / "nothing")
    assert (ran.code, "no manifest.json; give --replay the folder" in ran.err) == (2, True)


def test_replay_by_another_version_says_what_differs(
    run_cli: Cli, small_model: Path, compiled_small: Artifacts, tmp_path: Path
) -> None:
    assert compiled_small.directory is not None
    shutil.copytree(compiled_small.directory, tmp_path / "first")
    manifest = json.loads((tmp_path / "first" / "manifest.json").read_text())
    manifest["files"]["small.c"]["sha256"] = "0" * 64
    manifest["tool"]["version"] = "0.0.9"
    (tmp_path / "first" / "manifest.json").write_text(json.dumps(manifest))
    ran = run_cli("tinytrain", "compile", small_model, "--replay", tmp_path / "first", "-o", tmp_path / "again")
    assert ran.code == 0
    assert "replayed: 1 of" in ran.err
    assert "(small.c), which was made by tinytrain-compiler 0.0.9, numpy" in ran.err
