"""Ten handwritten digits, trained on five examples each, on an emulated Cortex-M7: before and after training.

    make demo

The example backbone was trained on photographs and never saw a digit. The digits are scikit-learn's
real ones (UCI "Optical Recognition of Handwritten Digits", 8x8 grey), enlarged to the 64x64 pixels
the network takes. Everything after that happens in the firmware. First prototypes alone: mean embeddings of
the examples. Then TinyTrain: one backward pass over a few examples measures which channels matter for digits, and
these learn. The emulated core and this machine run the same C and learn the same bytes; the emulator counts the
instructions of two passes over the examples, this machine, which is faster, runs all forty. NumPy says why the device
chose what it chose.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sklearn.datasets import load_digits
from tinytrain_compiler import compile_model
from tinytrain_compiler.compiled import CompiledModel, load_compiled
from tinytrain_compiler.evaluate.augment import augment
from tinytrain_compiler.quantize.input_bytes import pixel_map
from tinytrain_compiler.reference.draws import mix
from tinytrain_compiler.reference.trainer import ReferenceTrainer
from tinytrain_compiler.targets.emulation import emulation_banks, emulation_board, machine_name
from tinytrain_compiler.targets.firmware import build_firmware
from tinytrain_compiler.targets.flash import SimulatedFlash
from tinytrain_compiler.targets.harness import INFER, HarnessRun, pack_records, run_records
from tinytrain_compiler.targets.harness_personalisation import Personalisation, run_personalisation
from tinytrain_compiler.targets.host import HostModel
from tinytrain_compiler.training.heads import PROTOTYPE
from tinytrain_compiler.training.options import LearningOptions
from tinytrain_compiler.training.policies import DEFAULT_RATE
from tinytrain_compiler.training.pool import selected_channels
from tinytrain_compiler.training.scheme import Scheme, TrainedLayer
from tinytrain_compiler.training.selection import Budget
from tinytrain_compiler.training.visits import SelectOptions, TrainOptions

ROOT = Path(__file__).resolve().parents[2]
BACKBONE = ROOT / "examples" / "backbone" / "backbone64.onnx"
BOARD = "stm32f746"
CLASSES, SHOTS, QUERIES, CALIBRATION = 10, 5, 25, 100
POOL = 32  # KiB for the training state
EPOCHS, EMULATED_EPOCHS = 40, 2
SEED = 0


def grey_bytes(images: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Digits (n, 8, 8) of 0..16 -> RGB (n, 64, 64, 3), as a camera driver would hand them over."""
    grey = np.clip(images * 16, 0, 255).astype(np.uint8)
    large = np.stack([np.asarray(Image.fromarray(g).resize((64, 64), Image.Resampling.BICUBIC)) for g in grey])
    return np.repeat(large[..., None], 3, axis=-1)


def episode(labels: NDArray[np.int64]) -> tuple[list[int], list[int], list[int]]:
    """Indices of support (SHOTS a class), queries (QUERIES a class) and others for calibration; disjoint."""
    rng = np.random.default_rng(SEED)
    support: list[int] = []
    query: list[int] = []
    rest: list[int] = []
    for label in range(CLASSES):
        chosen = rng.permutation(np.flatnonzero(labels == label)).tolist()
        support += chosen[:SHOTS]
        query += chosen[SHOTS : SHOTS + QUERIES]
        rest += chosen[SHOTS + QUERIES :]
    return support, query, rng.permutation(rest)[:CALIBRATION].tolist()


def wilson(correct: int, total: int) -> tuple[float, float]:
    """95 % confidence interval of a share (Wilson score)."""
    z, p = 1.96, correct / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return middle - half, middle + half


@dataclass(frozen=True)
class Task:
    """Inputs as bytes, (n, H, W, C), and what they are."""

    support: NDArray[np.int8]
    labels: list[int]
    query: NDArray[np.int8]
    truth: NDArray[np.int64]
    zero_point: int

    def sample(self, index: int, epoch: int) -> NDArray[np.int8]:
        """As the firmware would make it with backbone64_augment(): another shift and light in each epoch."""
        x: NDArray[np.int8] = self.support[index]
        return x if epoch < 0 else augment(x, self.zero_point, mix(SEED, epoch, index))

    def accuracy(self, infer: Callable[[NDArray[np.int8]], int]) -> NDArray[np.bool_]:
        return np.array([infer(x) for x in self.query]) == self.truth


def compile_for_digits(calibration: NDArray[np.uint8], out: Path, console: Console) -> CompiledModel:
    with tempfile.TemporaryDirectory() as folder:
        pack = Path(folder) / "digits.npz"
        np.savez(pack, images=calibration)
        with console.status("compiling") as status:
            compile_model(
                BACKBONE, BOARD, out, calibration=pack, classes=CLASSES, name="backbone64", policy="tinytrain",
                pool=POOL, progress=lambda stage: status.update(stage),
            )  # fmt: skip
    return load_compiled(out)


def emulate_inference(model: CompiledModel, task: Task, bar: Progress) -> HarnessRun:
    """Enrol all examples, classify all queries, on the emulated core."""
    machine = emulation_board(model.board)
    build, banks = model.directory / "build", emulation_banks(machine, model.region_banks)
    firmware = build_firmware(model.directory, model.name, machine, banks, "harness", build / "emulated")
    records = [(label, x.tobytes()) for label, x in zip(task.labels, task.support, strict=True)]
    records += [(INFER, x.tobytes()) for x in task.query]
    shown = bar.add_task("enrolling and classifying", total=len(records))
    return run_records(firmware, machine, pack_records(records), build / "run",
                       progress=lambda done, total: bar.update(shown, completed=done))  # fmt: skip


def emulate_personalisation(model: CompiledModel, task: Task, bar: Progress) -> Personalisation:
    """Enrol, choose channels and learn for a few epochs on the emulated core."""
    machine = emulation_board(model.board)
    build, banks = model.directory / "build", emulation_banks(machine, model.region_banks)
    firmware = build_firmware(model.directory, model.name, machine, banks, "train", build / "training")
    shown = bar.add_task("choosing channels and learning", total=None)
    return run_personalisation(
        firmware, machine, task.sample, task.labels, TrainOptions(EMULATED_EPOCHS), PROTOTYPE,
        model.report["training"]["fisher_passes"], 0, build / "run",
        progress=lambda done, total: bar.update(shown, completed=done, total=total),
    )  # fmt: skip


def phases(ran: Personalisation) -> Table:
    """Instructions of each phase of a personalisation of EPOCHS passes."""
    title = "instructions, counted exactly, in millions"
    table = Table(box=None, padding=(0, 1), title=title, title_justify="left")
    for column in ("", "each", "", "in all"):
        table.add_column(column, justify="right" if column else "left")

    def mean(what: str) -> float:
        return fmean([p.instructions for p in ran.train if p.visit.what == what])

    count, enroll, step, prototype = len(ran.enroll), fmean(ran.enroll), mean("step"), mean("prototype")
    select = sum(p.instructions for p in ran.select) + ran.choice
    train = count * (EPOCHS * step + (EPOCHS + 1) * prototype)
    whole = count * enroll + select + train
    for name, each, what, total in (
        ("enrol", enroll, f"{count} examples", count * enroll),
        ("select", select, f"once a task: {select / whole:.1%} of the whole", select),
        (
            "train",
            step,
            f"{count} examples {EPOCHS} times, computed from {EMULATED_EPOCHS}, with new prototypes",
            train,
        ),
    ):
        table.add_row(name, f"{each / 1e6:,.1f}", what, f"{total / 1e6:,.0f}")
    return table


def choices(model: CompiledModel, chosen: dict[str, list[int]], scores: NDArray[np.float32]) -> Table:
    """What the device chose, and how much of what each layer could teach lies in it. scores: of NumPy's Fisher pass."""
    title = "channels with the most Fisher information, as the device chose them"
    table = Table(box=None, padding=(0, 1), title=title, title_justify="left")
    for column in ("layer", "chosen", "hold", "channels"):
        table.add_column(column, justify="right" if column in ("chosen", "hold") else "left")
    first = 0
    for c in model.report["training"]["selection"]["candidates"]:
        picked, layer = chosen[c["name"]], scores[first : first + c["channels"]].astype(float)
        first += c["channels"]
        listed = " ".join(map(str, picked[:16])) + (" ..." if len(picked) > 16 else "")
        held = f"{layer[picked].sum() / layer.sum():.0%}" if layer.any() else "-"
        table.add_row(c["name"].strip("/").split("/")[1], f"{len(picked)} of {c['channels']}", held, listed or "-")
    return table


def fisher_scores(model: CompiledModel, task: Task) -> NDArray[np.float32]:
    """Fisher information of all candidates' channels, by the NumPy reference."""
    candidates = model.report["training"]["selection"]["candidates"]
    layers = {layer["name"]: TrainedLayer() for layer in model.report["training"]["layers"]}
    layers |= {c["name"]: TrainedLayer(limit=c["limit"]) for c in candidates}
    reference = ReferenceTrainer(model.graph, Scheme(layers), CLASSES, LearningOptions(pool=1024 * POOL))
    saved = model.report["training"]["selection"]["saved_inputs_bytes"]
    return reference.select(task.sample, task.labels, SelectOptions(), Budget(1024 * POOL, saved))


def share(hits: NDArray[np.bool_]) -> str:
    low, high = wilson(int(hits.sum()), len(hits))
    return f"[bold green]{hits.mean():.1%}[/] of {len(hits)} queries (95 %: {low:.1%} .. {high:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--svg", type=Path, help="also save what is printed as a picture")
    args = parser.parse_args()
    console = Console(record=args.svg is not None, width=100)
    digits = load_digits()
    support, query, calibration = episode(digits.target)
    out = ROOT / "build" / "demo"

    console.print(f"[bold]1. compile[/] {BACKBONE.name} for {BOARD} with --policy tinytrain --pool {POOL}")
    model = compile_for_digits(grey_bytes(digits.images[calibration]), out, console)
    sram = model.report["memory"]["sram"]
    added = sram["arena_bytes"] - sram["inference_arena_bytes"]
    console.print(
        f"   {model.report['model']['macs']:,} MACs, arena {sram['arena_bytes']:,} bytes, {added:,} of them to learn "
        f"({sram['arena_to_lower_bound']:.2f} x the lower bound)"
    )
    machine = emulation_board(model.board)
    console.print(f"[bold]2. build and run[/] the firmware on {machine_name(machine)} ({machine.core})")
    tensor = model.graph.tensors[model.graph.input]
    to_input = pixel_map(tensor, (127.5,), (127.5,))
    assert to_input is not None
    inputs = to_input.apply(grey_bytes(digits.images[support + query])).reshape(-1, *tensor.shape)
    shown = len(support)
    task = Task(inputs[:shown], digits.target[support].tolist(), inputs[shown:], digits.target[query],
                tensor.quantization.zero_point)  # fmt: skip
    image = build_firmware(out, model.name, model.board, model.region_banks, "selftest", out / "build" / "board")
    columns = (TextColumn("   {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        before = emulate_inference(model, task, bar)
        ran = emulate_personalisation(model, task, bar)

    console.print("[bold]3. the same C[/] on this machine: same bytes? then all passes over the examples")
    with HostModel(out, model.layout) as host:
        host.train(task.sample, task.labels, EMULATED_EPOCHS, DEFAULT_RATE)
        state = host.training_state(model.report)
        same = sum(a == b for a, b in zip(state, ran.training_state, strict=False))
        host.unlearn()
        host.train(task.sample, task.labels, EPOCHS, DEFAULT_RATE)
        after = task.accuracy(lambda x: host.infer(x).label)
        chosen = selected_channels(model.report, host.training_state(model.report))
        flash = SimulatedFlash(host.state_bytes)
        host.save(flash)
    scores = fisher_scores(model, task)

    answers = np.array([record.label for record in before.records[shown:]])
    per_inference = round(sum(before.instructions[shown:]) / len(query))
    facts = Table(box=None, show_header=False, padding=(0, 1))
    for name, value in (
        ("trained on", f"{SHOTS} examples of each of {CLASSES} digits; the network had never seen one"),
        ("before", f"{share(answers == task.truth)}; chance 10 %): prototypes alone"),
        ("after", f"{share(after)}): {EPOCHS} passes over the examples"),
        ("inference", f"{per_inference:,} instructions"),
        ("SRAM", f"{image.sram_bytes:,} of {sram['budget_bytes']:,} bytes with the stack"),
        ("flash", f"{image.flash_bytes:,} of {model.report['memory']['flash']['budget_bytes']:,} bytes"),
        ("saved", f"{flash.programmed_bytes:,} bytes written, of two slots of {host.state_bytes:,}"),
        ("bit for bit", f"{same:,} of {len(state):,} bytes of training state equal this machine's"),
    ):
        facts.add_row(name, value)
    console.print(Panel(facts, title="on the emulated Cortex-M7", title_align="left"))
    console.print(phases(ran))
    console.print(choices(model, chosen, scores))
    if same != len(state):
        raise SystemExit("the emulated core and the host disagree: this is a bug")
    if args.svg:
        console.save_svg(str(args.svg), title="make demo")


if __name__ == "__main__":
    main()
