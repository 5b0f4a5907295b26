"""The programs and their commands."""

from __future__ import annotations

import click

from ..version import __version__
from .boards import boards
from .compile import compile_command
from .emulate import emulate
from .evaluate import evaluate
from .ops import ops
from .options import HELP
from .report_schema import report_schema
from .stack import stack
from .verify import verify


@click.group(context_settings=HELP)
@click.version_option(__version__, prog_name="tinytrain")
def tinytrain() -> None:
    """Compile pretrained networks (.onnx, .tflite) into C that runs, and learns, on microcontrollers."""


for command in (compile_command, verify, emulate, stack, evaluate, boards, ops, report_schema):
    tinytrain.add_command(command)

PROGRAMS: dict[str, click.Command] = {"tinytrain": tinytrain, "tinytrain-compile": compile_command}
