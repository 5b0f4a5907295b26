"""What the shapes of a model alone say about its memory, before any weight is quantised."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerOutline:
    """A layer with weights. Bytes are those of int8, and none is more than what the compiled layer takes."""

    name: str
    input_bytes: int
    output_bytes: int
    weight_bytes: int  # 0 where an earlier layer has the same weights
    in_place: bool  # its output may take over the memory of its input

    @property
    def live_bytes(self) -> int:
        """Activations that are live while the layer runs, at least."""
        if self.in_place:
            return max(self.input_bytes, self.output_bytes)
        return self.input_bytes + self.output_bytes
