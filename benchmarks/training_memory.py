"""SRAM of models that choose what to learn: what training adds, and what fits a limit.

    python benchmarks/training_memory.py MODELS PACK [--pool KIB] [--limit KIB] [NAME ...]

MODELS: folder with the backbones' ONNX files; PACK: calibration data. Both are third-party, not part of this project.
Compiles with --policy tinytrain and the schemes of examples/schemes, at 128x128 and 96x96 for stm32f746, at 96x96 also
for nrf52840dk. Where arena, session and stack exceed --limit, the largest pool that does not is looked for.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tinytrain_compiler import compile_model
from tinytrain_compiler.errors import DoesNotFitError

SCHEMES = Path(__file__).resolve().parents[1] / "examples" / "schemes"
BACKBONES = ("mcunet_5fps", "mobilenetv2_w035", "proxylessnas_w03")
CASES = ((128, "stm32f746"), (96, "stm32f746"), (96, "nrf52840dk"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("names", nargs="*", help="only backbones whose name contains one of these")
    parser.add_argument("--pool", type=int, default=64, metavar="KIB")
    parser.add_argument("--limit", type=int, default=160, metavar="KIB", help="of all SRAM, stack included")
    args = parser.parse_args()
    console = Console(width=160)
    title = f"--policy tinytrain --pool {args.pool}, 10 classes, bytes; limit {args.limit} KiB"
    table = Table(title=title, title_justify="left")
    for column in ("network", "board", "inference arena", "arena", "training adds", "session", "without stack",
                   "stack", "in all", "fits the limit"):  # fmt: skip
        table.add_column(column, justify="left" if column in ("network", "board") else "right")
    with console.status("starting") as status:
        for size, board in CASES:
            for name in BACKBONES:
                if not args.names or any(wanted in name for wanted in args.names):
                    status.update(f"{name} {size} {board}")
                    table.add_row(*row(args.models / f"{name}_{size}.onnx", board, args.pack, args.pool, args.limit))
    console.print(table)


def row(source: Path, board: str, pack: Path, pool: int, limit: int) -> list[str]:
    scheme = SCHEMES / f"{source.stem.rsplit('_', 1)[0]}_49kb.toml"
    try:
        sram = compiled_sram(source, board, pack, scheme, pool)
    except DoesNotFitError as error:
        return [source.stem, board, *[""] * 7, str(error).splitlines()[0]]
    inference, arena = sram["inference_arena_bytes"], sram["arena_bytes"]
    in_all = sram["total_bytes"] + sram["stack_bytes"]
    fits = "yes" if in_all <= 1024 * limit else fitting_pool(source, board, pack, scheme, pool, in_all, 1024 * limit)
    figures = (
        inference, arena, arena - inference, sram["session_bytes"], sram["total_bytes"], sram["stack_bytes"], in_all,
    )  # fmt: skip
    return [source.stem, board, *(f"{figure:,}" for figure in figures), fits]


def fitting_pool(source: Path, board: str, pack: Path, scheme: Path, pool: int, in_all: int, limit: int) -> str:
    """The largest pool that needs no more than `limit` bytes. A KiB less of it takes at most a KiB off the arena."""
    while in_all > limit:
        pool -= -(-(in_all - limit) // 1024)
        if pool <= 0:
            return "no, whatever the pool"
        try:
            sram = compiled_sram(source, board, pack, scheme, pool)
        except DoesNotFitError as error:
            return f"no: {str(error).splitlines()[0]}"
        in_all = sram["total_bytes"] + sram["stack_bytes"]
    return f"with --pool {pool}: {in_all:,}"


def compiled_sram(source: Path, board: str, pack: Path, scheme: Path, pool: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        report = compile_model(
            source, board, Path(folder) / "net", calibration=pack, classes=10, name="net", policy="tinytrain",
            scheme=scheme, pool=pool,
        ).report  # fmt: skip
    sram: dict[str, Any] = report["memory"]["sram"]
    return sram


if __name__ == "__main__":
    main()
