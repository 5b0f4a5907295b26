"""The prefix of a model's C names: what the user says, or made from the file's name."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import UsageError

# Words that C, C++ or CMake keep for themselves, and headers that <name>.h would hide: a model's name becomes a
# function, a header and a CMake target.
_RESERVED = frozenset(
    """
    auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while bool class
    delete new operator private protected public template this throw try using virtual namespace
    all clean test install help package edit_cache rebuild_cache main run model m tinytrain tt
    assert complex ctype errno fenv inttypes iso646 limits locale math setjmp signal stdalign stdarg stdatomic stdbool
    stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype
    startup uart text harness semihosting
    """.split()  # noqa: SIM905
)


def model_name(model: str | Path, name: str | None = None) -> str:
    """A C identifier: a given name must be one, the file's name is made one. Errors: UsageError."""
    if name is not None:
        lower = name.lower()
        if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or lower.startswith("tt_") or lower in _RESERVED:
            raise UsageError(
                f"--name {name!r}: use letters, digits and _, beginning with a letter; not tt_... and no word that "
                f"C or CMake reserves. For example: --name mynet"
            )
        return name
    prefix = re.sub(r"\W+", "_", Path(model).stem, flags=re.ASCII).strip("_").lower() or "model"
    return f"net_{prefix}" if not prefix[0].isalpha() or prefix in _RESERVED or prefix.startswith("tt_") else prefix
