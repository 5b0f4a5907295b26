"""How a command ends: its exit code, what stderr says, and, with --json, the document on stdout."""

from __future__ import annotations

import signal
import sys

TYPE_CHECKING = False  # typing is one of the imports that take long
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, NoReturn

JSON_FLAG = "--json"
INTERNAL, INTERRUPTED = 1, 130  # exit codes; the others come with their errors


def run(program: str) -> NoReturn:
    """Run a program of program.py on sys.argv and exit.

    Our errors become one message and their exit code, Ctrl-C exits with 130, whatever it broke on its way up, and any
    other exception becomes a bug report. Ctrl-C after the end is ignored: the exit code is there.
    """
    interrupts: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as a shell sets it for what runs in the background
        signal.signal(signal.SIGINT, interrupt)
    try:
        code = _code_of(program)
    except SystemExit:  # click's, where a pipe's reader is gone
        raise
    except BaseException as error:
        if not interrupts and not isinstance(error, KeyboardInterrupt):
            _report_bug(error)
            code = INTERNAL
        else:  # a library may have made something else of it
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            code = _fail("interrupted", "stopped", "stopped", INTERRUPTED)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _code_of(program: str) -> int:
    import click

    from ..errors import EXIT_UNSUPPORTED, TinyTrainError
    from .program import PROGRAMS

    try:
        PROGRAMS[program].main(standalone_mode=False)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        error.show()
        return _fail("usage", error.format_message(), None, EXIT_UNSUPPORTED)
    except TinyTrainError as error:
        return _fail(error.kind, str(error), f"error: {error}", error.exit_code, error.facts, error.found)
    return 0


def _report_bug(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error)
    text = f"internal error: {error}; this is a bug of ours, please report it with the lines above"
    _fail("internal", f"{type(error).__name__}: {error}", text, INTERNAL)


def _fail(
    kind: str, message: str, line: str | None, code: int, facts: dict[str, Any] | None = None,
    found: dict[str, Any] | None = None,
) -> int:  # fmt: skip
    """Say it on stderr and, with --json, on stdout. found: a result that stands in the same document."""
    import click

    if line is not None:
        click.echo(line, err=True)
    if JSON_FLAG in sys.argv[1:]:
        import json

        error = {"kind": kind, "message": message, "exit_code": code, **(facts or {})}
        click.echo(json.dumps({**(found or {}), "error": error}, indent=2))
    return code
