"""`tinytrain verify`: the generated C on this machine against the reference and onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import count_option, directory_argument, json_option
from .printing import bar, show


@click.command()
@directory_argument
@count_option
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True), metavar="FILE.npz|DIR", help="Also run all of this data."
)
@click.option(
    "--float",
    "float_model",
    type=click.Path(path_type=Path, exists=True),
    metavar="MODEL",
    help="With --data: compare top-1 with this float model.",
)
@json_option
def verify(directory: Path, count: int | None, data: Path | None, float_model: Path | None, as_json: bool) -> None:
    """Compare the generated C in DIR with the NumPy reference, byte for byte, and with onnxruntime."""
    from ..compiled import load_compiled
    from ..verify import verify as run_verify
    from ..verify import verify_on_data

    model = load_compiled(directory)
    with bar("verifying on this machine") as progress:
        found = run_verify(model, count, progress)
    if data is not None:
        with bar(f"running {data.name}") as progress:
            found["data"] = verify_on_data(model, data, float_model, progress)
    wrong = found["host"]["mismatched_bytes"]
    message = f"{wrong} bytes differ: the generated C is wrong here; please report it with the model"
    show(found, as_json, _print, message if wrong else None)


def _print(found: dict[str, Any]) -> None:
    host, ort = found["host"], found.get("onnxruntime")
    click.echo(f"host C against the NumPy reference: {host['inputs']} inputs, {host['mismatched_bytes']} bytes differ")
    if ort is not None:
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
