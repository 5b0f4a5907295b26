"""The figures of whole networks: fits, memory, exactness, agreement, instructions.

    python benchmarks/networks.py MODELS DATA [--cores] [NAME ...]

MODELS: folder with the ONNX files named below; DATA: folder with the packs. Both are third-party
and not part of this project. Prints one row a network; --cores also runs M4 and M3.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tinytrain_compiler import compile_model
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.compiled import load_compiled
from tinytrain_compiler.emulate import emulate
from tinytrain_compiler.errors import DoesNotFitError
from tinytrain_compiler.verify import verify, verify_on_data

BOARD = "stm32f746"
OTHER_CORES = {"M4": "nrf52840dk", "M3": "mps2_an385"}
INPUTS = 20


@dataclass(frozen=True)
class Network:
    file: str
    pack: str | None  # calibration data
    mean: float = 127.5
    std: float = 127.5


NETWORKS = [
    *(
        Network(f"{name}_{size}", "imagenet_check250")
        for size in (128, 96)
        for name in ("mcunet_5fps", "mobilenetv2_w035", "proxylessnas_w03")
    ),
    Network("mlperf_tiny_vww_mobilenetv1_025_96", "imagenet_check250", 0, 255),
    Network("mlperf_tiny_resnet8_cifar10", "cifar10", 0, 1),
    Network("mlperf_tiny_kws_dscnn", "kws_speechcommands_test"),
    Network("mlperf_tiny_ad01_autoencoder", None),
]


def row(network: Network, models: Path, data: Path, out: Path, cores: bool) -> list[str]:
    pack = data / f"{network.pack}.npz" if network.pack else None
    source = models / f"{network.file}.onnx"
    mean, std = (network.mean,), (network.std,)
    start = time.perf_counter()
    try:
        report = compile_model(source, BOARD, out, calibration=pack, mean=mean, std=std, name="net").report
    except DoesNotFitError as error:
        return [network.file, str(error)]
    seconds = time.perf_counter() - start
    model = load_compiled(out)
    checked = verify(model, INPUTS)
    ort = checked["onnxruntime"]
    on_m7 = emulate(model, INPUTS)
    mismatched = [checked["host"]["mismatched_bytes"], on_m7["mismatched_bytes"]]
    if cores:
        mismatched += [emulate(model, INPUTS, core_of=load_board(b))["mismatched_bytes"] for b in OTHER_CORES.values()]
    agreement = accuracy = ""
    if pack is not None:
        found = verify_on_data(model, pack, source)
        agreement, accuracy = f"{found['float_top1_agreement']:.1%}", f"{found.get('accuracy', 0):.1%}"
    sram, macs = report["memory"]["sram"], report["model"]["macs"]
    instructions = on_m7["instructions_per_inference"]
    return [
        network.file, f"{macs:,}", f"{sram['arena_bytes']:,}", f"{sram['arena_to_lower_bound']:.3f}",
        f"{on_m7['flash_bytes']:,}", f"{instructions:,}", f"{instructions / macs:.2f}",
        " ".join(str(m) for m in mismatched), f"{ort['within_one_step']:.4%}", agreement, accuracy, f"{seconds:.1f} s",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="*", help="only files whose name contains one of these")
    parser.add_argument("--cores", action="store_true", help="also run on Cortex-M4 and M3")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/networks"))
    args = parser.parse_args()
    console = Console(width=190)
    cores = " M4 M3" if args.cores else ""
    table = Table(title=f"{BOARD}, {INPUTS} inputs a core", title_justify="left")
    differ = f"bytes differ host M7{cores}"
    for column in ("network", "MACs", "arena", "/ bound", "flash", "instructions", "/ MAC", differ,
                   "ops within 1 step", "top-1 = float", "accuracy", "compile"):  # fmt: skip
        table.add_column(column, justify="left" if column == "network" else "right")
    with console.status("starting") as status:
        for network in NETWORKS:
            if not args.names or any(name in network.file for name in args.names):
                status.update(network.file)
                table.add_row(*row(network, args.models, args.data, args.output / network.file, args.cores))
    console.print(table)


if __name__ == "__main__":
    main()
