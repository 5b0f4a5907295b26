"""What C looks like in each gradient format: types, tables of scales, and what every step becomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..graph import Node
from ..graph.gradient import quantize_factors
from .float32_steps import FLOAT32
from .int16_steps import INT16
from .names import Names
from .step_text import StepWriters

Table = dict[str, Any]  # name, C type and values of a constant array


class GradientText(ABC):
    """One format."""

    element: ClassVar[str]  # C type of a gradient's element
    headers: ClassVar[Sequence[str]] = ()  # of the runtime, besides tt_choice.h
    prototypes: ClassVar[Mapping[str, str]]  # kind of kernel -> declaration; {} are its name and its last parameter
    steps: ClassVar[StepWriters]

    @abstractmethod
    def scales(self, names: Names, node: Node) -> dict[str, Any]:
        """A layer's weight scales, which gradients are multiplied by: a table, and the C constant that holds it."""

    @abstractmethod
    def inverses(self, names: Names, node: Node, reals: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
        """Reciprocals of scales by struct member: tables, and the members' initialisers."""

    @abstractmethod
    def candidate_scales(self, names: Names, node: Node) -> tuple[str, list[Table]]:
        """The table of a candidate's weight scales as fractions, and the tables that it adds. Selection is integer
        arithmetic in all formats."""

    def declared(self, exponents: Sequence[str]) -> list[str]:
        """Declarations at the top of backward(). exponents: the variables that its steps use."""
        return []

    def converted(self, gradient: str, count: int) -> list[str]:
        """What turns the loss's gradient (an address) of int16 mantissas into the format."""
        return []


class Int16Text(GradientText):
    element = "int16_t"
    prototypes: ClassVar[Mapping[str, str]] = {
        "update": "void {}(const tt_learn_params *p, const tt_learn_state *s, tt_rate *rate, const int16_t *g, "
        "const int8_t *x, int32_t exponent, int32_t magnitude{})",
        "weighted": "void {}(const int16_t *g, int16_t *dx, const int8_t *weights, int32_t shift{})",
        "pool": "int32_t {}(int16_t *g, int16_t *dx{})",
        "saved": "int32_t {}(const int16_t *g, int16_t *dx, const uint32_t *argmax_indices{})",
    }
    steps = INT16

    def scales(self, names: Names, node: Node) -> dict[str, Any]:
        factors = quantize_factors(node.constants["weight_scales"])
        name, values = names.local("scales_of", node), names.local("scale_values_of", node)
        return {
            "table": _fractions(values, factors.values),
            "constant": f"static const tt_factors {name} = {{ {values}, {factors.exponent} }};",
        }

    def inverses(self, names: Names, node: Node, reals: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
        tables, members = [], {}
        for member, real in reals.items():
            factors, name = quantize_factors(real), names.local(f"{member}s_of", node)
            tables.append(_fractions(name, factors.values))
            members[member] = f"{{ {name}, {factors.exponent} }}"
        return {"tables": tables, "members": members}

    def candidate_scales(self, names: Names, node: Node) -> tuple[str, list[Table]]:
        return names.local("scale_values_of", node), []

    def declared(self, exponents: Sequence[str]) -> list[str]:
        return [f"int32_t {', '.join(exponents)};"] if exponents else []


class Float32Text(GradientText):
    element = "float"
    headers: ClassVar[Sequence[str]] = ("tt_gradient_float.h",)
    prototypes: ClassVar[Mapping[str, str]] = {
        "update": "void {}(const tt_learn_params *p, const tt_learn_state *s, tt_rate *rate, const float *inverse, "
        "const float *g, const int8_t *x)",
        "weighted": "void {}(const float *g, float *dx, const int8_t *weights)",
        "pool": "void {}(float *g, float *dx{})",
        "saved": "void {}(const float *g, float *dx, const uint32_t *argmax_indices{})",
    }
    steps = FLOAT32

    def scales(self, names: Names, node: Node) -> dict[str, Any]:
        return {"table": _floats(names.local("scales_of", node), node.constants["weight_scales"]), "constant": ""}

    def inverses(self, names: Names, node: Node, reals: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
        """Tables that the kernels are handed; the integer factors in the layer's struct stay empty."""
        return {"tables": [_floats(names.local(f"{member}s_of", node), real) for member, real in reals.items()],
                "members": {}}  # fmt: skip

    def candidate_scales(self, names: Names, node: Node) -> tuple[str, list[Table]]:
        name = names.local("fractions_of", node)
        return name, [_fractions(name, quantize_factors(node.constants["weight_scales"]).values)]

    def converted(self, gradient: str, count: int) -> list[str]:
        return [f"tt_float_gradient({gradient}, {count}, exponent);"]


def _fractions(name: str, values: NDArray[np.int16]) -> Table:
    return {"name": name, "type": "int16_t", "values": values}


def _floats(name: str, values: NDArray[np.float64]) -> Table:
    return {"name": name, "type": "float", "values": values.astype(np.float32)}


GRADIENT_TEXT: Mapping[str, GradientText] = {"int16": Int16Text(), "float32": Float32Text()}  # by format
