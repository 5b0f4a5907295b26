"""Which architectures compile, and whether the C is right: one table.

    python benchmarks/architectures.py [NAME ...] [--count] [--exporter E] [-o FOLDER]

Builds every network of zoo/catalogue.py with random weights, exports it with both of PyTorch's exporters (extra
`zoo`), compiles it for a board with much memory, runs the C on this machine, and compares it with the NumPy reference
and onnxruntime. Exported files and rows are kept in FOLDER, so PyTorch is needed only for what is not there yet.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tinytrain_compiler import compile_model
from tinytrain_compiler.compiled import load_compiled
from tinytrain_compiler.emulate import emulate
from tinytrain_compiler.errors import TinyTrainError, UnsupportedModelError
from tinytrain_compiler.verify import verify
from zoo.catalogue import ARCHITECTURES, Architecture

BOARD = "mps2_an500"  # 4 MB of flash, 20 MB of RAM, and QEMU has it
EXPORTERS = ("torchscript", "dynamo")
INPUTS = 12
COLUMNS = (
    "architecture", "exporter", "compiled", "bytes that differ", "operators within 1 step", "outputs within 1 step",
    "top-1 as onnxruntime", "top-1 as float", "MACs", "instructions", "arena",
)  # fmt: skip
_SHOWN = 300  # characters of a reason
ORACLE_KEYS = ("within_one_step", "end_to_end_within_one_step", "top1_agreement")


def exported(architecture: Architecture, exporter: str, folder: Path) -> Path:
    """The ONNX file and, beside it, its calibration samples; made if they are not there."""
    path = folder / f"{architecture.name}.{exporter}.onnx"
    if not path.exists():
        from zoo.export import export

        export(architecture, exporter, path)
    samples = folder / f"{architecture.name}.npy"
    if not samples.exists():
        from zoo.export import samples_of

        np.save(samples, samples_of(architecture.input_shape))
    return path


def measure(architecture: Architecture, exporter: str, folder: Path, count: bool) -> dict[str, Any]:
    """One row, as it is kept: {"refused": first line} or the figures."""
    try:
        path = exported(architecture, exporter, folder)
    except Exception as error:
        return {"not_exported": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}
    out = folder / "compiled" / path.stem
    start = time.perf_counter()
    try:
        report = compile_model(path, BOARD, out, calibration=folder / f"{architecture.name}.npy", name="net").report
    except UnsupportedModelError as error:
        counts = Counter(problem.op for problem in error.problems)
        reasons = {problem.op: problem.reason for problem in reversed(error.problems)}
        return {"refused": "; ".join(f"{count} {op} ({reasons[op]})" for op, count in counts.most_common())}
    except TinyTrainError as error:
        return {"refused": str(error).replace(f"{path}: ", "")}
    except Exception:
        return {"crashed": traceback.format_exc()}
    seconds = time.perf_counter() - start
    model = load_compiled(out)
    found = verify(model, INPUTS)
    row = {
        "mismatched_bytes": found["host"]["mismatched_bytes"],
        **{
            key: found["onnxruntime"][key]
            for key in ("within_one_step", "end_to_end_within_one_step", "top1_agreement")
        },
        "float_top1_agreement": report["quantization"]["top1_agreement"],
        "macs": report["model"]["macs"],
        "arena_bytes": report["memory"]["sram"]["arena_bytes"],
        "seconds": seconds,
    }
    if count:
        row["instructions"] = emulate(model, 1)["instructions_per_inference"]
    return row


def cells(row: dict[str, Any]) -> list[str]:
    for key in ("not_exported", "refused", "crashed"):
        if key in row:
            lines = row[key].strip().splitlines()
            return [f"{key.replace('_', ' ')}: {lines[-1 if key == 'crashed' else 0][:_SHOWN]}"]

    def number(key: str, spec: str) -> str:
        value = row.get(key)
        return "" if value is None else format(value, spec)

    return [
        "yes", number("mismatched_bytes", ","), number("within_one_step", ".3%"),
        number("end_to_end_within_one_step", ".1%"), number("top1_agreement", ".0%"),
        number("float_top1_agreement", ".0%"), number("macs", ","), number("instructions", ","),
        number("arena_bytes", ","),
    ]  # fmt: skip


def markdown(rows: Iterable[tuple[str, str, dict[str, Any]]]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for name, exporter, row in rows:
        lines.append("| " + " | ".join([name, exporter, *(cell.replace("|", "/") for cell in cells(row))]) + " |")
    return "\n".join(lines)


def summary(rows: Iterable[tuple[str, str, dict[str, Any]]]) -> str:
    found = list(rows)
    good = {name for name, _, row in found if "mismatched_bytes" in row}
    both = good - {name for name, _, row in found if "mismatched_bytes" not in row}
    wrong = sum(row.get("mismatched_bytes", 0) for _, _, row in found)
    names = {name for name, _, _ in found}
    files = sum("mismatched_bytes" in row for _, _, row in found)
    return (
        f"{len(good)} of {len(names)} architectures compile ({len(both)} from both exporters, {files} of {len(found)} "
        f"files); {wrong} bytes differ"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only architectures whose name contains one of these")
    parser.add_argument("--exporter", choices=EXPORTERS, help="only this one")
    parser.add_argument("--count", action="store_true", help="count instructions on QEMU's Cortex-M7")
    parser.add_argument("--export-only", action="store_true")
    parser.add_argument("--markdown", type=Path, help="also write the table there")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/architectures"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    results = args.output / "results.json"
    known: dict[str, dict[str, Any]] = json.loads(results.read_text()) if results.exists() else {}
    wanted = [(a, e) for a in ARCHITECTURES for e in EXPORTERS if args.exporter in (None, e)]
    wanted = [(a, e) for a, e in wanted if not args.names or any(name in a.name for name in args.names)]
    console = Console(width=200)
    for i, (architecture, exporter) in enumerate(wanted):
        console.print(f"{i + 1}/{len(wanted)} {architecture.name} {exporter}: ", end="")
        if args.export_only:
            exported(architecture, exporter, args.output)
            console.print("exported")
            continue
        row = measure(architecture, exporter, args.output, args.count)
        console.print(cells(row)[0][:160], markup=False)
        known[f"{architecture.name} {exporter}"] = row
        results.write_text(json.dumps(known, indent=1))
    rows = [(a.name, e, known[f"{a.name} {e}"]) for a in ARCHITECTURES for e in EXPORTERS if f"{a.name} {e}" in known]
    table = Table(title=summary(rows), title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:3] else "right", overflow="fold")
    for name, exporter, row in rows:
        table.add_row(name, exporter, *cells(row))
    console.print(table)
    if args.markdown:
        args.markdown.write_text(f"{summary(rows)}\n\n{markdown(rows)}\n")


if __name__ == "__main__":
    main()
