"""Which weights belong to which input channel, and where they lie in flash: one description for all layers.

A convolution has `groups` groups of `inputs` input and `outputs` output channels each. An ordinary convolution is
one group, a depthwise one has a group a channel, a fully connected layer is a 1x1 convolution of one pixel whose
channels are the input's values. An input channel c belongs to group c // inputs and meets the weights of that
group's outputs, so a *selection* of channels is an array (outputs, KH, KW, selected): the same shape whatever the
layer, and the order in which deltas are stored (docs/reference/numerics.md, "Updates").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class WeightLayout:
    """Strides are bytes in flash: weight (group, output, tap, input) lies at their sum, inputs next to each other."""

    groups: int
    outputs: int  # of each group
    inputs: int  # of each group
    kernel: tuple[int, int]
    bytes: int  # of all weights, padding included
    group_stride: int
    output_stride: int
    tap_stride: int

    @property
    def channels(self) -> int:
        """Input channels, of all groups."""
        return self.groups * self.inputs

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    def count(self, selected: int) -> int:
        """Weights of so many input channels."""
        return self.outputs * self.taps * selected

    def by_group(self, weights: NDArray[Any]) -> NDArray[Any]:
        """A view (groups, outputs, KH, KW, inputs) of a node's weights, which start with all outputs."""
        return weights.reshape(self.groups, self.outputs, *self.kernel, self.inputs)

    def select(self, weights: NDArray[Any], channels: Sequence[int] | NDArray[np.intp]) -> NDArray[Any]:
        """(outputs, KH, KW, selected): the weights of these input channels."""
        group, within = self._split(channels)
        return np.moveaxis(self.by_group(weights)[group, :, :, :, within], 0, -1)

    def replaced(
        self, weights: NDArray[Any], channels: Sequence[int] | NDArray[np.intp], values: NDArray[Any]
    ) -> NDArray[Any]:
        """A copy of a node's weights, of the values' type, with those of these channels replaced."""
        result = weights.astype(values.dtype)
        group, within = self._split(channels)
        self.by_group(result)[group, :, :, :, within] = np.moveaxis(values, -1, 0)
        return result

    def outputs_of(self, channels: Sequence[int] | NDArray[np.intp]) -> NDArray[np.intp]:
        """(outputs, 1, 1, selected): which of the layer's output channels each selected weight belongs to."""
        group, _ = self._split(channels)
        found: NDArray[np.intp] = (group * self.outputs + np.arange(self.outputs)[:, None])[:, None, None, :]
        return found

    def _split(self, channels: Sequence[int] | NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        chosen = np.asarray(channels, np.intp)
        return chosen // self.inputs, chosen % self.inputs
