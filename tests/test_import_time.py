"""Reading a model takes time that grows with its nodes, not with their square."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import onnx
from onnx_models import ModelBuilder
from tinytrain_compiler.frontends.onnx.canonicalize import canonicalize
from tinytrain_compiler.frontends.onnx.file import load_model
from tinytrain_compiler.frontends.onnx.support import check_supported

NODES = 1000  # of each kind, all in one network
CPU_SECONDS = 20.0  # 4 are usual; with a scan of the graph for every edit it took more than 90

LINKS: tuple[Callable[[ModelBuilder, str, int], str], ...] = (
    lambda b, x, i: b.node("Relu", x, name="same"),
    lambda b, x, i: b.node("Identity", x),
    lambda b, x, i: b.node("Mul" if i % 2 else "Add", x, b.const([[[0.999]]] * 4)),
    lambda b, x, i: b.node("Relu", x) if i % 2 else b.node("MaxPool", x, kernel_shape=[1, 1]),
)


def test_long_chains(tmp_path: Path) -> None:
    b = ModelBuilder((1, 4, 4, 4))
    x = b.conv(b.input, 4, 4, 1)
    for link in LINKS:
        for i in range(NODES):
            x = link(b, x, i)
    onnx.save(b.build(b.conv(x, 4, 4, 1)), tmp_path / "long.onnx")
    begin = time.process_time()
    proto = load_model(tmp_path / "long.onnx").proto
    check_supported(proto)
    canonicalize(proto)
    assert time.process_time() - begin < CPU_SECONDS


def test_a_ladder_of_sums(tmp_path: Path) -> None:
    """Each reads the two before it: as many ways back as there are subsets."""
    b = ModelBuilder((1, 4, 4, 4))
    x, y = b.conv(b.input, 4, 4, 1), b.conv(b.input, 4, 4, 1)
    for _ in range(60):
        x, y = b.node("Relu", b.node("Add", x, y)), x
    onnx.save(b.build(b.conv(x, 4, 4, 1)), tmp_path / "ladder.onnx")
    begin = time.process_time()
    proto = load_model(tmp_path / "ladder.onnx").proto
    check_supported(proto)
    canonicalize(proto)
    assert time.process_time() - begin < CPU_SECONDS
