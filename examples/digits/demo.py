"""Ten handwritten digits, learnt from five examples each, on an emulated Cortex-M7.

    make demo

The example backbone was trained on photographs and never saw a digit. The digits are scikit-learn's
real ones (UCI "Optical Recognition of Handwritten Digits", 8x8 grey), enlarged to the 64x64 pixels
the network takes. Everything after that happens in the firmware: inference, the embedding, the
prototypes, the decision.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sklearn.datasets import load_digits
from tinytrain_compiler import compile_model
from tinytrain_compiler.compiled import load_compiled
from tinytrain_compiler.quantize.input_bytes import pixel_map
from tinytrain_compiler.targets.firmware import build_firmware
from tinytrain_compiler.targets.host import HostModel
from tinytrain_compiler.targets.qemu import INFER, emulation_banks, emulation_board, pack_records, run_on_qemu

ROOT = Path(__file__).resolve().parents[2]
BACKBONE = ROOT / "examples" / "backbone" / "backbone64.onnx"
BOARD = "stm32f746"
CLASSES, SHOTS, QUERIES, CALIBRATION = 10, 5, 25, 100
SEED = 0


def pictures(images: NDArray[np.float64]) -> NDArray[np.uint8]:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--svg", type=Path, help="also save what is printed as a picture")
    args = parser.parse_args()
    console = Console(record=args.svg is not None, width=100)
    digits = load_digits()
    support, query, calibration = episode(digits.target)
    out = ROOT / "build" / "demo"

    console.print(f"[bold]1. compile[/] {BACKBONE.name} for {BOARD}")
    with tempfile.TemporaryDirectory() as folder:
        pack = Path(folder) / "digits.npz"
        np.savez(pack, images=pictures(digits.images[calibration]))
        with console.status("compiling") as status:
            artifacts = compile_model(
                BACKBONE, BOARD, out, calibration=pack, classes=CLASSES, name="backbone64",
                progress=lambda stage: status.update(stage),
            )  # fmt: skip
    memory = artifacts.report["memory"]
    console.print(
        f"   {artifacts.report['model']['macs']:,} MACs, arena {memory['sram']['arena_bytes']:,} bytes "
        f"({memory['sram']['arena_to_lower_bound']:.2f} x the lower bound), written to build/demo"
    )

    console.print(f"[bold]2. build[/] the firmware: {BOARD}'s memory map, then the emulator's")
    model = load_compiled(out)
    machine = emulation_board(model.board)
    with console.status("compiling C for Cortex-M7"):
        image = build_firmware(out, model.name, model.board, model.region_banks, "selftest", out / "build" / "board")
        banks = emulation_banks(machine, model.region_banks)
        harness = build_firmware(out, model.name, machine, banks, "harness", out / "build" / "emulated")

    console.print(f"[bold]3. run[/] it on QEMU's {machine.qemu_machine} ({machine.core})")
    to_input = pixel_map(model.graph.tensors[model.graph.input], (127.5,), (127.5,))
    assert to_input is not None
    inputs = to_input.apply(pictures(digits.images[support + query]))
    labels = [int(digits.target[i]) for i in support] + [INFER] * len(query)
    columns = (TextColumn("   {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("enrolling and classifying", total=len(labels))
        ran = run_on_qemu(
            harness, machine, pack_records([(label, x.tobytes()) for label, x in zip(labels, inputs, strict=True)]),
            out / "build" / "run", progress=lambda done, total: bar.update(task, completed=done),
        )  # fmt: skip

    answers = np.array([record.label for record in ran.records[len(support) :]])
    with HostModel(out, model.layout) as host:  # the same bytes on this machine
        for label, x in zip(labels[: len(support)], inputs, strict=False):
            host.enroll(x, label)
        same = sum(
            host.infer(x).features.tobytes() == record.features
            for x, record in zip(inputs[len(support) :], ran.records[len(support) :], strict=True)
        )
    truth = digits.target[query]
    correct = int((answers == truth).sum())
    low, high = wilson(correct, len(query))

    classes = Table(box=None, padding=(0, 1))
    classes.add_column("digit", justify="right")
    for label in range(CLASSES):
        classes.add_column(str(label), justify="right")
    hits = [f"{(answers[truth == label] == label).mean():.0%}" for label in range(CLASSES)]
    classes.add_row("recognised", *hits)
    facts = Table(box=None, show_header=False, padding=(0, 1))
    per_inference = round(sum(ran.instructions[len(support) :]) / len(query))
    used = f"{ran.stack_bytes:,} of the stack's {model.board.stack_bytes:,} used"
    for name, value in (
        ("learnt from", f"{SHOTS} examples of each of {CLASSES} digits; the network had never seen one"),
        ("accuracy", f"[bold green]{correct / len(query):.1%}[/] of {len(query)} queries "
                     f"(95 % interval {low:.1%} .. {high:.1%}; chance 10 %)"),
        ("instructions", f"{per_inference:,} per inference, counted exactly"),
        ("SRAM", f"{image.sram_bytes:,} of {memory['sram']['budget_bytes']:,} bytes, {used}"),
        ("flash", f"{image.flash_bytes:,} of {memory['flash']['budget_bytes']:,} bytes"),
        ("bit for bit", f"{same} of {len(query)} embeddings equal the host's in every byte"),
    ):  # fmt: skip
        facts.add_row(name, value)
    console.print(Panel(facts, title="on the emulated Cortex-M7", title_align="left"))
    console.print(classes)
    if same != len(query):
        raise SystemExit("the emulated core and the host disagree: this is a bug")
    if args.svg:
        console.save_svg(str(args.svg), title="make demo")


if __name__ == "__main__":
    main()
