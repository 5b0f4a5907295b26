"""A graph that takes or gives integers gets the QuantizeLinear or DequantizeLinear it was cut from."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from ....errors import shown
from ..float_passes.edit import GraphEditor
from .integers import MOVES
from .pairs import Parameters, dequantize, parameters_of, quantize

_BYTES = (TensorProto.INT8, TensorProto.UINT8)


def float_input(editor: GraphEditor) -> list[str]:
    """An input that nothing dequantises stays as it is."""
    (info,) = [i for i in editor.graph.input if i.name not in editor.constants]
    p = _read_with(info.name, editor)
    if info.type.tensor_type.elem_type not in _BYTES or p is None:
        return []
    integers = editor.fresh(f"{info.name}_quantized")
    readers = editor.consumers(info.name)
    editor.replace_uses(info.name, integers)
    editor.replace(readers[0], [quantize(editor, info.name, p, integers), readers[0]])
    was = "int8" if info.type.tensor_type.elem_type == TensorProto.INT8 else "uint8"
    info.type.tensor_type.elem_type = TensorProto.FLOAT
    return [f"input '{shown(info.name)}' is {was} in the file: samples are given as real numbers, scale * (q - zero)"]


def _read_with(name: str, editor: GraphEditor) -> Parameters | None:
    """Scale and zero point with which a tensor of integers is dequantised, also behind nodes that move values."""
    todo, seen = [name], {name}
    while todo:
        for node in editor.consumers(todo.pop()):
            if node.op_type == "DequantizeLinear":
                return parameters_of(node)
            if node.op_type in MOVES:
                todo += [new for new in node.output if new not in seen]
                seen.update(node.output)
    return None


def float_output(editor: GraphEditor) -> list[str]:
    """Its name in the file stays that of the integers."""
    info = editor.graph.output[0]
    writer = editor.producer(info.name)
    if writer is None or writer.op_type != "QuantizeLinear" or (p := parameters_of(writer)) is None:
        return []
    back = dequantize(editor, info.name, p)
    editor.replace(writer, [writer, back])
    editor.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info(back.output[0], TensorProto.FLOAT, None))
    return []
