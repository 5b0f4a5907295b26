"""One training step on an emulated Cortex-M7: instructions, memory, and the same bytes as on this machine.

    python benchmarks/training.py DIR [--samples N] [--epochs N] [--profile]

DIR: a folder that tinytrain-compile wrote with a --policy that trains. Trains on DIR's own test inputs.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tinytrain_compiler.compiled import load_compiled
from tinytrain_compiler.targets.firmware import build_firmware
from tinytrain_compiler.targets.host import HostModel
from tinytrain_compiler.targets.qemu import emulation_banks, emulation_board
from tinytrain_compiler.targets.qemu_training import pack_training, train_on_qemu
from tinytrain_compiler.training.heads import HEADS
from tinytrain_compiler.training.trainer import TrainOptions

CLASSES = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="also print instructions per function")
    args = parser.parse_args()
    model = load_compiled(args.directory)
    machine = emulation_board(model.board)
    clean = model.inputs(args.samples).astype(int)
    noise = np.random.default_rng(0).integers(-20, 21, (args.epochs, *clean.shape))
    noisy = np.clip(clean + noise, -128, 127).astype(np.int8)
    labels = [i % CLASSES for i in range(args.samples)]
    options = TrainOptions(args.epochs)

    def sample(index: int, epoch: int) -> NDArray[np.int8]:
        return clean[index].astype(np.int8) if epoch < 0 else noisy[epoch, index]

    with tempfile.TemporaryDirectory() as folder:
        build = Path(folder)
        banks = emulation_banks(machine, model.region_banks)
        firmware = build_firmware(model.directory, model.name, machine, banks, "train", build / "build")
        data = pack_training(sample, labels, options, HEADS[model.report["training"]["head"]])
        ran = train_on_qemu(firmware, machine, data, len(noisy) * len(labels), build / "run", profile=args.profile)
    with HostModel(model.directory, model.layout) as host:
        host.train(sample, labels, options.epochs, options.rate, options.seed)
        place = next(b for b in model.report["buffers"] if b["name"] == "learnt")
        size = model.report["training"]["learnt_bytes"]
        learnt = host.region(place["region"])[place["offset"] : place["offset"] + size].tobytes()
    different = sum(a != b for a, b in zip(learnt, ran.learnt, strict=False))
    sram, training = model.report["memory"]["sram"], model.report["training"]
    print(f"{model.name}, {training['policy']}, on an emulated {machine.core}: {len(ran.instructions)} steps")
    print(f"instructions per step: {round(np.mean(ran.instructions)):,} (forward, loss, backward, update)")
    print(f"bytes learnt: {size:,}, {different} differ from this machine's")
    print(f"SRAM without stack: {sram['total_bytes']:,} bytes; stack used: {ran.stack_bytes:,}")
    for symbol, count in (ran.profile or {}).items():
        print(f"{count // len(ran.instructions):12,}  {symbol}")
    if different:
        raise SystemExit("the emulated core and this machine disagree: this is a bug")


if __name__ == "__main__":
    main()
