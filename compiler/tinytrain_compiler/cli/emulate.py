"""`tinytrain emulate`: the firmware on an emulated core against the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import count_option, directory_argument, json_option
from .printing import bar, echo_bounds, echo_training, show


@click.command()
@directory_argument
@count_option
@click.option("--core-of", metavar="BOARD", help="Run the same sources on the core of another board.")
@click.option("--profile", is_flag=True, help="Also count instructions per function.")
@json_option
def emulate(directory: Path, count: int | None, core_of: str | None, profile: bool, as_json: bool) -> None:
    """Build the firmware in DIR, run it on an emulated core, compare every byte with the reference."""
    from ..boards import load_board
    from ..compiled import load_compiled
    from ..emulate import emulate as run_emulate

    model = load_compiled(directory)
    board = load_board(core_of) if core_of else model.board
    with bar(f"building the firmware and running it on an emulated {board.core}") as progress:
        found = run_emulate(model, count, core_of=board, profile=profile, progress=progress)
    wrong = found["mismatched_bytes"] or found.get("training", {}).get("mismatched_bytes", 0)
    message = "the emulated core and the reference disagree: please report it with the model"
    show(found, as_json, _print, message if wrong else None)


def _print(found: dict[str, Any]) -> None:
    click.echo(
        f"{found['core']} on {found['runner']}: {found['inputs']} inputs, {found['mismatched_bytes']} bytes differ"
    )
    click.echo(f"{found['instructions_per_inference']:,} instructions per inference")
    click.echo(
        f"{found['board']} image: {found['flash_bytes']:,} bytes of flash, {found['sram_bytes']:,} of SRAM "
        f"(with the stack, of which {found['stack_bytes']:,} were used)"
    )
    echo_bounds(found["stack_bounds"])
    for symbol, instructions in found.get("profile", {}).items():
        click.echo(f"{instructions:12,}  {symbol}")
    if "training" in found:
        echo_training(found["training"])
