"""The one family of errors a user can cause, each with the exit code it ends in.

Every message says what is wrong, where, why, and what to do about it. Anything else that escapes
is a bug of ours and exits with 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

EXIT_OK = 0
EXIT_INTERNAL = 1
EXIT_UNSUPPORTED = 2
EXIT_DOES_NOT_FIT = 3
EXIT_INTERRUPTED = 130


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
        return f"{self.op} '{self.node}': {self.reason} -> {self.fix}"


class UnsupportedModelError(TinyTrainError):
    """A model with nodes that cannot be compiled; all of them are listed at once."""

    exit_code = EXIT_UNSUPPORTED
    kind = "unsupported_model"

    @property
    def facts(self) -> dict[str, Any]:
        return {"problems": [asdict(problem) for problem in self.problems]}

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        head = f"{len(self.problems)} node{'s' if len(self.problems) != 1 else ''} cannot be compiled:"
        super().__init__("\n".join([head, *(f"  {p}" for p in self.problems)]))


class DoesNotFitError(TinyTrainError):
    """The model needs more of a memory than the board has."""

    exit_code = EXIT_DOES_NOT_FIT
    kind = "does_not_fit"


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
