"""What several commands print: progress on stderr, JSON, and results of emulation."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ..errors import DisagreementError

if TYPE_CHECKING:
    from rich.progress import Progress


class stages:  # noqa: N801  (used as a function)
    """Names of stages on stderr: a live spinner on a terminal, one line each elsewhere."""

    def __enter__(self) -> Callable[[str], None]:
        self._status: Any = None
        if not sys.stderr.isatty():
            return lambda stage: click.echo(f"{stage} ...", err=True)
        from rich.console import Console

        self._status = Console(stderr=True).status("starting")
        self._status.start()
        return lambda stage: self._status.update(stage)

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()


class bar:  # noqa: N801  (used as a function)
    """A progress bar on stderr, on terminals only."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._progress: Progress | None = None

    def __enter__(self) -> Callable[[int, int], None]:
        if not sys.stderr.isatty():
            click.echo(f"{self._title} ...", err=True)
            return lambda done, total: None
        from rich.console import Console
        from rich.progress import Progress

        self._progress = shown = Progress(console=Console(stderr=True), transient=True)
        task = shown.add_task(self._title)
        shown.start()
        return lambda done, total: shown.update(task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def show(found: dict[str, Any], as_json: bool, text: Callable[[dict[str, Any]], None], wrong: str | None) -> None:
    """Print a result, then fail where something is `wrong`; the JSON document holds both."""
    if not as_json:
        text(found)
    elif not wrong:
        print_json(found)
    if wrong:
        raise DisagreementError(wrong, found)


def echo_bounds(bounds: dict[str, int]) -> None:
    listed = ", ".join(f"{entry} {size:,}" for entry, size in bounds.items())
    click.echo(f"stack, at most, without interrupts and your callbacks: {listed}")


def echo_training(found: dict[str, Any]) -> None:
    click.echo(
        f"training ({found['policy']}, {found['head']} head): {found['steps']} steps, {found['mismatched_bytes']} of "
        f"{found['training_state_bytes']:,} bytes of training state differ from this machine's"
    )
    click.echo(
        f"{found['instructions_per_step']:,} instructions per step: forward {found['instructions_forward']:,}, loss "
        f"{found['instructions_loss']:,}, backward and update {found['instructions_backward']:,}; "
        f"{found['stack_bytes']:,} bytes of stack were used"
    )
    for symbol, instructions in found.get("profile", {}).items():
        click.echo(f"{instructions:12,}  {symbol}")
