"""What a QuantizeLinear or DequantizeLinear says: scale, zero point, the integers' type, and along which axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ...graph import Quantization


@dataclass(frozen=True)
class Scales:
    """real = scale * (integer - zero)."""

    scale: NDArray[np.float64]  # (1,), or one for each index of `axis`
    zero: NDArray[np.int64]  # likewise
    dtype: np.dtype[Any]  # of the integers
    axis: int  # as the file gives it; means nothing where there is one scale

    @property
    def quantization(self) -> Quantization | None:
        """Of an activation, in int8 (uint8 are the same steps, numbered from -128); None where it is another kind."""
        if self.scale.size != 1 or self.zero.size != 1 or self.dtype not in (np.int8, np.uint8):
            return None
        offset = 128 if self.dtype == np.uint8 else 0
        return Quantization(float(self.scale[0]), int(self.zero[0]) - offset)


def scales_of(
    node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]], dtype: np.dtype[Any] | None = None
) -> Scales:
    """dtype: of a DequantizeLinear's input, which counts where it has no zero point."""
    attributes = {a.name: a.i for a in node.attribute}
    scale = constants[node.input[1]].astype(np.float64).reshape(-1)
    axis = attributes.get("axis", 1)
    if len(node.input) > 2 and node.input[2]:
        zero = constants[node.input[2]]
        return Scales(scale, zero.astype(np.int64).reshape(-1), zero.dtype, axis)
    if dtype is None:
        element = attributes.get("output_dtype", 0) or onnx.TensorProto.UINT8
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(element))
    return Scales(scale, np.zeros(1, np.int64), dtype, axis)


def along(values: NDArray[Any], axis: int, rank: int) -> NDArray[Any]:
    """(n,) in a shape that broadcasts along `axis` of a tensor of this rank; one value along any."""
    return values if values.size == 1 else values.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def with_scalar_scales(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with scales and zero points of shape (1,) as scalars: some of onnxruntime's fused kernels take
    nothing else."""
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    graph = proto.graph
    single = {t.name: t for t in graph.initializer if list(t.dims) == [1]}
    scalars: dict[str, str] = {}
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for i, name in enumerate(node.input):
            if i and name in single:
                node.input[i] = scalars.setdefault(name, f"{name}/scalar")
    graph.initializer.extend(
        numpy_helper.from_array(numpy_helper.to_array(single[name]).reshape(()), scalar)
        for name, scalar in scalars.items()
    )
    return proto
