"""Options and arguments that several commands share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ..options import GRADIENTS, ROUNDING, CompileOptions
from ..training.option import Option

HELP = {"help_option_names": ["-h", "--help"]}  # of a program, and so of its commands

F = TypeVar("F", bound=Callable[..., Any])


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


def shared_option(option: Option) -> Callable[[F], F]:
    """An option of CompileOptions for another command, with the same default and help."""
    default = next(f.default for f in dataclasses.fields(CompileOptions) if f.metadata.get("option") is option)
    text = option.text(default)
    return click.option(option.flag, default=text, show_default=True, metavar=option.metavar, help=option.help)


gradients_option, rounding_option = shared_option(GRADIENTS), shared_option(ROUNDING)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
directory_argument = click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
count_option = click.option("--inputs", "count", type=click.IntRange(1), help="How many test inputs to run.")
