"""The one family of errors a user can cause, each with the exit code it ends in.

Every message says what is wrong, where, why, and what to do about it. Anything else that escapes
is a bug of ours and exits with 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

EXIT_OK = 0
EXIT_INTERNAL = 1
EXIT_UNSUPPORTED = 2
EXIT_DOES_NOT_FIT = 3

_SHOWN = 5  # names in a message before "and N more"
_MAX_PROBLEMS = 100  # lines
_MAX_TEXT = 400  # characters of a sentence that holds text from a file


def shown(text: str | bytes, limit: int = 100) -> str:
    """Text that somebody else wrote, as messages and reports show it: on one line, nothing that a terminal obeys."""
    text = text.decode(errors="backslashreplace") if isinstance(text, bytes) else text
    text = text if len(text) <= limit else f"{text[: limit - 3]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def listed(names: Iterable[str]) -> str:
    """The first few names, each as it can be shown, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(shown(name) for name in names[:_SHOWN]) + more


def first_line(error: Exception) -> str:
    """What a library's exception says, short enough for a message of one line."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return shown(line, _MAX_TEXT)


class TinyTrainError(Exception):
    """Base of all errors that are shown to the user as one clear message, without a traceback."""

    exit_code = EXIT_INTERNAL
    kind = "failed"  # in the document that --json prints

    @property
    def facts(self) -> dict[str, Any]:
        """More about the error, as JSON values."""
        return {}

    @property
    def found(self) -> dict[str, Any]:
        """The result of a command that ended in this error, as JSON values."""
        return {}


class UsageError(TinyTrainError):
    """A file, option or folder the command cannot work with."""

    exit_code = EXIT_UNSUPPORTED
    kind = "usage"


@dataclass(frozen=True)
class Problem:
    """One node of a model that cannot be compiled."""

    node: str  # the node's name in the file, or its output's where it has none
    op: str  # the operator's type as the file spells it
    reason: str
    fix: str

    def __str__(self) -> str:
        return f"{shown(self.op)} '{shown(self.node)}': {shown(self.reason, _MAX_TEXT)} -> {self.fix}"


class UnsupportedModelError(TinyTrainError):
    """A model with nodes that cannot be compiled; all of them are listed at once."""

    exit_code = EXIT_UNSUPPORTED
    kind = "unsupported_model"

    @property
    def facts(self) -> dict[str, Any]:
        return {"problems": [asdict(problem) for problem in self.problems]}

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        nodes = len({(p.op, p.node) for p in self.problems})  # one node may have several
        lines = [f"{nodes} node{'s' if nodes != 1 else ''} cannot be compiled:"]
        lines += [f"  {p}" for p in self.problems[:_MAX_PROBLEMS]]
        if len(self.problems) > _MAX_PROBLEMS:
            lines.append(f"  and {len(self.problems) - _MAX_PROBLEMS} more")
        super().__init__("\n".join(lines))


class DoesNotFitError(TinyTrainError):
    """The model needs more of a memory than the board has."""

    exit_code = EXIT_DOES_NOT_FIT
    kind = "does_not_fit"


class TooLittleError(DoesNotFitError):
    """An option of a policy below what any choice needs. Says what is wrong; who raises it knows what would do."""

    def __init__(self, message: str, option: str, least: int) -> None:
        super().__init__(f"{message}; give --{option} {least} or more")
        self.message, self.option, self.least = message, option, least


class ToolMissingError(TinyTrainError):
    """A program that this step runs is not installed; the message holds its install line."""

    exit_code = EXIT_UNSUPPORTED
    kind = "tool_missing"


class DisagreementError(TinyTrainError):
    """Two that must compute the same did not; `result` says how far they are apart."""

    kind = "disagreement"

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        super().__init__(message)
        self.result = result

    @property
    def found(self) -> dict[str, Any]:
        return self.result
