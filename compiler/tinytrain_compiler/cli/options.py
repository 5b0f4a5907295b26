"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class Numbers(click.ParamType[tuple[float, ...]]):
    """One number, or one per channel: 127.5 or 123.7,116.3,103.5."""

    name = "number[,number...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a number or a comma-separated list of numbers", param, ctx)


mean_option = click.option(
    "--mean", type=Numbers(), default="127.5", show_default=True,
    help="Subtracted from a pixel, 0..255. Where --mean and --std are at most 1, pixels are 0..1 (torchvision's way).",
)  # fmt: skip
std_option = click.option("--std", type=Numbers(), default="127.5", show_default=True, help="Then divided by this.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
directory_argument = click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
count_option = click.option("--inputs", "count", type=click.IntRange(1), help="How many test inputs to run.")
gradients_option = click.option(
    "--gradients", default="int16", show_default=True, help="Of the backward pass: int16, or float32 (needs an FPU)."
)
rounding_option = click.option(
    "--rounding", default="nearest", show_default=True, help="Of weights: nearest, or stochastic (half the memory)."
)
