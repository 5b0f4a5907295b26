"""QDQ ONNX -> quantised graph: the importer, with a builder for each operator."""

from __future__ import annotations

import onnx

from ...graph import Graph
from . import operators  # noqa: F401  (registers the builders)
from .qdq_importer import QdqImporter


def import_qdq(proto: onnx.ModelProto) -> Graph:
    """The quantised graph of a QDQ model.

    Errors: UnsupportedModelError naming node, operator, reason and fix.
    """
    return QdqImporter(proto).run()
