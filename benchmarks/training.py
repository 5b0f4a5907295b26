"""Training steps on an emulated core: instructions, memory, and the same bytes as on this machine.

    python benchmarks/training.py DIR [--samples N] [--epochs N] [--profile]

DIR: a folder that tinytrain-compile wrote with a --policy that trains. Trains on DIR's own test inputs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tinytrain_compiler.compiled import load_compiled
from tinytrain_compiler.emulate import emulate_training, stack_bounds_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="also print instructions per function")
    args = parser.parse_args()
    model = load_compiled(args.directory)
    found = emulate_training(model, args.samples, args.epochs, profile=args.profile)
    bound = stack_bounds_of(model, model.board)["functions"][f"{model.name}_train"]["bytes"]
    sram = model.report["memory"]["sram"]
    print(f"{model.name}, {found['policy']}, on an emulated {model.board.core}: {found['steps']} steps")
    print(f"instructions per step: {found['instructions_per_step']:,}")
    for part, what in (("forward", "forward"), ("loss", "loss"), ("backward", "backward and update")):
        print(f"  {what}: {found[f'instructions_{part}']:,}")
    print(f"bytes learnt: {found['learnt_bytes']:,}, {found['mismatched_bytes']} differ from this machine's")
    print(f"SRAM without stack: {sram['total_bytes']:,} bytes, {_added(sram):,} of them for training")
    print(f"stack used: {found['stack_bytes']:,}, at most {bound:,} by {model.name}_train() itself")
    for symbol, count in found.get("profile", {}).items():
        print(f"{count:12,}  {symbol}")
    if found["mismatched_bytes"]:
        raise SystemExit("the emulated core and this machine disagree: this is a bug")


def _added(sram: dict[str, int]) -> int:
    return sram["arena_bytes"] - sram["inference_arena_bytes"]


if __name__ == "__main__":
    main()
