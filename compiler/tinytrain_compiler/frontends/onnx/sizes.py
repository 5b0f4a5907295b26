"""How large the tensors between the nodes are, and how much there is to compute, before anything is."""

from __future__ import annotations

import onnx

from ...errors import UsageError, first_line
from .float_passes.edit import static_shape
from .limits import MAX_ELEMENTS, MAX_MACS, elements, spelled
from .structure import node_label


def check_sizes(proto: onnx.ModelProto) -> None:
    """Raise UsageError, naming the node, where shapes contradict each other or are beyond all limits.

    proto: with constants folded. Shapes that inference does not find are left to the rules.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    except Exception as e:  # inference names the node
        raise UsageError(f"its layers don't fit together: {first_line(e)}; export it again") from e
    graph = inferred.graph
    shapes = {i.name: static_shape(i) for i in [*graph.input, *graph.value_info, *graph.output]}
    shapes |= {t.name: tuple(t.dims) for t in graph.initializer}
    macs = 0
    for node in graph.node:
        for name in node.output:
            shape = shapes.get(name)
            if shape is not None and (min(shape, default=1) < 1 or elements(shape) > MAX_ELEMENTS):
                raise UsageError(
                    f"{node_label(node)} makes a tensor of shape {spelled(shape)}; from 1 to {MAX_ELEMENTS:,} values "
                    "can be compiled: use a smaller input, check kernels, strides and pads"
                )
        weight = shapes.get(node.input[1]) if len(node.input) > 1 else None
        macs += _macs(node, shapes.get(node.output[0]), weight)
        if macs > MAX_MACS:
            raise UsageError(
                f"up to {node_label(node)} it takes {macs:,} multiplications, no board does {MAX_MACS:,} in a minute: "
                "use a smaller network or input"
            )


def _macs(node: onnx.NodeProto, output: tuple[int, ...] | None, weight: tuple[int, ...] | None) -> int:
    """Multiplications of the operators that have weights; 0 where they can't be known."""
    if output is None or not weight:
        return 0
    if node.op_type == "Conv":
        return elements(output) * elements(weight[1:])
    return elements(output) * elements(weight) // max(output[-1], 1) if node.op_type in ("Gemm", "MatMul") else 0
