"""Every result has one quantiser.

Quantisers that agree are one. Where two of them quantise one result with different scales, or one reads it behind a
Relu and one in front, the operator is computed for each: rounding twice would not be exact.
"""

from __future__ import annotations

import onnx

from ....errors import listed
from ..float_passes.edit import GraphEditor
from .pairs import parameters_of

_FUSED = ("Clip", "Relu")  # become limits of the operator in front


def one_quantizer_each(editor: GraphEditor) -> list[str]:
    _merge(editor)
    twice = [name for node in reversed(editor.nodes()) for name in _copy(node, editor)]
    if not twice:
        return []
    return [f"computed once for each of its scales, since two quantisers read the result: {listed(sorted(set(twice)))}"]


def _merge(editor: GraphEditor) -> None:
    for tensor in dict.fromkeys(node.input[0] for node in editor.nodes("QuantizeLinear")):
        kept: list[onnx.NodeProto] = []
        for node in [n for n in editor.consumers(tensor) if n.op_type == "QuantizeLinear"]:
            p = parameters_of(node)
            like = [k for k in kept if p is not None and (q := parameters_of(k)) is not None and p.same(q, editor)]
            if like and node.output[0] not in editor.output_names:
                editor.remove([node])
                editor.replace_uses(node.output[0], like[0].output[0])
            else:
                kept.append(node)


def _copy(node: onnx.NodeProto, editor: GraphEditor) -> list[str]:
    """Give every fused reader of a node but the first a node of its own. Readers come after what they read."""
    if len(node.output) != 1 or node.op_type in ("DequantizeLinear", "QuantizeLinear"):
        return []
    readers = [n for n in editor.consumers(node.output[0]) if n.op_type in (*_FUSED, "QuantizeLinear")]
    for i, reader in enumerate(readers[1:], 1):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = editor.fresh(f"{node.name or node.output[0]}_{i}")
        copy.output[0] = editor.fresh(f"{node.output[0]}_{i}")
        editor.replace(node, [node, copy])
        editor.set_input(reader, 0, copy.output[0])
    return [node.name or node.output[0]] * (len(readers) > 1 and node.op_type not in _FUSED)
