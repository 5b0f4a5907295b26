"""The program: its commands, and how each ends.

Progress and errors go to stderr; with --json, stdout is one JSON document and nothing else.
"""

from __future__ import annotations

import sys

import click

from .. import __version__
from ..errors import EXIT_INTERNAL, TinyTrainError
from .boards import boards
from .compile import compile_command
from .emulate import emulate
from .evaluate import evaluate
from .ops import ops
from .stack import stack
from .verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tinytrain")
def tinytrain() -> None:
    """Compile pretrained ONNX networks into C that runs, and learns, on microcontrollers."""


for command in (compile_command, verify, emulate, stack, evaluate, boards, ops):
    tinytrain.add_command(command)


def _run(command: click.Command) -> None:
    """Run a command; our errors become one message and their exit code, other exceptions a bug report."""
    try:
        command.main(standalone_mode=False)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except TinyTrainError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        import traceback

        traceback.print_exc()
        click.echo(f"internal error: {error}; this is a bug of ours, please report it with the lines above", err=True)
        sys.exit(EXIT_INTERNAL)


def main() -> None:
    """`tinytrain`."""
    _run(tinytrain)


def compile_main() -> None:
    """`tinytrain-compile`: the same as `tinytrain compile`."""
    _run(compile_command)
