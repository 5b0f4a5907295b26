"""Models that come quantised, in whatever way a quantiser spells them, brought into one form: QDQ.

Behind `to_qdq` every integer tensor of the model stands between a QuantizeLinear and DequantizeLinears, and everything
between those computes in float. What a pass does not understand it leaves, for the support rules to refuse by name.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx

from ..float_passes.edit import GraphEditor
from ..float_passes.pooling import reduce_mean_to_pool
from .constants import move_constants
from .ends import float_input, float_output
from .fan_out import one_quantizer_each
from .input_order import quantize_first
from .integers import spell_out_integers
from .operators import SPELLED, spell_out_operators

Pass = Callable[[GraphEditor], list[str]]


def _means(editor: GraphEditor) -> list[str]:
    reduce_mean_to_pool(editor)
    return []


_PASSES: tuple[Pass, ...] = (
    spell_out_operators,
    spell_out_operators,  # a softmax whose shape is known only now
    float_input,
    spell_out_integers,
    float_output,
    move_constants,
    _means,
    quantize_first,
    one_quantizer_each,
)


def holds_integers(proto: onnx.ModelProto) -> bool:
    """Whether the model comes quantised, in any spelling."""
    spellings = {"DequantizeLinear", "QuantizeLinear", *SPELLED}
    return any(node.op_type in spellings for node in proto.graph.node)


def to_qdq(proto: onnx.ModelProto) -> list[str]:
    """Rewrite a quantised model in place; a float one stays as it is. proto: constants folded, opset 13 or newer.

    Returns notes: what was changed and a user may want to know.
    """
    if not holds_integers(proto):
        return []
    notes = []
    for each in _PASSES:
        editor = GraphEditor(proto)
        notes += each(editor)
        editor.remove_unused()
        editor.refresh()
    return notes
