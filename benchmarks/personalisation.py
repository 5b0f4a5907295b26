"""What a whole personalisation costs on an emulated core: enrol, then train, which selects; with a cache and without.

    python benchmarks/personalisation.py DIR [...] [--samples N] [--epochs N] [--copies N] [--support N] [--whole N]

DIR: a folder that tinytrain-compile wrote with a --policy that trains. Enrols and trains on DIR's own test inputs,
--samples of them for --epochs with a feature cache of --copies, counts every instruction of each pass, and compares
every byte of the training state with this machine's. From the means it computes --support samples and --whole epochs,
and, to show how good that is, what was counted. Delivering samples and copying features is the application's: not
counted.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table
from tinytrain_compiler.compiled import CompiledModel, load_compiled
from tinytrain_compiler.runtime_abi import FISHER_SAMPLES
from tinytrain_compiler.targets.emulation import emulation_banks, emulation_board
from tinytrain_compiler.targets.firmware import build_firmware
from tinytrain_compiler.targets.harness_personalisation import Personalisation, run_personalisation
from tinytrain_compiler.targets.host import HostModel
from tinytrain_compiler.targets.short_training import ShortTraining, short_training
from tinytrain_compiler.training.freeze_boundary import freeze_boundary
from tinytrain_compiler.training.heads import HEADS

COPIES = (0, 1, 4, 8)  # 0: no cache
TIMEOUT_S = 3600.0  # 50 samples, 40 epochs of MCUNet-5fps at 128 take some minutes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--samples", type=int, default=10, help="emulated")
    parser.add_argument("--epochs", type=int, default=2, help="emulated")
    parser.add_argument("--copies", type=int, default=1, help="of the emulated cache")
    parser.add_argument("--support", type=int, default=50, help="samples of the computed personalisation")
    parser.add_argument("--whole", type=int, default=40, help="epochs of it")
    args = parser.parse_args()
    console = Console(width=120, highlight=False)
    for directory in args.directories:
        model = load_compiled(directory)
        task = short_training(model.inputs(args.samples), model.report["model"]["classes"], args.epochs)
        with console.status(f"{directory}: emulating"):
            ran, differ = measure(model, task, args.copies)
        costs = Costs.of(ran)
        console.print(f"[bold]{model.name}[/], {model.report['policy']}, emulated {model.board.core}")
        console.print(counted(model, costs, task))
        console.print(f"{differ} of {len(ran.training_state):,} bytes differ from this machine's with the same cache")
        console.print(checked(model, ran, costs, task, args.copies))
        console.print(computed(model, costs, args.support, args.whole))
        if differ:
            raise SystemExit("the emulated core and this machine disagree: this is a bug")


def measure(model: CompiledModel, task: ShortTraining, copies: int) -> tuple[Personalisation, int]:
    """What ran on the core, and how many bytes of the training state differ from this machine's."""
    training, options = model.report["training"], task.options
    machine = emulation_board(model.board)
    with tempfile.TemporaryDirectory(prefix="tinytrain-personalise-") as folder:
        banks = emulation_banks(machine, model.region_banks)
        firmware = build_firmware(model.directory, model.name, machine, banks, "train", Path(folder) / "build")
        ran = run_personalisation(
            firmware, machine, task.sample, task.labels, options, HEADS[model.report["head"]],
            training["fisher_passes"] if training["selection"] else None, copies, Path(folder) / "run", TIMEOUT_S,
        )  # fmt: skip
    with HostModel(model.directory, model.layout) as host:
        host.train(task.sample, task.labels, options.epochs, options.rate, options.seed, copies)
        state = host.training_state(model.report)
    return ran, sum(a != b for a, b in zip(state, ran.training_state, strict=False))


@dataclass(frozen=True)
class Costs:
    """Mean instructions of a pass, but for the frozen layers where it runs them. fisher: 0 where nothing is chosen."""

    enroll: float
    frozen: float
    prototype: float  # before any training
    prototype_again: float
    fisher: float
    choice: int
    step: float
    spread: float  # largest distance of a step from the mean, as a share

    @classmethod
    def of(cls, ran: Personalisation) -> Costs:
        def passes(what: str) -> list[int]:
            return [p.instructions - p.frozen for p in (*ran.select, *ran.train) if p.visit.what == what]

        first, *others = passes("step")  # the first one only begins the running means
        steps = others or [first]
        prototypes, count = passes("prototype"), len(ran.enroll)
        return cls(
            fmean(ran.enroll), fmean(p.frozen for p in (*ran.select, *ran.train) if p.frozen),
            fmean(prototypes[:count]), fmean(prototypes[count:] or prototypes),
            fmean(passes("fisher") or [0]), ran.choice, fmean(steps), max(abs(n / fmean(steps) - 1) for n in steps),
        )  # fmt: skip


@dataclass(frozen=True)
class Whole:
    """Instructions of a personalisation, computed from those of its passes."""

    enroll: float
    select: float  # Fisher passes, with their frozen layers, and the choice
    frozen: float  # of training: frozen layers, where their features are not kept yet
    prototypes: float  # of training, but for the frozen layers
    steps: float

    @classmethod
    def of(cls, model: CompiledModel, costs: Costs, count: int, epochs: int, copies: int) -> Whole:
        fisher_passes = model.report["training"]["fisher_passes"]
        again = count * epochs if HEADS[model.report["head"]].recomputes else 0
        measured = min(FISHER_SAMPLES, count) if fisher_passes else 0
        if copies == 0:
            fresh_measured, fresh = measured * fisher_passes, count + again + count * epochs
        else:  # what was measured is kept for the first epoch
            fresh_measured, fresh = measured, count + count * min(copies, epochs) - measured
        return cls(
            count * costs.enroll,
            measured * fisher_passes * costs.fisher + fresh_measured * costs.frozen + costs.choice,
            fresh * costs.frozen, count * costs.prototype + again * costs.prototype_again, count * epochs * costs.step,
        )  # fmt: skip

    @property
    def train(self) -> float:
        return self.frozen + self.prototypes + self.steps

    @property
    def total(self) -> float:
        return self.enroll + self.select + self.train


def counted(model: CompiledModel, costs: Costs, task: ShortTraining) -> Table:
    title = f"counted, mean of {len(task.labels)} samples, {task.options.epochs} epochs: instructions a pass"
    table = Table(title=title, title_justify="left")
    for column in ("", "whole network", "features from the cache"):
        table.add_column(column, justify="right" if column else "left")
    passes: Sequence[tuple[str, float]] = (
        ("prototype, before any training", costs.prototype),
        (f"Fisher pass ({model.report['training']['fisher_passes']} a sample)", costs.fisher),
        (f"training step (+- {costs.spread:.1%})", costs.step),
        ("prototype, computed again", costs.prototype_again),
    )
    table.add_row("enrol", f"{costs.enroll:,.0f}", "")
    table.add_row("frozen layers", f"{costs.frozen:,.0f}", "")
    table.add_row("choice of channels, once", f"{costs.choice:,}", "")
    for name, cached in passes:
        table.add_row(name, f"{costs.frozen + cached:,.0f}" if cached else "-", f"{cached:,.0f}" if cached else "")
    return table


def checked(model: CompiledModel, ran: Personalisation, costs: Costs, task: ShortTraining, copies: int) -> str:
    expected = Whole.of(model, costs, len(task.labels), task.options.epochs, copies)
    select = sum(p.instructions for p in ran.select) + ran.choice
    train = sum(p.instructions for p in ran.train)
    total = sum(ran.enroll) + select + train + ran.rest
    return (
        f"counted in all: {total:,}, computed {expected.total:,.0f}; of this training {train:,}, computed "
        f"{expected.train:,.0f}: {train / task.steps:,.0f} a step; selection {select / total:.2%} of all"
    )


def computed(model: CompiledModel, costs: Costs, count: int, epochs: int) -> Table:
    slot = slot_bytes(model)
    table = Table(
        title=f"computed from these: {count} samples, {epochs} epochs, millions of instructions; {slot:,} bytes a slot",
        title_justify="left",
    )
    wholes = [Whole.of(model, costs, count, epochs, copies) for copies in COPIES]
    table.add_column("")
    for copies in COPIES:
        table.add_column("no cache" if not copies else f"{copies} cop{'y' if copies == 1 else 'ies'}", justify="right")
    table.add_row("slots", *("-" if not c else f"{count * (c + 1):,}" for c in COPIES))
    table.add_row("bytes of the cache", *("-" if not c else f"{count * (c + 1) * slot:,}" for c in COPIES))
    for name in ("enroll", "select", "train", "total"):
        table.add_row(name, *(f"{getattr(w, name) / 1e6:,.0f}" for w in wholes))
    table.add_row("selection, share of the total", *(f"{w.select / w.total:.2%}" for w in wholes))
    steps = count * epochs
    table.add_row("training, per step", *(f"{w.train / steps / 1e6:.2f}" for w in wholes))
    for name in ("frozen", "prototypes", "steps"):
        table.add_row(f"  {name}", *(f"{getattr(w, name) / steps / 1e6:.2f}" for w in wholes))
    return table


def slot_bytes(model: CompiledModel) -> int:
    boundary = freeze_boundary(model.graph, [layer["name"] for layer in model.report["training"]["layers"]])
    return model.graph.tensors[boundary.tensor].bytes


if __name__ == "__main__":
    main()
