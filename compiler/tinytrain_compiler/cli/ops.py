"""`tinytrain ops`: the list of operators."""

from __future__ import annotations

import click

from .options import json_option
from .printing import print_json


@click.command()
@json_option
def ops(as_json: bool) -> None:
    """List the ONNX operators that compile, and their limits."""
    from ..frontends.onnx.support import support_table

    rows = support_table()
    if as_json:
        print_json([{"op": op, "support": text} for op, text in rows])
        return
    for op, text in rows:
        click.echo(f"{op:22} {' '.join(text.split())}")
