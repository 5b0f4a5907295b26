"""Nodes that do nothing go; the others get unique names."""

from __future__ import annotations

from .edit import GraphEditor


def remove_no_ops(editor: GraphEditor) -> None:
    for node in editor.nodes("Identity", "Dropout"):
        editor.bypass(node)


def name_nodes(editor: GraphEditor) -> None:
    """Names that are there and unique stay; others come from the node's output tensor."""
    seen: set[str] = set()
    for node in editor.nodes():
        if not node.name or node.name in seen:
            base = node.name or f"{node.op_type}_{node.output[0]}"
            node.name = editor.fresh(base)
        seen.add(node.name)
