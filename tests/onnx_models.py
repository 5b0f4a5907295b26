"""Small ONNX models for tests: a builder over onnx.helper, and a few whole networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

IR_VERSION = 8


class ModelBuilder:
    """Collects nodes and constants. Every method that adds a node returns the name of its output."""

    def __init__(self, input_shape: Sequence[int | str | None] = (1, 3, 8, 8), opset: int = 17, seed: int = 0) -> None:
        self.input = "input"
        self.input_shape = tuple(input_shape)
        self.opset = opset
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def const(self, value: ArrayLike, dtype: Any = np.float32, name: str | None = None) -> str:
        name = name or f"const_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def random(self, *shape: int, scale: float = 1.0) -> NDArray[np.float32]:
        return (self.rng.standard_normal(shape) * scale).astype(np.float32)

    def node(
        self, op: str, *inputs: str, name: str | None = None, outputs: int = 1, domain: str = "", **attrs: Any
    ) -> str:
        """Name None gives a name of the builder's, "" leaves the node without one."""
        label = f"{op.lower()}_{len(self.nodes)}"
        names = [f"{label}_out"] + [f"{label}_out{i}" for i in range(1, outputs)]
        label = label if name is None else name
        self.nodes.append(helper.make_node(op, list(inputs), names, name=label, domain=domain, **attrs))
        return names[0]

    def conv(
        self,
        x: str,
        cin: int,
        cout: int,
        kernel: int | tuple[int, ...] = 3,
        group: int = 1,
        bias: bool = True,
        **attrs: Any,
    ) -> str:
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        fan_in = cin // group * int(np.prod(size))
        inputs = [x, self.const(self.random(cout, cin // group, *size, scale=fan_in**-0.5))]
        if bias:
            inputs.append(self.const(self.random(cout, scale=0.1)))
        return self.node("Conv", *inputs, group=group, **attrs)

    def batch_norm(self, x: str, channels: int, **attrs: Any) -> str:
        gamma, variance = self.rng.uniform(0.5, 2, (2, channels))
        params = [gamma, self.random(channels), self.random(channels, scale=0.3), variance]
        return self.node("BatchNormalization", x, *(self.const(p) for p in params), **attrs)

    def gemm(self, x: str, fin: int, fout: int, bias: bool = True) -> str:
        inputs = [x, self.const(self.random(fout, fin, scale=fin**-0.5))]
        if bias:
            inputs.append(self.const(self.random(fout, scale=0.1)))
        return self.node("Gemm", *inputs, transB=1)

    def clip(self, x: str, low: float | None = 0.0, high: float | None = 6.0, **kwargs: Any) -> str:
        bounds = ["" if v is None else self.const(v) for v in (low, high)]
        return self.node("Clip", x, *bounds, **kwargs)

    def build(self, *outputs: str, rename: str | None = "output", **kwargs: Any) -> onnx.ModelProto:
        """The model with these outputs, of unknown shape until shape inference; one output is called `rename`."""
        if len(outputs) == 1 and rename:
            for node in self.nodes:
                for names in (node.input, node.output):
                    for i, name in enumerate(names):
                        names[i] = rename if name == outputs[0] else name
            outputs = (rename,)
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info(self.input, TensorProto.FLOAT, self.input_shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.initializers,
        )
        kwargs.setdefault("opset_imports", [helper.make_opsetid("", self.opset)])
        return helper.make_model(graph, ir_version=IR_VERSION, **kwargs)


def small_cnn(opset: int = 17, size: int = 12, classes: int = 5, seed: int = 0) -> onnx.ModelProto:
    """Every shape of layer of a MobileNetV2 in little: stem, depthwise, residual, head. Input 1x3xSxS."""
    b = ModelBuilder((1, 3, size, size), opset, seed)
    x = b.clip(b.conv(b.input, 3, 8, 3, strides=[2, 2], pads=[1, 1, 1, 1], name="stem"), name="stem_act")
    y = b.clip(b.conv(x, 8, 8, 3, group=8, pads=[1, 1, 1, 1], name="depthwise"), name="depthwise_act")
    y = b.conv(y, 8, 8, 1, name="project")
    x = b.node("Add", x, y, name="residual")
    x = b.node("Relu", b.conv(x, 8, 16, 1, name="expand"), name="expand_act")
    x = b.node("Flatten", b.node("GlobalAveragePool", x, name="pool"), name="flatten")
    return b.build(b.gemm(x, 16, classes))


def gated_cnn() -> onnx.ModelProto:
    """A MobileNetV3 in little: HardSwish, squeeze-and-excite, a gate by pixel, the mean taken off. Input 1x3x12x12."""
    b = ModelBuilder((1, 3, 12, 12))
    x = b.node("HardSwish", b.conv(b.input, 3, 8, 3, strides=[2, 2], pads=[1, 1, 1, 1], name="stem"))
    y = b.node("HardSwish", b.conv(x, 8, 16, 1, name="expand"))
    y = b.node("HardSwish", b.conv(y, 16, 16, 3, group=16, pads=[1, 1, 1, 1], name="depthwise"))
    gate = b.node("Relu", b.conv(b.node("GlobalAveragePool", y), 16, 4, 1, name="squeeze"))
    gate = b.node("HardSigmoid", b.conv(gate, 4, 16, 1, name="excite"), alpha=1 / 6)
    x = b.node("Add", x, b.conv(b.node("Mul", y, gate), 16, 8, 1, name="project"))
    x = b.node("Mul", b.node("Sigmoid", b.conv(x, 8, 1, 1, name="where")), x)
    x = b.node("Sub", x, b.node("GlobalAveragePool", x))
    x = b.node("HardSwish", b.conv(x, 8, 12, 1, name="widen"))
    x = b.node("Flatten", b.node("GlobalAveragePool", x))
    return b.build(b.gemm(x, 12, 5))
