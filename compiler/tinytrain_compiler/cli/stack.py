"""`tinytrain stack`: bounds of the stack, proven from machine code."""

from __future__ import annotations

from pathlib import Path

import click

from .options import directory_argument, json_option
from .printing import echo_bounds, print_json


@click.command()
@directory_argument
@click.option("--core-of", metavar="BOARD", help="Compile the same sources for the core of another board.")
@json_option
def stack(directory: Path, core_of: str | None, as_json: bool) -> None:
    """The most stack that each function of the model in DIR can take, proven from its machine code."""
    from ..boards import load_board
    from ..compiled import load_compiled
    from ..emulate import stack_bounds_of

    model = load_compiled(directory)
    found = stack_bounds_of(model, load_board(core_of) if core_of else model.board)
    if as_json:
        print_json(found)
        return
    echo_bounds({entry: bound["bytes"] for entry, bound in found["functions"].items()})
    deepest = max(found["functions"].values(), key=lambda bound: bound["bytes"])
    for frame in deepest["path"]:
        click.echo(f"{frame['bytes']:8,}  {frame['function']}")
