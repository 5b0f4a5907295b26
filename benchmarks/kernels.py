"""Instructions per multiply-accumulate of each kernel on an emulated Cortex-M7, against CMSIS-NN.

    python benchmarks/kernels.py [NAME ...]

NAME: only kernels whose name contains one of these.
The CMSIS-NN column was measured the same way: CMSIS-NN at -O3, GCC 12.2, exact counts on QEMU's
mps2-an500, the same shapes. Requantisation, gathering of columns and padding are counted in both.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.codegen.emit import ModelInfo
from tinytrain_compiler.graph import Graph, Node, Quantization, Tensor, verify
from tinytrain_compiler.lowering import emit, lower
from tinytrain_compiler.ops import operator_of
from tinytrain_compiler.ops.add import AddAttributes
from tinytrain_compiler.ops.conv2d import Conv2dAttributes
from tinytrain_compiler.ops.fully_connected import FullyConnectedAttributes
from tinytrain_compiler.ops.window import Window
from tinytrain_compiler.targets.firmware import build_firmware
from tinytrain_compiler.targets.harness import INFER, pack_records, run_records

BOARD = "mps2_an500"
Q = Quantization(0.05, -3)
# name, kind, input shape, output channels, kernel, stride, CMSIS-NN's instructions per MAC (per element for add)
CASES = [
    ("1x1 24x24x16->96", "conv", (24, 24, 16), 96, 1, 1, 3.92),
    ("1x1 12x12x96->24", "conv", (12, 12, 96), 24, 1, 1, 1.83),
    ("1x1 6x6x240->40", "conv", (6, 6, 240), 40, 1, 1, 1.65),
    ("1x1 12x12x24->144", "conv", (12, 12, 24), 144, 1, 1, 3.29),
    ("1x1 6x6x128->128", "conv", (6, 6, 128), 128, 1, 1, 1.80),
    ("depthwise 3x3 s1 24x24x96", "depthwise", (24, 24, 96), 96, 3, 1, 8.50),
    ("depthwise 3x3 s2 24x24x96", "depthwise", (24, 24, 96), 96, 3, 2, 8.49),
    ("depthwise 5x5 s1 6x6x240", "depthwise", (6, 6, 240), 240, 5, 1, 8.26),
    ("3x3 s2 96x96x3->16", "conv", (96, 96, 3), 16, 3, 2, 4.86),
    ("3x3 s1 8x8x64->64", "conv", (8, 8, 64), 64, 3, 1, 1.76),
    ("fully connected 256->10", "dense", (256,), 10, 1, 1, 2.12),
    ("add, 9216 elements", "add", (24, 24, 16), 16, 1, 1, 80.0),
]


def one_node(kind: str, shape: tuple[int, ...], channels: int, kernel: int, stride: int) -> Graph:
    """A network of one operator with random weights."""
    rng = np.random.default_rng(0)
    x = Tensor("x", shape, Q)
    if kind == "add":
        y = Tensor("y", shape, Quantization(0.08, 1))
        return _graph(x, y, Node("add", "add", ("x", "x"), "y", AddAttributes()))
    if kind == "dense":
        weights = rng.integers(-127, 128, (channels, shape[0]))
        y = Tensor("y", (channels,), Q)
        return _graph(
            x, y, Node("dense", "fully_connected", ("x",), "y", FullyConnectedAttributes(), _weights(weights))
        )
    pad = kernel // 2
    window = Window((kernel, kernel), (stride, stride), (1, 1), (pad, pad), (pad, pad))
    oh, ow = window.output_size(*shape[:2])
    depthwise = kind == "depthwise"
    weights = rng.integers(-127, 128, (channels, kernel, kernel, 1 if depthwise else shape[2]))
    attributes = Conv2dAttributes(window, channels if depthwise else 1)
    op = "depthwise_conv2d" if depthwise else "conv2d"
    return _graph(x, Tensor("y", (oh, ow, channels), Q), Node(op, op, ("x",), "y", attributes, _weights(weights)))


def _weights(values: np.ndarray) -> dict[str, np.ndarray]:
    fan_in = values[0].size
    return {
        "weights": values.astype(np.int8),
        "bias": np.zeros(len(values), np.int32),
        "weight_scales": np.full(len(values), 0.2 / (70 * fan_in**0.5)),
    }


def _graph(x: Tensor, y: Tensor, node: Node) -> Graph:
    graph = Graph("x", "y", "y", {"x": x, "y": y}, [node])
    verify(graph, after="building")
    return graph


def instructions(graph: Graph) -> int:
    """Executed by the kernel of a one-node network, its callees (memset and the like) included."""
    board = load_board(BOARD)
    lowered = lower(graph, board, "bench")
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        for path, text in emit(lowered, ModelInfo("bench", (), (), 1, None)).items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_text(text)
        firmware = build_firmware(directory, "bench", board, lowered.plan.region_banks, "harness", directory / "build")
        x = np.random.default_rng(1).integers(-128, 128, graph.tensors["x"].bytes, np.int8)
        ran = run_records(firmware, board, pack_records([(INFER, x.tobytes())]), directory / "run", profile=True)
        assert ran.profile is not None
        head = ("tt_prototype_classify", "tt_head_length", "tt_head_project", "tt_square_root")
        outside = ("main", "run", "bench_infer", "bench_input", "tt_infer", "tt_input", "memmove", *head)
        return sum(count for symbol, count in ran.profile.items() if symbol not in outside)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_args().names
    console = Console(width=110)
    table = Table(title="instructions per MAC on Cortex-M7 (per element for add)", title_justify="left")
    table.add_column("kernel")
    for column in ("CMSIS-NN -O3", "TinyTrain", "times fewer"):
        table.add_column(column, justify="right")
    slower = []
    with console.status("measuring"):
        for name, kind, shape, channels, kernel, stride, cmsis in CASES:
            if names and not any(wanted in name for wanted in names):
                continue
            graph = one_node(kind, shape, channels, kernel, stride)
            node = graph.nodes[0]
            work = operator_of(node).macs(node, graph.tensors) or graph.tensors["y"].bytes
            ours = instructions(graph) / work
            table.add_row(name, f"{cmsis:.2f}", f"{ours:.2f}", f"{cmsis / ours:.1f}")
            slower += [name] if ours > cmsis else []
    console.print(table)
    if slower:
        raise SystemExit(f"slower than CMSIS-NN: {', '.join(slower)}")


if __name__ == "__main__":
    main()
