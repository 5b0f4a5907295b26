"""Commands whose options, and what the help says about their choices, come from records and registries.

They are read when a command runs, not when it is defined: a policy that is registered later is there like any other.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from ..options import CompileOptions
from ..training.heads import HEADS
from ..training.option import Option
from ..training.policies import POLICIES, policies_with, policy_options
from ..training.selectors import SELECTORS
from .options import Numbers


class PolicyCommand(click.Command):
    """A command that takes --policy and --head: with the options of all policies, and a list of what can be chosen."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own = super().get_params(ctx)
        after = 1 + next(i for i, parameter in enumerate(own) if "--policy" in parameter.opts)
        return [*own[:after], *map(_policy_parameter, policy_options()), *own[after:]]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, rows in (
            ("Policies (--policy), and what trains", [(name, policy.summary()) for name, policy in POLICIES.items()]),
            ("Selectors (--selection)", [(name, selector.summary) for name, selector in SELECTORS.items()]),
            ("Heads (--head)", [(name, head.summary()) for name, head in HEADS.items()]),
        ):
            with formatter.section(title):
                formatter.write_dl(rows)
        super().format_epilog(ctx, formatter)


class CompileCommand(PolicyCommand):
    """A command with all of CompileOptions, in the record's order, behind its own --board."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own = click.Command.get_params(self, ctx)
        after = 1 + next(i for i, parameter in enumerate(own) if "--board" in parameter.opts)
        return [*own[:after], *_compile_parameters(), *own[after:]]


def _compile_parameters() -> list[click.Parameter]:
    found: list[click.Parameter] = []
    for field in dataclasses.fields(CompileOptions):
        if field.name == "policy":
            text = "What trains on the device: see below.  [default: none]"
            found.append(click.Option(["--policy"], metavar="P", help=text))
            found.extend(map(_policy_parameter, policy_options()))
        elif "option" in field.metadata:
            option: Option = field.metadata["option"]
            default = "" if field.default is None else f"  [default: {option.text(field.default)}]"
            found.append(_parameter(option, option.help + default))
    return found


def _policy_parameter(option: Option) -> click.Option:
    return _parameter(option, f"Of {' and '.join(policies_with(option.name))}: {option.help}")


def _parameter(option: Option, text: str) -> click.Option:
    """Without a default, so that what is not given is None."""
    kind: Any = str
    if option.kind is Path:
        kind = click.Path(path_type=Path)
    elif option.kind is int:
        kind = click.IntRange(option.minimum, option.maximum)
    elif option.kind is tuple:
        kind = Numbers()
    return click.Option([option.flag], type=kind, metavar=option.metavar, help=text)
