"""The backward pass as C, with gradients in float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..graph import Node
from ..graph.gradient import quantize_factors
from ..training.plan import Action
from .training import TrainingText


class FloatTrainingText(TrainingText):
    """Real gradients: no exponents, no magnitudes, scales as they are."""

    element = "float"
    headers: ClassVar[list[str]] = ["tt_gradient_float.h"]
    prototypes: ClassVar[dict[str, str]] = {
        "learn": "void {}(const tt_learn_params *p, const tt_learn_state *s, tt_rate *rate, const float *inverse, "
        "const float *g, const int8_t *x)",
        "weighted": "void {}(const float *g, float *dx, const int8_t *weights)",
        "pool": "void {}(float *g, float *dx)",
        "saved": "void {}(const float *g, float *dx, const uint32_t *winners)",
    }

    def _factors(self, node: Node) -> dict[str, Any]:
        values = node.constants["weight_scales"].astype(np.float32)
        return {"table": {"name": self._names.of("scales_of", node), "type": "float", "values": values}, "constant": ""}

    def _inverses(self, node: Node, reals: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
        """Tables that the kernels are handed; the integer factors in the layer's struct stay empty."""
        tables = [
            {"name": self._inverse(node, member), "type": "float", "values": real.astype(np.float32)}
            for member, real in reals.items()
        ]
        return {"tables": tables, "members": {}}

    def _candidate_scales(self, node: Node, tables: list[dict[str, Any]]) -> str:
        """Selection is integer arithmetic in all formats."""
        name = self._names.of("fractions_of", node)
        factors = quantize_factors(node.constants["weight_scales"])
        tables.append({"name": name, "type": "int16_t", "values": factors.values})
        return name

    def _inverse(self, node: Node, member: str) -> str:
        return self._names.of(f"{member}s_of", node)

    def _locals(self) -> list[str]:
        return []

    def _begin(self) -> list[str]:
        features = self._graph.features
        count = self._graph.tensors[features].bytes
        return [f"tt_float_gradient({self._cast('float', self._gradient(features))}, {count}, exponent);"]

    def _mask(self, a: Action) -> list[str]:
        count = self._graph.tensors[a.tensor].bytes
        return [f"tt_float_mask({self._g(a.source)}, {self._cast('uint32_t', a.target)}, {count});"]

    def _bias_update(self, a: Action) -> list[str]:
        learn, outputs = self._names.of("learn", a.node), len(a.node.constants["weights"])
        pixels = self._graph.tensors[a.tensor].bytes // outputs
        g, biases = self._g(a.source), self._inverse(a.node, "bias_inverse")
        return [f"tt_float_learn_bias(&{learn}, &state, rate, {biases}, {g}, {pixels});"]

    def _weight_update(self, a: Action, saved: str) -> str:
        function, learn = self._kernels.symbols[f"{a.node.name}/learn"], self._names.of("learn", a.node)
        weights = self._inverse(a.node, "weight_inverse")
        return f"{function}(&{learn}, &state, rate, {weights}, {self._g(a.source)}, {saved});"

    def _fisher_call(self, a: Action, shape: str) -> str:
        place, g = self._fisher_place(a.node), self._g(a.source)
        return f"tt_float_fisher_add(fisher->scores + {self._first(a.node)}, {place}, {g}, {shape});"

    def _propagated(self, a: Action) -> list[str]:
        function = self._kernels.symbols[f"{a.node.name}/gradient"]
        g, dx = self._g(a.source), self._g(a.target)
        if "weights" not in a.node.constants:
            saved = f", {self._winners(a.node)}" if a.node.name in self._plan.winners else ""
            return [f"{function}({g}, {dx}{saved});"]
        count, outputs = self._graph.tensors[a.tensor].bytes, len(a.node.constants["weights"])
        lines, weights = self._weights_as_updated(a)
        scales = self._names.of("scales_of", a.node)
        return [*lines, f"tt_float_scale({g}, {count}, {outputs}, {scales});", f"{function}({g}, {dx}, {weights});"]

    def _add(self, a: Action) -> list[str]:
        return [f"tt_float_add({self._g(a.target)}, {self._g(a.source)}, {self._graph.tensors[a.tensor].bytes});"]

    def _copy(self, a: Action) -> list[str]:
        count = self._graph.tensors[a.tensor].bytes
        return [f"memcpy({self._g(a.target)}, {self._g(a.source)}, {count} * sizeof(float));"]
