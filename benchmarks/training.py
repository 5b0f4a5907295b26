"""Training steps on an emulated core: instructions, memory, and the same bytes as on this machine.

    python benchmarks/training.py DIR [--samples N] [--epochs N] [--profile]

DIR: a folder that tinytrain-compile wrote with a --policy that trains. Trains on DIR's own test inputs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tinytrain_compiler.codegen.backward_kernels import backward_kernels
from tinytrain_compiler.codegen.gradient_text import GRADIENT_TEXT
from tinytrain_compiler.compiled import CompiledModel, load_compiled
from tinytrain_compiler.emulate import emulate_training, stack_bounds_of
from tinytrain_compiler.ops import operator_of
from tinytrain_compiler.schedule import KernelStep, UpdateWeights
from tinytrain_compiler.training.formats import formats as formats_of
from tinytrain_compiler.training.options import LearningOptions
from tinytrain_compiler.training.plan import TrainingPlan, plan_training
from tinytrain_compiler.training.scheme import Scheme, TrainedLayer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="also print instructions per function, and per MAC")
    args = parser.parse_args()
    model = load_compiled(args.directory)
    found = emulate_training(model, args.samples, args.epochs, profile=args.profile)
    bound = stack_bounds_of(model, model.board)["functions"][f"{model.name}_train"]["bytes"]
    sram = model.report["memory"]["sram"]
    print(f"{model.name}, {found['policy']}, on an emulated {model.board.core}: {found['steps']} steps")
    print(f"instructions per step: {found['instructions_per_step']:,}")
    for part, what in (("forward", "forward"), ("loss", "loss"), ("backward", "backward and update")):
        print(f"  {what}: {found[f'instructions_{part}']:,}")
    state, wrong = found["training_state_bytes"], found["mismatched_bytes"]
    print(f"training state: {state:,} bytes, {wrong} differ from this machine's")
    print(f"SRAM without stack: {sram['total_bytes']:,} bytes, {_added(sram):,} of them for training")
    print(f"stack used: {found['stack_bytes']:,}, at most {bound:,} by {model.name}_train() itself")
    if args.profile:
        _print_profile(model, found["profile"])
    if found["mismatched_bytes"]:
        raise SystemExit("the emulated core and this machine disagree: this is a bug")


def backward_macs(model: CompiledModel) -> dict[str, tuple[str, int]]:
    """C function of the backward pass -> its template, multiply-accumulates a step (0 where it multiplies none).

    Empty where the device chooses the channels: their number varies, and Fisher passes run the same functions.
    """
    layers = {layer["name"]: layer for layer in model.report["training"]["layers"]}
    if any(layer["limit"] > layer["channels"] for layer in layers.values()):
        return {}
    scheme = Scheme({name: TrainedLayer(tuple(range(layer["channels"]))) for name, layer in layers.items()})
    formats = formats_of(model.report["training"]["gradients"], model.report["training"]["rounding"])
    plan = plan_training(model.graph, scheme, model.report["model"]["classes"], LearningOptions(formats=formats))
    found = backward_kernels(plan.schedule, model.name, GRADIENT_TEXT[formats.gradients.name].prototypes)
    macs = {symbol: (kernel.template, 0) for symbol, (kernel, _, _) in found.kernels.items()}
    for step, symbol in found.symbols.items():
        template, before = macs[symbol]
        macs[symbol] = template, before + _macs_of(model, plan, step)
    return macs


def _macs_of(model: CompiledModel, plan: TrainingPlan, step: KernelStep) -> int:
    """A weight gradient takes the share of the forward pass's that its selected channels have of the weights."""
    macs = operator_of(step.node).macs(step.node, model.graph.tensors)
    if isinstance(step, UpdateWeights):
        return macs * plan.layer(step.node).deltas // step.node.constants["weights"].size
    return macs


def _print_profile(model: CompiledModel, profile: dict[str, int]) -> None:
    """Instructions per function and step; for kernels of the backward pass also per MAC, and summed by template."""
    macs = backward_macs(model)
    totals: dict[str, list[int]] = {}
    for symbol, count in profile.items():
        template, work = macs.get(symbol, ("", 0))
        print(f"{count:12,}  {symbol}{_per_mac(count, work)}")
        if template:
            total = totals.setdefault(template, [0, 0])
            total[:] = [total[0] + count, total[1] + work]
    for template, (count, work) in totals.items():
        print(f"{template}: {count:,} instructions{_per_mac(count, work)}")


def _per_mac(count: int, work: int) -> str:
    return f"  {count / work:.2f} a MAC" if work else ""


def _added(sram: dict[str, int]) -> int:
    return sram["arena_bytes"] - sram["inference_arena_bytes"]


if __name__ == "__main__":
    main()
