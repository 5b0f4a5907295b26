"""A scheme as its TOML file: `depth`, and `[fractions]` of input channels by layer name or index among all layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..toml_file import read_toml
from .scheme import Layer, Scheme, TrainedLayer


def read_scheme(layers: Sequence[Layer], path: Path) -> Scheme:
    """The scheme in a file. layers: all that can train, in execution order.

    Errors: UsageError for a file that is missing or wrong, or that names a layer which is not there.
    """
    depth, fractions = _read(path)
    if type(depth) is not int or not 0 <= depth <= len(layers) or not isinstance(fractions, dict):
        raise UsageError(f"{path}: depth must be a whole number up to {len(layers)}, [fractions] a table")
    chosen = {layer.name: TrainedLayer() for layer in layers[len(layers) - depth :]}
    for key, fraction in fractions.items():
        layer = _layer(layers, key, path)
        if not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
            raise UsageError(f"{path}: the fraction of {key!r} must lie between 0 and 1, not {fraction!r}")
        chosen[layer.name] = TrainedLayer(tuple(range(round(fraction * layer.channels))))
    if not chosen:
        raise UsageError(f"{path}: chooses no layer; set depth or [fractions]")
    return Scheme(chosen)


def _read(path: Path) -> tuple[Any, Any]:
    """(depth, fractions) as they are in the file, of any type."""
    try:
        _, table = read_toml(path)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such scheme file") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as TOML ({getattr(error, 'strerror', None) or error})") from error
    unknown = set(table) - {"depth", "fractions"}
    if unknown:
        raise UsageError(f"{path}: unknown key {sorted(unknown)[0]!r}; a scheme has depth and [fractions]")
    return table.get("depth", 0), table.get("fractions", {})


def _layer(layers: Sequence[Layer], key: str, path: Path) -> Layer:
    if key.isdigit() and int(key) < len(layers):
        return layers[int(key)]
    for layer in layers:
        if layer.name == key:
            return layer
    names = ", ".join(layer.name for layer in layers[-6:])
    raise UsageError(f"{path}: no layer {key!r}; layers are {names}, ... or 0 to {len(layers) - 1}")


def scheme_lines(layers: Sequence[Layer], scheme: Scheme) -> list[str]:
    """The lines of a file that read_scheme() makes this scheme of, channels counted from the first."""
    depth = 0
    while depth < len(layers) and layers[-1 - depth].name in scheme.layers:
        depth += 1
    entries = []
    for index, layer in enumerate(layers):
        trained = scheme.layers.get(layer.name)
        if trained is None or (not trained.channels and index >= len(layers) - depth):
            continue
        name = layer.name.replace("\\", "\\\\").replace('"', '\\"')
        entries.append(f'"{name}" = {_fraction(len(trained.channels), layer.channels)}')
    return [f"depth = {depth}", *([f"fractions = {{ {', '.join(entries)} }}"] if entries else [])]


def _fraction(count: int, of: int) -> str:
    """The shortest decimal that rounds to this count of channels."""
    return next(text for digits in range(1, 9) if round(float(text := f"{count / of:.{digits}f}") * of) == count)
