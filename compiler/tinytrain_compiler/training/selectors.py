"""Selectors by name: by which scores the device chooses channels, and within which limits.

Their integer rules are in runtime_c/ and, in NumPy, in reference/selection.py: numerics.md, "Selection". This
module imports no NumPy: `--help` reads it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Selector:
    """One way to choose channels of the candidate layers."""

    name: str
    code: int  # of tt_selector in runtime_c/tinytrain.h
    summary: str
    measures: bool = True  # runs samples through the network, forward and backward
    ranks_layers: bool = False  # layers in the order of the paper's score, not as they run
    redraws: bool = False  # draws channels anew in every epoch, by scores that stay in the pool

    @property
    def c_name(self) -> str:
        """Its constant in runtime_c/tinytrain.h."""
        return f"TT_SELECT_{self.name.upper().replace('-', '_')}"


FISHER = Selector("fisher", 1, "channels with the most Fisher information first, layers in execution order")
RANDOM = Selector("random", 2, "channels by a seed", measures=False)
L2 = Selector("l2", 3, "channels by the squared norm of their pretrained weights", measures=False)
LAYER_SCORE = Selector(
    "layer-score", 4,
    "as fisher, but layers in the order of the paper's score: Fisher information per parameter and MAC",
    ranks_layers=True,
)  # fmt: skip
FISHER_RESAMPLE = Selector(
    "fisher-resample", 5, "as fisher at first; at the beginning of every further epoch each layer's channels are drawn "
    "anew, as many as before, each with a probability in proportion to its Fisher information", redraws=True,
)  # fmt: skip
SELECTORS = {s.name: s for s in (FISHER, RANDOM, L2, LAYER_SCORE, FISHER_RESAMPLE)}

SELECTOR_CODES = {s.c_name: s.code for s in SELECTORS.values()}
UNLIMITED = 2**32 - 1  # MACs: UINT32_MAX, no limit


@dataclass(frozen=True)
class Choice:
    """How the device chooses where it does."""

    pool: int | None = None  # bytes for the training state; None: what can be used, training/pool.py
    selector: Selector = FISHER
    macs: int = UNLIMITED  # of weight gradients in one step
