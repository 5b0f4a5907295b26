"""Options of policies and heads, and what the help says about them: all of it from their registries.

Read when a command runs, not when it is defined: a policy that is registered later is there like any other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..training.heads import HEADS
from ..training.option import Option
from ..training.policies import POLICIES, policies_with, policy_options
from ..training.selectors import SELECTORS


class PolicyCommand(click.Command):
    """A command that takes --policy and --head: with the options of all policies, and a list of what can be chosen."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own = super().get_params(ctx)
        after = 1 + next(i for i, parameter in enumerate(own) if "--policy" in parameter.opts)
        return [*own[:after], *map(_parameter, policy_options()), *own[after:]]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, rows in (
            ("Policies (--policy), and what trains", [(name, policy.summary()) for name, policy in POLICIES.items()]),
            ("Selectors (--selection)", [(name, selector.summary) for name, selector in SELECTORS.items()]),
            ("Heads (--head)", [(name, head.summary()) for name, head in HEADS.items()]),
        ):
            with formatter.section(title):
                formatter.write_dl(rows)
        super().format_epilog(ctx, formatter)


def _parameter(option: Option) -> click.Option:
    kind: Any = str
    if option.kind is Path:
        kind = click.Path(path_type=Path)
    elif option.kind is int:
        kind = click.IntRange(option.minimum, option.maximum)
    return click.Option(
        [option.flag],
        type=kind,
        metavar=option.metavar,
        help=f"Of {' and '.join(policies_with(option.name))}: {option.help}",
    )
