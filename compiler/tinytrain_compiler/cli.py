"""The commands; cli_evaluate.py holds the longest.

Progress and errors go to stderr; with --json, stdout is one JSON document and nothing else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from .cli_evaluate import evaluate
from .cli_options import (
    count_option,
    directory_argument,
    gradients_option,
    json_option,
    macs_option,
    mean_option,
    rounding_option,
    std_option,
)
from .cli_progress import bar, echo_bounds, echo_training, stages
from .errors import EXIT_INTERNAL, TinyTrainError, UsageError

if TYPE_CHECKING:
    from .boards import Board
    from .graph import Graph


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tinytrain")
def tinytrain() -> None:
    """Compile pretrained ONNX networks into C that runs, and learns, on microcontrollers."""


tinytrain.add_command(evaluate)


@tinytrain.command("compile")
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
@click.option(
    "--policy",
    default="none",
    show_default=True,
    help="What learns on the device: none, last-layer, bias, sparse-update, tinytrain, full.",
)
@click.option(
    "--scheme",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="Layers and channels for sparse-update; candidates and their limits for tinytrain.",
)
@click.option(
    "--pool", type=click.IntRange(1), metavar="KIB",
    help="SRAM for what tinytrain learns, lists and deltas of chosen channels and all biases (default: 64).",
)  # fmt: skip
@click.option(
    "--selection",
    metavar="S",
    help="How tinytrain chooses channels: fisher (default), random, l2, layer-score, fisher-resample.",
)
@macs_option
@click.option(
    "--sram", type=click.IntRange(1), metavar="KIB", help="SRAM the model may use, stack included (default: all)."
)
@click.option(
    "--head", default="prototype", show_default=True, help="What classifies: prototype, or linear, which learns too."
)
@gradients_option
@rounding_option
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
    scheme: Path | None,
    pool: int | None,
    selection: str | None,
    macs: int | None,
    sram: int | None,
    head: str,
    gradients: str,
    rounding: str,
    dump_after: str | None,
    as_json: bool,
) -> None:
    """Compile MODEL (ONNX, float or QDQ) into int8 C for a board."""
    from rich.console import Console

    from .compile import compile_model, default_name
    from .passes import PIPELINE
    from .report import print_report

    known = ("all", "import", *(step.name for step in PIPELINE))
    if dump_after is not None and dump_after not in known:
        raise UsageError(f"--dump-after {dump_after}: no such pass; choose one of {', '.join(known)}")

    def dump(after: str, graph: Graph) -> None:
        if dump_after in (after, "all"):
            click.echo(f"--- after {after}\n{graph.dump()}", err=True)

    with stages() as progress:
        artifacts = compile_model(
            model, board, output or Path(name or default_name(model)), calibration=calibration, mean=mean, std=std,
            name=name, classes=classes, policy=policy, scheme=scheme, pool=None if pool is None else 1024 * pool,
            selection=selection, macs=macs, sram=sram, head=head, gradients=gradients, rounding=rounding,
            progress=progress, observe=dump,
        )  # fmt: skip
    if as_json:
        _print_json(artifacts.report)
        return
    console = Console(width=None if sys.stdout.isatty() else 140)
    print_report(artifacts.report, console)
    console.print(f"wrote {artifacts.directory}", highlight=False, soft_wrap=True)


@tinytrain.command()
@directory_argument
@count_option
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True), metavar="FILE.npz|DIR", help="Also run all of this data."
)
@click.option(
    "--float",
    "float_model",
    type=click.Path(path_type=Path, exists=True),
    metavar="MODEL.onnx",
    help="With --data: compare top-1 with this float model.",
)
@mean_option
@std_option
@json_option
def verify(
    directory: Path, count: int | None, data: Path | None, float_model: Path | None,
    mean: tuple[float, ...], std: tuple[float, ...], as_json: bool,
) -> None:  # fmt: skip
    """Compare the generated C in DIR with the NumPy reference, byte for byte, and with onnxruntime."""
    from .compiled import load_compiled
    from .verify import verify as run_verify
    from .verify import verify_on_data

    model = load_compiled(directory)
    with bar("verifying on this machine") as progress:
        found = run_verify(model, count, progress)
    if data is not None:
        with bar(f"running {data.name}") as progress:
            found["data"] = verify_on_data(model, data, float_model, mean, std, progress)
    mismatched = found["host"]["mismatched_bytes"]
    if as_json:
        _print_json(found)
    else:
        ort = found["onnxruntime"]
        click.echo(f"host C against the NumPy reference: {found['host']['inputs']} inputs, {mismatched} bytes differ")
        click.echo(
            f"operators against onnxruntime, same inputs: {ort['within_one_step']:.4%} of {ort['elements']:,} values "
            f"within one step, {ort['identical']:.4%} identical"
        )
        click.echo(
            f"whole network against onnxruntime: {ort['end_to_end_within_one_step']:.2%} of outputs within one step "
            f"(onnxruntime optimised against itself unoptimised: {ort['onnxruntime_against_itself']:.2%}), "
            f"top-1 agreement {ort['top1_agreement']:.1%}"
        )
        for key, value in found.get("data", {}).items():
            click.echo(f"{key.replace('_', ' ')}: {value if isinstance(value, int) else f'{value:.1%}'}")
    _fail_if(mismatched, f"{mismatched} bytes differ: the generated C is wrong here; please report it with the model")


@tinytrain.command()
@directory_argument
@count_option
@click.option("--core-of", metavar="BOARD", help="Run the same sources on the core of another board.")
@click.option("--profile", is_flag=True, help="Also count instructions per function.")
@json_option
def emulate(directory: Path, count: int | None, core_of: str | None, profile: bool, as_json: bool) -> None:
    """Build the firmware in DIR, run it on an emulated core, compare every byte with the reference."""
    from .boards import load_board
    from .compiled import load_compiled
    from .emulate import emulate as run_emulate

    model = load_compiled(directory)
    board = load_board(core_of) if core_of else model.board
    with bar(f"building the firmware and running it on an emulated {board.core}") as progress:
        found = run_emulate(model, count, core_of=board, profile=profile, progress=progress)
    if as_json:
        _print_json(found)
    else:
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
    learnt_wrong = found.get("training", {}).get("mismatched_bytes", 0)
    _fail_if(
        found["mismatched_bytes"] or learnt_wrong,
        "the emulated core and the reference disagree: please report it with the model",
    )


@tinytrain.command()
@directory_argument
@click.option("--core-of", metavar="BOARD", help="Compile the same sources for the core of another board.")
@json_option
def stack(directory: Path, core_of: str | None, as_json: bool) -> None:
    """The most stack that each function of the model in DIR can take, proven from its machine code."""
    from .boards import load_board
    from .compiled import load_compiled
    from .emulate import stack_bounds_of

    model = load_compiled(directory)
    found = stack_bounds_of(model, load_board(core_of) if core_of else model.board)
    if as_json:
        _print_json(found)
        return
    echo_bounds({entry: bound["bytes"] for entry, bound in found["functions"].items()})
    deepest = max(found["functions"].values(), key=lambda bound: bound["bytes"])
    for frame in deepest["path"]:
        click.echo(f"{frame['bytes']:8,}  {frame['function']}")


@tinytrain.command()
@json_option
def boards(as_json: bool) -> None:
    """List the boards."""
    from .boards import list_boards, load_board

    rows = [load_board(name) for name in list_boards()]
    if as_json:
        _print_json([_board_facts(b) for b in rows])
        return
    for b in rows:
        has = [name for name, on in (("DSP", b.dsp), (f"FPU {b.fpu}", b.fpu != "none"), ("MVE", b.mve)) if on]
        sizes = f"{b.flash_bytes // 1024:6,} KB flash {b.ram_bytes // 1024:7,} KB RAM"
        click.echo(f"{b.name:14} {b.core:15} {sizes}  {', '.join(has) or 'no DSP, no FPU':15} {b.description}")


def _board_facts(board: Board) -> dict[str, Any]:
    keys = ("name", "description", "core", "dsp", "fpu", "mve", "flash_bytes", "ram_bytes")
    return {key: getattr(board, key) for key in keys} | {"emulated_by": board.emulated_by or board.name}


@tinytrain.command()
@json_option
def ops(as_json: bool) -> None:
    """List the ONNX operators that compile, and their limits."""
    from .frontends.onnx_support import support_table

    rows = support_table()
    if as_json:
        _print_json([{"op": op, "support": text} for op, text in rows])
        return
    for op, text in rows:
        click.echo(f"{op:22} {' '.join(text.split())}")


# -- shared --------------------------------------------------------------------------------------


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def _fail_if(condition: object, message: str) -> None:
    if condition:
        raise TinyTrainError(message)


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
