"""What Python and the C runtime must agree on: sizes, codes and limits, each once.

Everything that counts bytes or passes codes reads them here, and generated code refuses to compile where the runtime
next to it disagrees. Sizes are those of cores with 32-bit pointers where pointers count.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

RUNTIME_VERSION = 4  # generated headers refuse another runtime with an #error
MAX_REGIONS = 4  # memory banks one plan may use
ALIGNMENT = 16  # bytes, of regions and buffers: a cache line's half, and what every SIMD load wants
MAX_SHOTS = 256  # examples a class: sums of int8 then fit int16
SCORE_BITS = 15  # fraction bits of a result's score
SESSION_STRUCT = 40  # bytes of a session's head, prototypes not counted
STORAGE_BLOCK = 32  # bytes: what a save programs at once
STATE_VERSION = 2  # of the format in flash

RUNNING_BYTES = 8  # a running mean: float, int32
SELECTED_BYTES = 24  # what was chosen of one candidate layer
FISHER_SAMPLES = 16  # that a selection without options is made on
FROM_NETWORK, FROM_HEAD = 0, 1  # where a result's label comes from
CLEAN = -1  # the epoch in which a sample is asked for as it is, without augmentation
STATUS = {  # of every call, by code
    "OK": 0, "ERR_ARGUMENT": -1, "ERR_ALIGNMENT": -2, "ERR_MEMORY": -3, "ERR_LABEL": -4, "ERR_FULL": -5,
    "ERR_POLICY": -6, "ERR_CANCELLED": -7, "ERR_EMPTY": -8, "ERR_CORRUPT": -9, "ERR_MODEL": -10, "ERR_FORMAT": -11,
    "ERR_STORAGE": -12, "ERR_MISSING": -13,
}  # fmt: skip

_LIMITS = {
    "TT_MAX_REGIONS": MAX_REGIONS, "TT_ALIGNMENT": ALIGNMENT, "TT_MAX_SHOTS": MAX_SHOTS, "TT_SCORE_BITS": SCORE_BITS,
}  # fmt: skip
_SOURCES = {"TT_FROM_NETWORK": FROM_NETWORK, "TT_FROM_HEAD": FROM_HEAD}
_STATUS = {f"TT_{name}": code for name, code in STATUS.items()}
_STORAGE = {"TT_STORAGE_BLOCK": STORAGE_BLOCK, "TT_STATE_VERSION": STATE_VERSION}
_TRAINING = {"sizeof(tt_running)": RUNNING_BYTES, "sizeof(tt_selected)": SELECTED_BYTES,
             "TT_FISHER_SAMPLES": FISHER_SAMPLES, "TT_CLEAN": CLEAN}  # fmt: skip


def status_name(code: int) -> str:
    """TT_... of a status."""
    return next((f"TT_{name}" for name, value in STATUS.items() if value == code), "no status of this runtime")


def inference_asserts() -> str:
    """C that stops the compiler where the runtime's constants are not these."""
    session = _assert([f"(sizeof(void *) != 4 || sizeof(tt_session) == {SESSION_STRUCT})"], "the session")
    named = ((_LIMITS, "limits"), (_SOURCES, "sources of results"), (_STATUS, "status codes"), (_STORAGE, "storage"))
    return "\n".join([session, *(_equal(constants, what) for constants, what in named)])


def training_asserts(selectors: Mapping[str, int]) -> str:
    """The same of what only models that learn use. selectors: the codes of training/selectors.py by their C names."""
    return "\n".join([_equal(_TRAINING, "training"), _equal(selectors, "selectors")])


def _equal(constants: Mapping[str, int], what: str) -> str:
    return _assert([f"{name} == {value}" for name, value in constants.items()], what)


def _assert(conditions: Sequence[str], what: str) -> str:
    text = f"_Static_assert({' && '.join(conditions)},"
    lines = textwrap.wrap(text, 120, subsequent_indent=" " * 15)
    return "\n".join([*lines, f'{" " * 15}"the compiler knew another runtime: {what}");'])
