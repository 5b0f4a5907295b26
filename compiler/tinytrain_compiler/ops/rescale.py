"""A change of scale of single bytes, as a table: what lookup and concat share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..graph import Quantization, quantize_multiplier, requantize


def rescale_table(x: Quantization, y: Quantization, low: int, high: int) -> NDArray[np.int8]:
    """int8 (256,), indexed by the input byte read as unsigned: (byte - z_x) s_x / s_y by the requantisation rule."""
    m = quantize_multiplier(np.array([x.scale / y.scale]))
    values = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int64) - x.zero_point
    return requantize(values, m.values, m.shift, y.zero_point, low, high)
