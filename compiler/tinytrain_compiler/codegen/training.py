"""The backward pass as C: parameters of trained layers, what the forward pass saves, and the calls.

Decisions were made in training/plan.py; here they become text. TrainingText writes integer gradients,
training_float.py the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..graph import Graph, Node
from ..graph.gradient import Factors, quantize_factors
from ..memory import MemoryPlan
from ..ops import Kernel
from ..ops.backward import limits
from ..training.plan import LEARNT, LOSS_SCRATCH, Action, LearntLayer, TrainingPlan, parameter_bytes
from ..training.trainer import bias_norm, bias_units, weight_norm
from .kernels import kernel_bodies
from .names import Names
from .render import c_comment


@dataclass(frozen=True)
class BackwardKernels:
    """C functions of the backward pass, shared where their constants are equal."""

    symbols: dict[str, str]  # "<node>/gradient" or "<node>/learn" -> C function
    kernels: dict[str, tuple[Kernel, str, list[str]]]  # C function -> kernel, prototype, layers


def backward_kernels(graph: Graph, plan: TrainingPlan, prefix: str, prototypes: Mapping[str, str]) -> BackwardKernels:
    symbols: dict[str, str] = {}
    kernels: dict[str, tuple[Kernel, str, list[str]]] = {}
    by_identity: dict[Any, str] = {}

    def use(key: str, kernel: Kernel, layer: str, prototype: str) -> None:
        identity = (kernel.identity, repr(kernel.inline))
        symbol = by_identity.get(identity)
        if symbol is None:
            symbol = base = f"{prefix}_{kernel.symbol}"
            number = 2
            while symbol in kernels:
                symbol, number = f"{base}_v{number}", number + 1
            by_identity[identity] = symbol
            kernels[symbol] = (kernel, prototype.format(symbol), [])
        kernels[symbol][2].append(layer)
        symbols[key] = symbol

    for action in plan.actions:
        node, layer = action.node, plan.layer(action.node)
        if action.kind == "learn" and layer is not None and layer.chosen:
            use(f"{node.name}/learn", plan.learning_kernel(graph, node), node.name, prototypes["learn"])
        if action.kind == "propagate":
            kernel = plan.gradient_kernel(graph, node)
            assert kernel is not None
            prototype = prototypes["weighted" if "weights" in node.constants else "pool"]
            use(f"{node.name}/gradient", kernel, node.name, prototype)
    return BackwardKernels(symbols, kernels)


class TrainingText:
    """Text of one model's training, from its plan; offsets are macros of <name>_arena.h."""

    element = "int16_t"  # of a gradient
    headers: ClassVar[list[str]] = []  # of the runtime, besides tt_train.h
    prototypes: ClassVar[dict[str, str]] = {
        "learn": "void {}(const tt_learn_params *p, const tt_learn_state *s, tt_rate *rate, const int16_t *g, "
        "const int8_t *x, int32_t exponent, int32_t magnitude)",
        "weighted": "int32_t {}(const int16_t *g, int16_t *dx, const int8_t *weights, int32_t magnitude)",
        "pool": "int32_t {}(int16_t *g, int16_t *dx)",
    }

    def __init__(self, graph: Graph, plan: TrainingPlan, memory: MemoryPlan, names: Names) -> None:
        self._graph, self._plan, self._memory, self._names = graph, plan, memory, names
        self._kernels = backward_kernels(graph, plan, names.prefix, self.prototypes)
        self._exponents: dict[str, str] = {}  # gradient buffer -> C variable
        self._gradients: dict[str, str] = {}  # of the block being written: address -> local pointer

    # -- what the templates ask for ------------------------------------------------------------

    def context(self) -> dict[str, Any]:
        learnt, loss = self._memory.scratch[LEARNT], self._memory.scratch[LOSS_SCRATCH]
        gradient = self._memory.scratch[self._gradient(self._graph.features)]
        statements = self._statements()
        return {
            "headers": self.headers,
            "layers": [self._layer(layer) for layer in self._plan.layers],
            "factors": [self._factors(node) for node in self._scaled_nodes()],
            "statements": statements,
            "locals": self._locals(),
            "begin": self._begin(),
            "functions": self._functions(),
            "places": {"learnt": learnt, "loss": loss, "gradient": gradient},
            "macros": {
                "learnt": self._names.scratch[LEARNT],
                "loss": self._names.scratch[LOSS_SCRATCH],
                "gradient": self._names.scratch[self._gradient(self._graph.features)],
            },
            "learnt_bytes": self._plan.learnt_bytes,
            "regions": sorted({p.region for p in self._memory.placements}),
        }

    def before(self, node: Node) -> list[str]:
        """C statements in front of a node's kernel in run()."""
        lines = []
        layer = self._plan.layer(node)
        if layer is not None:
            weights, _ = parameter_bytes(node, layer)
            buffer = self._plan.forward_parameters[node.name]
            lines += self._effective(layer, buffer, weights)
        if layer is not None and layer.chosen:
            h, w, c = self._graph.tensors[node.inputs[0]].shape
            target, source = self._at(self._plan.saved[node.name]), self._names.address(node.inputs[0])
            call = f"tt_save_channels({target}, {source}, {h * w}, {c}, state.channels, state.chosen);"
            lines += ["if (saving) {", f"    {call}", "}"]
        return lines

    def after(self, node: Node) -> list[str]:
        """C statements behind it."""
        if node.name not in self._plan.masks:
            return []
        low, high = limits(node)
        count = self._graph.tensors[node.output].bytes
        mask = self._cast("uint32_t", self._plan.masks[node.name])
        return [
            "if (saving) {",
            f"    tt_save_mask({mask}, {self._names.address(node.output)}, {count}, {low}, {high});",
            "}",
        ]

    def learns(self, node: Node) -> bool:
        return self._plan.layer(node) is not None

    # -- pieces --------------------------------------------------------------------------------

    def _effective(self, layer: LearntLayer, buffer: str, weights: int) -> list[str]:
        learn = self._names.of("learn", layer.node)
        rows = self._at(buffer) if layer.chosen else "NULL"
        return [
            "tt_conv_params learnt;",
            self._state(layer),
            f"tt_effective(&{learn}, &state, {rows}, (int32_t *)(void *)({self._at(buffer)} + {weights}), &learnt);",
        ]

    def _state(self, layer: LearntLayer) -> str:
        return f"const tt_learn_state state = {self._names.of('state_of', layer.node)}({self._at(LEARNT)});"

    def _layer(self, layer: LearntLayer) -> dict[str, Any]:
        node = layer.node
        w = node.constants["weights"]
        channels = list(self._plan.scheme.layers[node.name].channels)
        scales = node.constants["weight_scales"]
        units = bias_units(self._graph, node)
        return {
            "learn": self._names.of("learn", node),
            "pretrained": self._names.of("layer", node),
            "channels_name": self._names.of("channels_of", node),
            "inverses_name": self._names.of("inverses_of", node),
            "state": self._names.of("state_of", node),
            "delta_bytes": self._plan.formats.rounding.delta_bytes,
            "node": c_comment(node.name),
            "outputs": len(w),
            "row_bytes": -(-w[0].size // 4) * 4,
            "inputs": w.shape[-1],
            "taps": w[0].size // w.shape[-1],
            "channels": channels,
            **self._inverses(node, ({"weight_inverse": 1 / scales} if channels else {}) | {"bias_inverse": 1 / units}),
            "weight_norm": float(weight_norm(node, channels)) if channels else 0.0,
            "bias_norm": float(bias_norm(self._graph, node)),
            "offsets": layer,
        }

    def _scaled_nodes(self) -> list[Node]:
        return [a.node for a in self._plan.actions if a.kind == "propagate" and "weights" in a.node.constants]

    def _begin(self) -> list[str]:
        """Statements in front of the first layer's."""
        return []

    def _factors(self, node: Node) -> dict[str, Any]:
        """A layer's weight scales: a table, and the C constant that holds it."""
        factors: Factors = quantize_factors(node.constants["weight_scales"])
        name = self._names.of("scales_of", node)
        return {
            "table": {"name": f"{name}_values", "type": "int16_t", "values": factors.values},
            "constant": f"static const tt_factors {name} = {{ {name}_values, {factors.exponent} }};",
        }

    def _inverses(self, node: Node, reals: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
        """Reciprocals of scales by struct member: tables, and the members' initialisers."""
        tables, members = [], {}
        for member, real in reals.items():
            factors = quantize_factors(real)
            name = self._names.of(f"{member}s_of", node)
            tables.append({"name": name, "type": "int16_t", "values": factors.values})
            members[member] = f"{{ {name}, {factors.exponent} }}"
        return {"tables": tables, "members": members}

    def _locals(self) -> list[str]:
        """Declarations at the top of backward(), and what keeps a compiler from calling them unused."""
        exponents = [v for v in self._exponents.values() if v != "exponent"]
        declared = [f"int32_t {', '.join(exponents)};"] if exponents else []
        return [*declared, "int32_t magnitude = 0;", "(void)magnitude;"]

    def _statements(self) -> list[dict[str, Any]]:
        """Blocks of the backward pass, one per node: comment and lines."""
        self._exponents = {self._graph.features: "exponent"}
        blocks: list[dict[str, Any]] = []
        for action in self._plan.actions:
            if not blocks or blocks[-1]["node"] != action.node.name:
                blocks.append({"node": action.node.name, "op": action.node.op, "lines": [], "gradients": {}})
                self._gradients = blocks[-1]["gradients"]
            blocks[-1]["lines"] += getattr(self, f"_{action.kind}")(action)
        for block in blocks:
            pointers = [f"{self.element} *const {name} = {place};" for place, name in block["gradients"].items()]
            block["lines"] = [*pointers, *block["lines"]] if block["lines"] else []
        return blocks

    def _mask(self, a: Action) -> list[str]:
        count = self._graph.tensors[a.tensor].bytes
        return [f"tt_apply_mask({self._g(a.source)}, {self._cast('uint32_t', a.target)}, {count});"]

    def _learn(self, a: Action) -> list[str]:
        layer = self._plan.layer(a.node)
        assert layer is not None
        learn, outputs = self._names.of("learn", a.node), len(a.node.constants["weights"])
        count = self._graph.tensors[a.tensor].bytes
        exponent = self._exponents[a.source]
        lines = [
            self._state(layer),
            f"magnitude = tt_magnitude({self._g(a.source)}, {count});",
            f"tt_learn_bias(&{learn}, &state, rate, {self._g(a.source)}, {count // outputs}, {exponent}, magnitude);",
        ]
        if layer.chosen:
            function = self._kernels.symbols[f"{a.node.name}/learn"]
            saved = self._at(self._plan.saved[a.node.name])
            lines.append(f"{function}(&{learn}, &state, rate, {self._g(a.source)}, {saved}, {exponent}, magnitude);")
        return lines

    def _propagate(self, a: Action) -> list[str]:
        exponent, variable = self._exponents[a.source], self._variable(a.target)
        function = self._kernels.symbols[f"{a.node.name}/gradient"]
        if "weights" not in a.node.constants:
            return [f"{variable} = {exponent} + {function}({self._g(a.source)}, {self._g(a.target)});"]
        scales, outputs = self._names.of("scales_of", a.node), len(a.node.constants["weights"])
        count = self._graph.tensors[a.tensor].bytes
        lines, weights = self._weights_as_updated(a)
        kernel = self._plan.gradient_kernel(self._graph, a.node)
        assert kernel is not None
        g, drop = self._g(a.source), kernel.shape["DROP"]
        return [
            *lines,
            f"{exponent} += tt_scale_channels({g}, {count}, {outputs}, &{scales}, {drop});",
            f"magnitude = tt_magnitude({g}, {count});",
            f"{variable} = {exponent} + {function}({g}, {self._g(a.target)}, {weights}, magnitude);",
        ]

    def _weights_as_updated(self, a: Action) -> tuple[list[str], str]:
        """Statements that make the weights that gradients pass through, and the C expression for these."""
        if a.node.name not in self._plan.backward_parameters:
            return [], f"{self._names.of('layer', a.node)}.weights"
        layer = self._plan.layer(a.node)
        assert layer is not None
        size, _ = parameter_bytes(a.node, layer)
        buffer = self._plan.backward_parameters[a.node.name]
        lines = [line for line in self._effective(layer, buffer, size) if line != self._state(layer)]
        return lines, "learnt.weights"

    def _add(self, a: Action) -> list[str]:
        count = self._graph.tensors[a.tensor].bytes
        into, other = self._exponents[a.target], self._exponents[a.source]
        return [f"{into} = tt_add_gradients({self._g(a.target)}, {into}, {self._g(a.source)}, {other}, {count});"]

    def _double(self, a: Action) -> list[str]:
        return self._add(Action("add", a.node, a.tensor, a.target, a.target))

    def _copy(self, a: Action) -> list[str]:
        count = self._graph.tensors[a.tensor].bytes
        variable = self._variable(a.target)
        return [
            f"memcpy({self._g(a.target)}, {self._g(a.source)}, {2 * count});",
            f"{variable} = {self._exponents[a.source]};",
        ]

    def _rename(self, a: Action) -> list[str]:
        return []

    def _variable(self, buffer: str) -> str:
        """The C variable that holds a buffer's exponent; all are declared at the top of backward()."""
        if buffer not in self._exponents:
            self._exponents[buffer] = f"exponent_{len(self._exponents)}"
        return self._exponents[buffer]

    def _functions(self) -> list[dict[str, Any]]:
        return [
            {"prototype": prototype, "layers": c_comment(", ".join(layers)), "bodies": kernel_bodies(kernel)}
            for kernel, prototype, layers in self._kernels.kernels.values()
        ]

    def _gradient(self, buffer: str) -> str:
        return buffer if buffer.startswith("second gradient") else f"gradient of {buffer}"

    def _g(self, buffer: str) -> str:
        """A gradient's local pointer: g is the output's, dx an input's."""
        place = self._cast(self.element, self._gradient(buffer))
        taken = len(self._gradients)
        return self._gradients.setdefault(place, "g" if not taken else "dx" if taken == 1 else f"dx{taken}")

    def _cast(self, c_type: str, buffer: str) -> str:
        return f"({c_type} *)(void *)({self._at(buffer)})"

    def _at(self, buffer: str) -> str:
        return f"r{self._memory.scratch[buffer].region} + {self._names.scratch[buffer]}"
