"""What an oracle can do; each file format brings its own (frontends/)."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..graph import Graph
from ..ops import Int8


class Oracle(Protocol):
    """A program of others that runs the quantised model. All values are int8 in the device's layout."""

    @property
    def name(self) -> str:
        """Of the program."""
        ...

    @property
    def file(self) -> tuple[str, bytes]:
        """What a compiled folder stores to open it again: the suffix behind the model's name, and the content."""
        ...

    def tensors(self, graph: Graph, inputs: Int8) -> dict[str, Int8]:
        """Those tensors of the graph that it computes too, (n, *shape) each, for inputs (n, bytes)."""
        ...

    def optimised_outputs(self, graph: Graph, inputs: Int8) -> NDArray[np.int64]:
        """The network's output as (n, elements) steps where the program may rearrange its arithmetic: its yardstick
        for itself."""
        ...
