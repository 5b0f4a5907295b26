"""Smaller versions of a scheme, for boards on which it does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..graph import Graph
from .scheme import MULTIPLE, Scheme, TrainedLayer
from .trainable import embedding_layers

EIGHTHS = 8  # channels are given up in steps of this part of the scheme's own


def smaller_schemes(graph: Graph, scheme: Scheme, fits: Callable[[Scheme], bool]) -> Iterator[Scheme]:
    """For each share of the channels, most first: the most layers, counted from the embedding, with which it fits.

    fits: a quick test. It need not be exactly monotonic in the number of layers; what is yielded passed it.
    """
    names = [node.name for node in embedding_layers(graph) if node.name in scheme.layers]
    found = [scheme.layers]
    for eighths in range(EIGHTHS, -1, -1):
        low, high = 0, len(names)  # so many layers fit; so many are the most there are
        while low < high:
            middle = (low + high + 1) // 2
            if fits(_shrunk(scheme, names[-middle:], eighths)):
                low = middle
            else:
                high = middle - 1
        smaller = _shrunk(scheme, names[len(names) - low :], eighths)
        if low and smaller.layers not in found:
            found.append(smaller.layers)
            yield smaller


def _shrunk(scheme: Scheme, names: list[str], eighths: int) -> Scheme:
    """The scheme's layers of these names, with a share of their channels."""
    layers = {}
    for name in names:
        own = scheme.layers[name]
        limit = own.limit * eighths // EIGHTHS // MULTIPLE * MULTIPLE
        layers[name] = TrainedLayer(own.channels[: len(own.channels) * eighths // EIGHTHS], limit)
    return Scheme(layers)
