"""The backward pass as C: parameters of trained layers, what the forward pass saves, and the calls.

Decisions were made in training/plan.py; here they become text. TrainingText writes integer gradients,
training_float.py the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..graph import Graph, Node
from ..graph.gradient import Factors, quantize_factors
from ..memory import MemoryPlan
from ..ops import weights_of
from ..ops.clipping import limits
from ..ops.weighted import bias_room
from ..training.norms import bias_norm, bias_units, weight_norm
from ..training.plan import LOSS_SCRATCH, Action, LearntLayer, TrainingPlan, parameter_bytes
from ..training.pool import LEARNT, FisherInput
from ..training.selection import Candidate, layer_cost
from .backward_kernels import backward_kernels
from .kernels import function_text, headers
from .names import Names
from .render import c_name


class TrainingText:
    """Text of one model's training, from its plan; offsets are macros of <name>_arena.h."""

    element = "int16_t"  # of a gradient
    headers: ClassVar[list[str]] = []  # of the runtime, besides tt_train.h
    prototypes: ClassVar[dict[str, str]] = {
        "learn": "void {}(const tt_learn_params *p, const tt_learn_state *s, tt_rate *rate, const int16_t *g, "
        "const int8_t *x, int32_t exponent, int32_t magnitude{})",
        "weighted": "int32_t {}(const int16_t *g, int16_t *dx, const int8_t *weights, int32_t magnitude, int32_t l1{})",
        "pool": "int32_t {}(int16_t *g, int16_t *dx{})",
        "saved": "int32_t {}(const int16_t *g, int16_t *dx, const uint32_t *winners{})",
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
        functions = self._functions()
        return {
            "headers": self.headers,
            "layers": [self._layer(layer) for layer in self._plan.layers],
            "factors": [self._factors(node) for node in self._scaled_nodes()],
            "statements": statements,
            "locals": self._locals(),
            "begin": self._begin(),
            "functions": functions,
            "variant_headers": headers(functions, host=False),
            "places": {"learnt": learnt, "loss": loss, "gradient": gradient},
            "macros": {
                "learnt": self._names.scratch[LEARNT],
                "loss": self._names.scratch[LOSS_SCRATCH],
                "gradient": self._names.scratch[self._gradient(self._graph.features)],
            },
            "learnt_bytes": self._plan.learnt_bytes,
            "head_offset": self._plan.head_offset,
            "head_bytes": self._plan.head_bytes,
            "rate": self._plan.options.rate,
            "regions": sorted({p.region for p in self._memory.placements}),
            "cut": self._memory.tensors[self._plan.cut.tensor],
            "cut_macro": self._names.tensors[self._plan.cut.tensor],
            "cut_bytes": self._graph.tensors[self._plan.cut.tensor].bytes,
            "selection": self._selection(),
        }

    def before(self, node: Node) -> list[str]:
        """C statements in front of a node's kernel in run()."""
        lines = []
        layer = self._plan.layer(node)
        if layer is not None:
            weights, _ = parameter_bytes(node, layer)
            buffer = self._plan.forward_parameters[node.name]
            lines += self._effective(layer, buffer, weights)
        if layer is not None and layer.learns_weights:
            c = weights_of(node).layout(node).channels
            pixels = self._graph.tensors[node.inputs[0]].bytes // c
            target, source = self._at(self._plan.saved[node.name]), self._names.address(node.inputs[0])
            if layer.selected_offset is not None:
                group = self._fisher_input(node).group
                lines += [
                    f"if (keep == TT_KEEP_FISHER + {group}) {{",
                    f"    memcpy({self._fisher_place(node)}, {source}, {pixels * c});",
                    "}",
                ]
                target += " + state.saved"
            call = f"tt_save_channels({target}, {source}, {pixels}, {c}, state.channels, state.chosen);"
            lines += ["if (keep == TT_KEEP) {", f"    {call}", "}"]
        return lines

    def after(self, node: Node) -> list[str]:
        """C statements behind it."""
        calls = []
        if node.name in self._plan.masks:
            low, high = limits(node)
            count = self._graph.tensors[node.output].bytes
            mask = self._cast("uint32_t", self._plan.masks[node.name])
            calls.append(f"tt_save_mask({mask}, {self._names.address(node.output)}, {count}, {low}, {high});")
        if node.name in self._plan.winners:
            function, winners = self._kernels.symbols[f"{node.name}/save"], self._winners(node)
            calls.append(f"{function}({winners}, {self._names.address(node.inputs[0])});")
        return ["if (keep > 0) {", *(f"    {call}" for call in calls), "}"] if calls else []

    def is_frozen(self, step: int) -> bool:
        """Whether the node of this step lies in front of all that learn."""
        return step < self._plan.cut.step

    def learns(self, node: Node) -> bool:
        return self._plan.layer(node) is not None

    # -- selection ---------------------------------------------------------------------------------

    def _selection(self) -> dict[str, Any] | None:
        plan = self._plan.selection
        if plan is None:
            return None
        rows = [
            {
                "node": c_name(c.node.name),
                "layer": self._names.of("learn", c.node),
                "selected": next(x.selected_offset for x in self._plan.layers if x.node.name == c.node.name),
                "cost": float(layer_cost(self._graph, c)),
                "plan": c,
            }
            for c in plan.candidates
        ]
        scores = sum(c.channels for c in plan.candidates)
        end, options = self._plan.learnt_bytes, self._plan.options
        return {"candidates": rows, "plan": plan, "scores": scores, "pool_end": end, "options": options}

    def _fisher_input(self, node: Node) -> FisherInput:
        assert self._plan.selection is not None
        return self._plan.selection.inputs[node.name]

    def _fisher_place(self, node: Node) -> str:
        place = self._fisher_input(node)
        return f"{self._at(place.buffer)} + {place.offset}"

    def _fisher(self, a: Action) -> list[str]:
        c = self._candidate(a.node)
        zero = self._graph.tensors[a.tensor].quantization.zero_point
        return [
            f"if (fisher != NULL && fisher->group == {self._fisher_input(a.node).group}) {{",
            f"    {self._fisher_call(a, f'{c.pixels}, {c.channels}, {zero}')}",
            "}",
        ]

    def _fisher_call(self, a: Action, shape: str) -> str:
        place, g, exponent = self._fisher_place(a.node), self._g(a.source), self._exponents[a.source]
        return f"tt_fisher_add(fisher->scores + {self._first(a.node)}, {place}, {g}, {shape}, {exponent});"

    def _first(self, node: Node) -> int:
        """A candidate's first entry in the table of scores."""
        return self._candidate(node).first

    def _candidate(self, node: Node) -> Candidate:
        assert self._plan.selection is not None
        return next(c for c in self._plan.selection.candidates if c.node.name == node.name)

    # -- pieces --------------------------------------------------------------------------------

    def _effective(self, layer: LearntLayer, buffer: str, weights: int) -> list[str]:
        learn = self._names.of("learn", layer.node)
        rows = self._at(buffer) if layer.learns_weights else "NULL"
        return [
            "tt_conv_params learnt;",
            self._state(layer),
            f"tt_effective(&{learn}, &state, {rows}, (int32_t *)(void *)({self._at(buffer)} + {weights}), &learnt);",
        ]

    def _state(self, layer: LearntLayer) -> str:
        return f"const tt_learn_state state = {self._names.of('state_of', layer.node)}({self._at(LEARNT)});"

    def _layer(self, layer: LearntLayer) -> dict[str, Any]:
        node = layer.node
        channels = list(self._plan.scheme.layers[node.name].channels)
        scales = node.constants["weight_scales"]
        return {
            "learn": self._names.of("learn", node),
            "pretrained": self._names.of("layer", node),
            "channels_name": self._names.of("channels_of", node),
            "state": self._names.of("state_of", node),
            "delta_bytes": self._plan.formats.rounding.delta_bytes,
            "node": c_name(node.name),
            "outputs": len(scales),
            "layout": weights_of(node).layout(node),
            "channels": channels,
            "selected_offset": layer.selected_offset,
            "learns_weights": layer.learns_weights,
            "what": self._what(layer),
            **self._constants(node, layer),
            "weight_norm": float(weight_norm(node, channels)) if channels else 0.0,
            "bias_norm": float(bias_norm(self._graph, node)),
            "bias_limit": bias_room(node, self._graph.tensors),
            "offsets": layer,
        }

    def _what(self, layer: LearntLayer) -> str:
        biases = f"{len(layer.node.constants['bias'])} biases"
        if layer.selected_offset is not None:
            limit = self._plan.scheme.layers[layer.node.name].limit
            return f"up to {limit} input channels, chosen on the device; {biases}"
        return f"{layer.chosen} input channels, {layer.deltas} weights, {biases}"

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

    def _constants(self, node: Node, layer: LearntLayer) -> dict[str, Any]:
        """The layer's tables, and the initialisers of its struct's members that hold factors."""
        scales = node.constants["weight_scales"]
        reals = {"bias_inverse": 1 / bias_units(self._graph, node)}
        if layer.learns_weights:
            reals = {"weight_inverse": 1 / scales} | reals
        found = self._inverses(node, reals)
        if layer.selected_offset is not None:
            scales_name = self._candidate_scales(node, found["tables"])
            found["members"]["weight_scales"] = f"{{ {scales_name}, {quantize_factors(scales).exponent} }}"
        return found

    def _candidate_scales(self, node: Node, tables: list[dict[str, Any]]) -> str:
        """The table of a candidate's weight scales as fractions; one that is missing so far is added."""
        return f"{self._names.of('scales_of', node)}_values"

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
            block["node"] = c_name(block["node"])
        return blocks

    def _mask(self, a: Action) -> list[str]:
        count = self._graph.tensors[a.tensor].bytes
        return [f"tt_apply_mask({self._g(a.source)}, {self._cast('uint32_t', a.target)}, {count});"]

    def _learn(self, a: Action) -> list[str]:
        layer = self._plan.layer(a.node)
        assert layer is not None
        lines = self._bias_update(a)
        if layer.learns_weights:
            saved = self._at(self._plan.saved[a.node.name])
            if layer.selected_offset is None:
                lines.append(self._weight_update(a, saved))
            else:
                lines += ["if (state.chosen > 0) {", f"    {self._weight_update(a, f'{saved} + state.saved')}", "}"]
        if self._plan.selection is not None:
            lines = ["if (fisher == NULL) {", *(f"    {line}" for line in lines), "}"]
        return [self._state(layer), *lines]

    def _bias_update(self, a: Action) -> list[str]:
        learn, outputs = self._names.of("learn", a.node), len(a.node.constants["weights"])
        count = self._graph.tensors[a.tensor].bytes
        g, exponent = self._g(a.source), self._exponents[a.source]
        return [
            f"magnitude = tt_magnitude({g}, {count});",
            f"tt_learn_bias(&{learn}, &state, rate, {g}, {count // outputs}, {exponent}, magnitude);",
        ]

    def _weight_update(self, a: Action, saved: str) -> str:
        function, learn = self._kernels.symbols[f"{a.node.name}/learn"], self._names.of("learn", a.node)
        size = self._plan.learning_scratch(self._graph, a.node)
        last = f"{self._exponents[a.source]}, magnitude{self._scratch(a.node, size)}"
        return f"{function}(&{learn}, &state, rate, {self._g(a.source)}, {saved}, {last});"

    def _propagate(self, a: Action) -> list[str]:
        if a.selecting:
            return ["if (fisher != NULL) {", *(f"    {line}" for line in self._propagated(a)), "}"]
        return self._propagated(a)

    def _propagated(self, a: Action) -> list[str]:
        exponent, variable = self._exponents[a.source], self._variable(a.target)
        function = self._kernels.symbols[f"{a.node.name}/gradient"]
        scratch = self._scratch(a.node, self._plan.gradient_scratch(self._graph, a.node))
        if "weights" not in a.node.constants:
            saved = f", {self._winners(a.node)}" if a.node.name in self._plan.winners else ""
            return [f"{variable} = {exponent} + {function}({self._g(a.source)}, {self._g(a.target)}{saved}{scratch});"]
        scales, outputs = self._names.of("scales_of", a.node), len(a.node.constants["weights"])
        count = self._graph.tensors[a.tensor].bytes
        lines, weights = self._weights_as_updated(a)
        kernel = self._plan.gradient_kernel(self._graph, a.node)
        assert kernel is not None
        g, l1, drop = self._g(a.source), kernel.arguments["l1"], kernel.arguments["drop"]
        return [
            *lines,
            f"{exponent} += tt_scale_channels({g}, {count}, {outputs}, &{scales}, {drop});",
            f"magnitude = tt_magnitude({g}, {count});",
            f"{variable} = {exponent} + {function}({g}, {self._g(a.target)}, {weights}, magnitude, {l1}{scratch});",
        ]

    def _scratch(self, node: Node, size: int) -> str:
        """A kernel's last argument, if it takes any scratch memory."""
        return f", {self._at(self._plan.scratch[node.name])}" if size else ""

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

    def _winners(self, node: Node) -> str:
        return self._cast("uint32_t", self._plan.winners[node.name])

    def _variable(self, buffer: str) -> str:
        """The C variable that holds a buffer's exponent; all are declared at the top of backward()."""
        if buffer not in self._exponents:
            self._exponents[buffer] = f"exponent_{len(self._exponents)}"
        return self._exponents[buffer]

    def _functions(self) -> list[dict[str, Any]]:
        return [
            function_text(prototype, layers, kernel) for kernel, prototype, layers in self._kernels.kernels.values()
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
