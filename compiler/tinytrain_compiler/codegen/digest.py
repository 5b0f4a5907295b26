"""What gives a saved state its meaning, as 64 bits: equal for equal compiles, different for any other model.

Hashed are values, not texts and not the names of Python's fields, so that a newer compiler which plans memory, writes
C or names things differently still accepts what an older one's firmware saved. Where it is to run does not count; the
meaning of the bytes themselves is TT_STATE_VERSION's business, and the number of classes, which a define can change,
is stored next to the digest.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..graph import Graph
from ..quantize.input_bytes import PixelMap
from ..training.plan import TrainingPlan


def state_digest(graph: Graph, training: TrainingPlan | None, pixels: PixelMap | None) -> tuple[int, int]:
    """tt_model.digest: two words of the SHA-256 of weights, scales and topology, input bytes, what is trained and
    where it lies in the training state."""
    number = {name: i for i, name in enumerate(graph.tensors)}  # topology, not names
    nodes = [
        (node.op, [number[name] for name in node.inputs], number[node.output], node.attributes, node.constants)
        for node in graph.nodes
    ]
    tensors = [(tensor.shape, tensor.quantization) for tensor in graph.tensors.values()]
    ends = [number[name] for name in (graph.input, graph.output, graph.features)]
    state = None if training is None else (_layers(graph, training), _whole(training))
    hashed = hashlib.sha256()
    _feed(hashed, (tensors, nodes, ends, state, pixels))
    first = hashed.digest()[:8]
    return int.from_bytes(first[:4], "little"), int.from_bytes(first[4:], "little")


def _whole(training: TrainingPlan) -> list[Any]:
    """Of the whole training state: its size, which head keeps its own part where, and what the numbers in it are."""
    head = (training.options.head.name, training.head_offset, training.head_bytes)
    formats = (training.formats.gradients.name, training.formats.rounding.name)
    return [training.training_state_bytes, head, formats]


def _layers(graph: Graph, training: TrainingPlan) -> list[Any]:
    """Per trained layer: which node, its choice of channels, and every offset and count of its state."""
    number = {node.name: i for i, node in enumerate(graph.nodes)}
    return [
        (
            number[layer.node.name],
            training.scheme.layers[layer.node.name],
            (layer.chosen, layer.limit, layer.bias_offset, layer.running_offset),
            (layer.deltas_offset, layer.deltas, layer.selected_offset),
        )
        for layer in training.layers
    ]


def _feed(hashed: hashlib._Hash, value: Any) -> None:
    """Any nesting of records, mappings, sequences, arrays and scalars; each says its type and length first."""
    if dataclasses.is_dataclass(value):
        _feed(hashed, [getattr(value, f.name) for f in dataclasses.fields(value)])
    elif isinstance(value, Mapping):
        _feed(hashed, [(key, value[key]) for key in sorted(value)])
    elif isinstance(value, list | tuple):
        hashed.update(f"list {len(value)}\n".encode())
        for item in value:
            _feed(hashed, item)
    elif isinstance(value, np.ndarray):
        little = value.astype(value.dtype.newbyteorder("<"))
        hashed.update(f"array {little.dtype.str} {little.shape}\n".encode() + little.tobytes())
    elif value is None or isinstance(value, bool | int | float | str | np.generic):
        scalar = value.item() if isinstance(value, np.generic) else value
        text = repr(scalar).encode()
        hashed.update(f"{type(scalar).__name__} {len(text)}\n".encode() + text)
    else:
        raise TypeError(f"a state's digest cannot hold a {type(value).__name__}")
