"""The generated C's answers beside TensorFlow Lite's own, for the four int8 networks of MLPerf Tiny.

    python benchmarks/tflite.py MODELS DATA [--inputs N] [NAME ...]

MODELS: folder with the .tflite files named below; DATA: folder with the packs. Both are third-party and not part of
this project. Needs ai-edge-litert (the extra `tflite`). Prints one row for each network and set of TensorFlow Lite's
kernels: its reference kernels, and those that it runs by default, which round differently in places.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tinytrain_compiler import compile_model
from tinytrain_compiler.compiled import load_compiled
from tinytrain_compiler.oracle import distances
from tinytrain_compiler.quantize.calibration import load_calibration
from tinytrain_compiler.quantize.input_bytes import quantize_samples
from tinytrain_compiler.targets.host import HostModel

BOARD = "stm32f746"
Int8 = NDArray[np.int8]


@dataclass(frozen=True)
class Network:
    file: str
    pack: str | None  # real inputs; None: generated noise
    mean: float = 127.5
    std: float = 127.5


NETWORKS = (
    Network("kws_ref_model", "kws_speechcommands_test"),
    Network("pretrainedResnet_quant", "cifar10", 0, 1),
    Network("vww_96_int8", "imagenet_check250", 0, 255),
    Network("ad01_int8", None),
)
KERNELS = ("reference", "default")


def interpreter(path: Path, kernels: str) -> Any:
    """TensorFlow Lite's interpreter with these kernels, on one thread."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.BUILTIN_REF if kernels == "reference" else OpResolverType.AUTO
    found = Interpreter(str(path), experimental_op_resolver_type=resolver, num_threads=1)
    found.allocate_tensors()
    return found


def tflite_outputs(path: Path, inputs: Int8, kernels: str) -> Int8:
    """int8 (n, elements) for input bytes (n, bytes). uint8 ends count the same steps from 0 instead of -128."""
    tflite = interpreter(path, kernels)
    (source,), (result,) = tflite.get_input_details(), tflite.get_output_details()

    def answers() -> Iterator[NDArray[Any]]:
        for x in inputs:
            given = (x.astype(np.int16) + 128).astype(np.uint8) if source["dtype"] == np.uint8 else x
            tflite.set_tensor(source["index"], given.reshape(source["shape"]))
            tflite.invoke()
            yield tflite.get_tensor(result["index"]).reshape(-1).copy()

    found = np.stack(list(answers()))
    return (found.astype(np.int16) - 128).astype(np.int8) if found.dtype == np.uint8 else found


def our_outputs(folder: Path, inputs: Int8) -> Int8:
    """int8 (n, elements) of the compiled folder's C on this machine."""
    model = load_compiled(folder)
    with HostModel(model.directory, model.layout) as host:
        return np.stack([host.infer(x).output for x in inputs])


def compiled_with_inputs(network: Network, models: Path, data: Path, folder: Path, count: int) -> Int8:
    """Compile a network into `folder`; returns `count` real inputs as bytes."""
    pack = data / f"{network.pack}.npz" if network.pack else None
    mean, std = (network.mean,), (network.std,)
    compile_model(models / f"{network.file}.tflite", BOARD, folder, calibration=pack, mean=mean, std=std, name="net")
    graph = load_compiled(folder).graph
    layout = graph.sample_layout
    samples = load_calibration(pack, layout.shape, *mean, *std, limit=count).samples
    return quantize_samples(samples, graph.tensors[graph.input], layout)


def rows(network: Network, models: Path, data: Path, folder: Path, count: int) -> Iterator[list[str]]:
    inputs = compiled_with_inputs(network, models, data, folder, count)
    ours = our_outputs(folder, inputs)
    for kernels in KERNELS:
        theirs = tflite_outputs(models / f"{network.file}.tflite", inputs, kernels)
        steps = distances(ours, theirs)
        yield [
            network.file, kernels, f"{len(inputs)}", f"{ours.size:,}", f"{steps[0] / steps.sum():.3%}",
            f"{steps[:2].sum() / steps.sum():.4%}", str(int(np.flatnonzero(steps).max())),
            f"{np.mean(ours.argmax(1) == theirs.argmax(1)):.2%}",
        ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="*", help="only files whose name contains one of these")
    parser.add_argument("--inputs", type=int, default=1000, help="at most so many of a pack")
    args = parser.parse_args()
    table = Table(title="generated C against TensorFlow Lite, outputs", title_justify="left")
    for column in (
        "network",
        "kernels",
        "inputs",
        "values",
        "identical",
        "within 1 step",
        "largest",
        "top-1 agreement",
    ):
        table.add_column(column, justify="left" if column in ("network", "kernels") else "right")
    for network in NETWORKS:
        if not args.names or any(name in network.file for name in args.names):
            with tempfile.TemporaryDirectory() as folder:
                for row in rows(network, args.models, args.data, Path(folder) / "net", args.inputs):
                    table.add_row(*row)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
