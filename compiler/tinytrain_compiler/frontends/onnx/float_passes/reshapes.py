"""Flatten, Squeeze, Unsqueeze and Reshape are one Reshape with a constant shape; useless ones vanish."""

from __future__ import annotations

import numpy as np
from onnx import helper

from .edit import GraphEditor

RESHAPES = ("Flatten", "Squeeze", "Unsqueeze", "Reshape")


def unify_reshapes(editor: GraphEditor) -> None:
    for node in editor.nodes(*RESHAPES):
        result = node.output[0]
        source = node.input[0]
        before = editor.producer(source)
        if before is not None and before.op_type == "Reshape" and editor.only_consumer(source) is not None:
            editor.remove([before])  # only the last shape of a chain counts
            source = before.input[0]
            editor.set_input(node, 0, source)
        if editor.shapes[source] == editor.shapes[result]:
            editor.bypass(node)
            continue
        shape = editor.add_constant(f"{result}_shape", np.array(editor.shapes[result], dtype=np.int64))
        editor.replace(node, [helper.make_node("Reshape", [source, shape], [result], name=node.name)])
