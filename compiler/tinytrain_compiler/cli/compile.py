"""`tinytrain compile`: a model file in, a folder of C out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from ..training.policies import make_policy
from .options import gradients_option, json_option, mean_option, rounding_option, std_option
from .policies import PolicyCommand
from .printing import print_json, stages

if TYPE_CHECKING:
    from ..graph import Graph


@click.command("compile", cls=PolicyCommand)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--board", required=True, help="Board name (see `tinytrain boards`) or a board TOML file.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="FILE.npz|DIR",
    help="Pictures or arrays the int8 ranges come from. Without it: generated noise, accuracy unverified.",
)
@mean_option
@std_option
@click.option("--name", metavar="PREFIX", help="Prefix of all symbols and files (default: the model file's name).")
@click.option("--classes", type=click.IntRange(1), default=10, show_default=True, help="Room for few-shot classes.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Folder to write (default: the prefix)."
)
@click.option("--policy", default="none", show_default=True, metavar="P", help="What trains on the device: see below.")
@click.option(
    "--sram", type=click.IntRange(1), metavar="KIB", help="SRAM the model may use, stack included (default: all)."
)
@click.option("--head", default="prototype", show_default=True, metavar="H", help="What classifies: see below.")
@gradients_option
@rounding_option
@click.option(
    "--storage",
    default="auto",
    show_default=True,
    help="Where saved states go: flash (its last sectors), none (a place of your own), auto (flash if it fits).",
)
@click.option("--dump-after", metavar="PASS", help="Print the graph to stderr after a pass (or 'import', or 'all').")
@json_option
def compile_command(
    model: Path,
    board: str,
    calibration: Path | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    name: str | None,
    classes: int,
    output: Path | None,
    policy: str,
    sram: int | None,
    head: str,
    gradients: str,
    rounding: str,
    storage: str,
    dump_after: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Compile MODEL (ONNX, float or QDQ) into int8 C for a board."""
    from rich.console import Console

    from ..compile import compile_model, default_name
    from ..passes import PIPELINE
    from ..report.terminal import print_report

    known = ("all", "import", *(step.name for step in PIPELINE))
    if dump_after is not None and dump_after not in known:
        raise UsageError(f"--dump-after {dump_after}: no such pass; choose one of {', '.join(known)}")

    def dump(after: str, graph: Graph) -> None:
        if dump_after in (after, "all"):
            click.echo(f"--- after {after}\n{graph.dump()}", err=True)

    with stages() as progress:
        artifacts = compile_model(
            model, board, output or Path(name or default_name(model)), calibration=calibration, mean=mean, std=std,
            name=name, classes=classes, policy=make_policy(policy, options), sram=sram, head=head, gradients=gradients,
            rounding=rounding, storage=storage, progress=progress, observe=dump,
        )  # fmt: skip
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
