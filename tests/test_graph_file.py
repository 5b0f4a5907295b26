"""A graph written to a file and read back is the same graph, and lowers to the same C."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from networks import NETWORKS
from tinytrain_compiler import Artifacts
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.codegen.emit import ModelInfo
from tinytrain_compiler.compiled import load_compiled
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.graph.file import VERSION, GraphFileError, graph_bytes, graph_from_bytes
from tinytrain_compiler.lowering import emit, lower
from tinytrain_compiler.ops import registered
from tinytrain_compiler.ops.window import Window

ATTRIBUTES = {name: each.attributes for name, each in registered().items()}


def sources(graph: Graph) -> dict[str, str]:
    lowered = lower(graph, load_board("stm32f746"), "net")
    return emit(lowered, ModelInfo("net", (), (), 10, None))


def assert_same(a: Graph, b: Graph) -> None:
    assert replace(a, nodes=[]) == replace(b, nodes=[])
    for x, y in zip(a.nodes, b.nodes, strict=True):
        assert replace(x, constants={}) == replace(y, constants={})
        assert list(x.constants) == list(y.constants)
        for role, values in x.constants.items():
            np.testing.assert_array_equal(values, y.constants[role], strict=True)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_graph_survives_its_file(name: str) -> None:
    graph = NETWORKS[name]()
    data = graph_bytes(graph)
    again = graph_from_bytes(data, ATTRIBUTES)
    assert_same(graph, again)
    assert graph_bytes(again) == data
    assert sources(again) == sources(graph)


def test_a_compiled_folder_holds_the_graph_that_was_lowered(compiled_small: Artifacts) -> None:
    model = load_compiled(compiled_small.directory or "")
    assert_same(compiled_small.graph, model.graph)
    assert model.graph.origins, "the oracle's names are in it"


def damaged() -> dict[str, bytes]:
    data = graph_bytes(NETWORKS["mobile"]())
    head, document, arrays = data.split(b"\n", 2)

    def with_document(old: bytes, new: bytes) -> bytes:
        return b"\n".join([head, document.replace(old, new), arrays])

    return {
        "nothing": b"",
        "another version": b"tinytrain graph 1\n" + document + b"\n" + arrays,
        "no JSON": head + b"\n{\n",
        "no object": head + b"\n[]\n",
        "a key is missing": with_document(b'"features"', b'"other"'),
        "an unknown operator": with_document(b'"conv2d"', b'"conv3d"'),
        "an unknown attribute": with_document(b'"groups"', b'"gruppen"'),
        "a tensor that nobody writes": head
        + b"\n"
        + document.replace(b'"output": "', b'"output": "x')
        + b"\n"
        + arrays,
        "arrays cut short": data[:-5],
    }


@pytest.mark.parametrize("what", damaged())
def test_what_is_no_graph_is_refused(what: str) -> None:
    with pytest.raises(GraphFileError):
        graph_from_bytes(damaged()[what], ATTRIBUTES)


def test_the_layout_is_the_documented_one() -> None:
    """Read with JSON and NumPy alone."""
    graph = NETWORKS["mobile"]()
    magic, text, arrays = graph_bytes(graph).split(b"\n", 2)
    assert magic == b"tinytrain graph 2"
    document = json.loads(text)
    assert [node["name"] for node in document["nodes"]] == [node.name for node in graph.nodes]
    for entry, node in zip(document["nodes"], graph.nodes, strict=True):
        for role, where in entry["constants"].items():
            size = int(np.prod(where["shape"]))
            found = np.frombuffer(arrays, where["dtype"], size, where["offset"]).reshape(where["shape"])
            np.testing.assert_array_equal(found, node.constants[role])
    scales = [tensor["scale"] for tensor in document["tensors"]]
    assert scales == [tensor.quantization.scale for tensor in graph.tensors.values()]


def test_the_version_stands_for_these_attributes() -> None:
    """Where an operator's attributes change, folders of earlier versions no longer mean the same: raise VERSION."""
    assert VERSION == 2
    limits = ["low", "high"]
    assert {name: [f.name for f in fields(kind)] for name, kind in ATTRIBUTES.items()} == {
        "add": limits,
        "avg_pool": ["window", "count_include_pad", *limits, "raw_mean"],
        "broadcast_add": ["low", "high", "operand_scale", "operand_zero", "sign_a", "sign_b"],
        "concat": ["axis", *limits],
        "conv2d": ["window", "groups", *limits],
        "depthwise_conv2d": ["window", "groups", *limits],
        "fully_connected": limits,
        "layer_norm": ["epsilon", *limits],
        "lookup": limits,
        "matmul": [
            "batch",
            "rows",
            "inner",
            "columns",
            "a_strides",
            "b_strides",
            "y_strides",
            "factor",
            *limits,
        ],
        "max_pool": ["window", *limits],
        "mul": ["low", "high", "operand_scale", "operand_zero"],
        "reshape": [],
        "softmax": ["axis", *limits],
        "take": ["indices", "fill"],
        "transpose": ["sizes", "perm"],
    }
    assert [f.name for f in fields(Window)] == ["kernel", "stride", "dilation", "pad_before", "pad_after"]
