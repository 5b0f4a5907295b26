"""`tinytrain compile`: a model file in, a folder of C out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from ..options import compile_options
from .option_commands import CompileCommand
from .options import HELP, json_option
from .printing import print_json, stages

if TYPE_CHECKING:
    from ..compile import Artifacts
    from ..graph import Graph


@click.command("compile", cls=CompileCommand, context_settings=HELP)  # a program of its own, too
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--board", help="Board name (see `tinytrain boards`) or a board TOML file; required.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Folder to write (default: the prefix)."
)
@click.option(
    "--replay", type=click.Path(path_type=Path), metavar="DIR",
    help="Compile as DIR was compiled: board and options come from its manifest. Give --calibration beside it where "
    "DIR had one.",
)  # fmt: skip
@click.option("--dump-after", metavar="PASS", help="Print the graph to stderr after a pass (or 'import', or 'all').")
@json_option
@click.pass_context
def compile_command(
    context: click.Context,
    /,
    model: Path,
    board: str | None,
    output: Path | None,
    replay: Path | None,
    dump_after: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Compile MODEL (.onnx or .tflite, float or int8) into int8 C for a board."""
    from ..compile import compile_model
    from ..model_name import model_name
    from ..passes import PIPELINE

    known = ("all", "import", *(step.name for step in PIPELINE))
    if dump_after is not None and dump_after not in known:
        raise UsageError(f"--dump-after {dump_after}: no such pass; choose one of {', '.join(known)}")

    def dump(after: str, graph: Graph) -> None:
        if dump_after in (after, "all"):
            click.echo(f"--- after {after}\n{graph.dump()}", err=True)

    with stages() as progress:
        if replay is not None:
            artifacts = _replay(replay, model, board, output, given, progress, dump)
        elif board is None:
            raise click.MissingParameter(ctx=context, param_hint="'--board'", param_type="option")
        else:
            options = compile_options(given)
            folder = output or Path(model_name(model, options.name))
            artifacts = compile_model(model, board, folder, options, progress=progress, observe=dump)
    _print(artifacts, as_json)


def _replay(
    folder: Path, model: Path, board: str | None, output: Path | None, given: dict[str, Any], progress: Any, dump: Any
) -> Artifacts:
    from ..replay import replay

    calibration = given.pop("calibration")
    for name, value in {"board": board, **given}.items():
        if value is not None:
            raise UsageError(f"--replay takes --{name} from {folder}; leave it out, or compile without --replay")
    found = replay(folder, model, output, calibration, progress, dump)
    count = len(found.artifacts.files) - 1
    if not found.different:
        click.echo(f"replayed: all {count} files are as in {folder}", err=True)
    else:
        few = ", ".join(found.different[:3]) + (", ..." if len(found.different) > 3 else "")
        click.echo(
            f"replayed: {len(found.different)} of {count} files are not as in {folder} ({few}), which was made by "
            f"{found.made_by}", err=True,
        )  # fmt: skip
    return found.artifacts


def _print(artifacts: Artifacts, as_json: bool) -> None:
    from rich.console import Console

    from ..report.terminal import print_report

    if as_json:
        print_json(artifacts.report)
    else:
        console = Console(width=None if sys.stdout.isatty() else 140)
        print_report(artifacts.report, console)
        console.print(f"wrote {artifacts.directory}", highlight=False, soft_wrap=True)
    for note in artifacts.notes:
        click.echo(f"note: {note}", err=True)
    quantization = artifacts.report["quantization"]
    if quantization["low_agreement"]:
        warning = (
            f"warning: int8 and float agree on only {quantization['top1_agreement']:.1%} of the calibration samples. "
            "Check that --mean and --std are those the network was trained with, and that the samples are of its kind"
        )
        click.secho(warning, fg="red", bold=True, err=True)
