"""What cannot fit is refused by its shapes, before calibration; what the shapes say is never more than the truth."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import onnx
import pytest
from conftest import Cli
from onnx_models import ModelBuilder, small_cnn
from test_against_onnxruntime import NETWORKS
from tinytrain_compiler import compile_model
from tinytrain_compiler.frontends.onnx.file import load_model
from tinytrain_compiler.frontends.onnx.outline import outline


def never_more_than_needed(path: Path, report: dict[str, Any]) -> None:
    layers = outline(load_model(path).proto)
    assert layers
    assert 0 < max(layer.live_bytes for layer in layers) <= report["memory"]["sram"]["lower_bound_bytes"]
    assert 0 < sum(layer.weight_bytes for layer in layers) <= report["memory"]["flash"]["weights_bytes"]


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_outline_never_asks_for_more_than_the_compiled_model_needs(build: Any, tmp_path: Path) -> None:
    b = ModelBuilder((1, 3, 9, 14), opset=13)
    onnx.save(b.build(build(b)), tmp_path / "net.onnx")
    artifacts = compile_model(tmp_path / "net.onnx", "stm32f746")
    never_more_than_needed(tmp_path / "net.onnx", artifacts.report)
    (tmp_path / "net.qdq.onnx").write_bytes(artifacts.files["net.qdq.onnx"])
    never_more_than_needed(tmp_path / "net.qdq.onnx", artifacts.report)


def test_layers_that_nobody_reads_are_not_in_the_outline(tmp_path: Path) -> None:
    b = ModelBuilder((1, 3, 8, 8))
    b.conv(b.input, 3, 500, 1, name="dead")
    onnx.save(b.build(b.conv(b.input, 3, 4, 1, name="live")), tmp_path / "net.onnx")
    (layer,) = outline(load_model(tmp_path / "net.onnx").proto)
    assert (layer.name, layer.input_bytes, layer.output_bytes, layer.weight_bytes) == ("live", 192, 256, 12)


def test_video_frame_is_refused_at_once(run_cli: Cli, tmp_path: Path) -> None:
    """Its calibration alone took minutes."""
    b = ModelBuilder((1, 3, 1080, 1920))
    x = b.node("GlobalAveragePool", b.conv(b.input, 3, 8, 3, strides=[2, 2], name="stem"))
    onnx.save(b.build(x), tmp_path / "net.onnx")
    started = time.process_time()
    ran = run_cli("tinytrain-compile", tmp_path / "net.onnx", "--board", "stm32f746", "-o", tmp_path / "out")
    assert ran.code == 3
    assert time.process_time() - started < 2
    read, written, stack = 3 * 1080 * 1920, 8 * 539 * 959, 4096
    assert f"layer 'stem' reads {read:,} and writes {written:,}, the stack takes {stack:,}" in ran.err
    assert f"{read + written + stack - 320 * 1024:,} too many" in ran.err
    assert "reading calibration data" not in ran.err


def test_limit_of_the_user_counts_too(run_cli: Cli, tmp_path: Path) -> None:
    onnx.save(small_cnn(size=48), tmp_path / "net.onnx")
    options = ("--board", "stm32f746", "-o", tmp_path / "out", "--sram")
    ran = run_cli("tinytrain-compile", tmp_path / "net.onnx", *options, "10")
    assert (ran.code, "--sram allows 10,240" in ran.err, "reading calibration" in ran.err) == (3, True, False)
