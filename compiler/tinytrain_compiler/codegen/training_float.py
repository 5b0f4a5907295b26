"""The backward pass as C, with gradients in float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..graph import Node
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

    def _learn(self, a: Action) -> list[str]:
        layer = self._plan.layer(a.node)
        assert layer is not None
        learn, outputs = self._names.of("learn", a.node), len(a.node.constants["weights"])
        pixels = self._graph.tensors[a.tensor].bytes // outputs
        g, biases = self._g(a.source), self._inverse(a.node, "bias_inverse")
        lines = [self._state(layer), f"tt_float_learn_bias(&{learn}, &state, rate, {biases}, {g}, {pixels});"]
        if layer.chosen:
            function, saved = self._kernels.symbols[f"{a.node.name}/learn"], self._at(self._plan.saved[a.node.name])
            weights = self._inverse(a.node, "weight_inverse")
            lines.append(f"{function}(&{learn}, &state, rate, {weights}, {g}, {saved});")
        return lines

    def _propagate(self, a: Action) -> list[str]:
        function = self._kernels.symbols[f"{a.node.name}/gradient"]
        g, dx = self._g(a.source), self._g(a.target)
        if "weights" not in a.node.constants:
            return [f"{function}({g}, {dx});"]
        count, outputs = self._graph.tensors[a.tensor].bytes, len(a.node.constants["weights"])
        lines, weights = self._weights_as_updated(a)
        scales = self._names.of("scales_of", a.node)
        return [*lines, f"tt_float_scale({g}, {count}, {outputs}, {scales});", f"{function}({g}, {dx}, {weights});"]

    def _add(self, a: Action) -> list[str]:
        return [f"tt_float_add({self._g(a.target)}, {self._g(a.source)}, {self._graph.tensors[a.tensor].bytes});"]

    def _copy(self, a: Action) -> list[str]:
        count = self._graph.tensors[a.tensor].bytes
        return [f"memcpy({self._g(a.target)}, {self._g(a.source)}, {count} * sizeof(float));"]
