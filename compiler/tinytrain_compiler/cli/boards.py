"""`tinytrain boards`: the list of boards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .options import json_option
from .printing import print_json

if TYPE_CHECKING:
    from ..boards import Board


@click.command()
@json_option
def boards(as_json: bool) -> None:
    """List the boards."""
    from ..boards import list_boards, load_board

    rows = [load_board(name) for name in list_boards()]
    if as_json:
        print_json([_board_facts(b) for b in rows])
        return
    for b in rows:
        has = [name for name, on in (("DSP", b.dsp), (f"FPU {b.fpu}", b.fpu != "none"), ("MVE", b.mve)) if on]
        sizes = f"{b.flash_bytes // 1024:6,} KB flash {b.ram_bytes // 1024:7,} KB RAM"
        click.echo(f"{b.name:14} {b.core:15} {sizes}  {', '.join(has) or 'no DSP, no FPU':15} {b.description}")


def _board_facts(board: Board) -> dict[str, Any]:
    keys = ("name", "description", "core", "dsp", "fpu", "mve", "flash_bytes", "ram_bytes")
    return {key: getattr(board, key) for key in keys} | {"emulated_by": board.emulated_by or board.name}
