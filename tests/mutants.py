"""Broken ONNX models, by the thousand and always the same ones: small good models with a few things changed.

`mutant(seed)` changes one to three of: shapes, types, attributes, initializers, scales, edges, names, domains, nodes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from onnx_models import ModelBuilder, small_cnn

Mutation = Callable[[random.Random, onnx.ModelProto], None]

INTEGERS = (-(2**63), -(2**31), -3, -1, 0, 1, 2, 3, 4, 7, 16, 255, 4096, 10**6, 2**31 - 1, 2**32, 2**40, 2**63 - 1)
FLOATS = (0.0, -0.0, 1e-45, 1e-30, 1e-6, 0.5, -1.0, 3.0, 256.0, 1e9, 3e38, float("inf"), float("-inf"), float("nan"))
NAMES = (
    "",
    "input",
    "output",
    "stem",
    "a*/int x5;/*",
    "two\nlines",
    "\x1b[31mred",
    "ä\u202eb",
    "x" * 5000,
    "'",
    "%s{0}",
)
OPS = (
    "Relu", "Clip", "Identity", "Add", "Mul", "Conv", "Gemm", "MatMul", "Flatten", "Reshape", "Squeeze", "MaxPool",
    "AveragePool", "GlobalAveragePool", "ReduceMean", "Softmax", "Dropout", "BatchNormalization", "Gather", "Shape",
    "ConstantOfShape", "Expand", "Range", "Tile", "If", "Loop", "Cast", "QuantizeLinear", "DequantizeLinear",
    "Nonsense",
)  # fmt: skip
TYPES = (*range(0, 17), 23, 99)
MAX_REPLACED = 1 << 20  # values of a tensor that a mutation makes
_TRANSPLANTED = 0.3  # of all changes


def originals() -> list[onnx.ModelProto]:
    """The models that are mutated: float ones, one with all kinds of nodes, one of vectors, two QDQ ones."""
    return [small_cnn(), small_cnn(opset=21), _many_operators(), _vectors(), _quantized(np.int8), _quantized(np.uint8)]


def mutant(seed: int, models: list[onnx.ModelProto]) -> onnx.ModelProto:
    return mutated(random.Random(seed), models[seed % len(models)])


def mutated(rng: random.Random, model: onnx.ModelProto, donors: Sequence[onnx.ModelProto] = ()) -> onnx.ModelProto:
    """A copy with one to three changes. donors: models whose nodes and tensors may be put in."""
    proto = onnx.ModelProto.FromString(model.SerializeToString())
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if donors and rng.random() < _TRANSPLANTED:
            transplant(rng, proto, rng.choice(donors))
        else:
            rng.choice(MUTATIONS)(rng, proto)
    return proto


def transplant(rng: random.Random, proto: onnx.ModelProto, donor: onnx.ModelProto) -> None:
    """A node of another model, its constants with it, reads what a node of this one reads and is read instead of it."""
    if not donor.graph.node or not proto.graph.node:
        return
    new = onnx.NodeProto.FromString(rng.choice(donor.graph.node).SerializeToString())
    at = rng.randrange(len(proto.graph.node))
    old = proto.graph.node[at]
    given = {t.name: t for t in donor.graph.initializer}
    for i, name in enumerate(new.input):
        if name in given:
            tensor = proto.graph.initializer.add()
            tensor.CopyFrom(given[name])
            tensor.name = new.input[i] = f"transplanted_{len(proto.graph.initializer)}"
        elif name and old.input:
            new.input[i] = old.input[min(i, len(old.input) - 1)]
    for i in range(len(new.output)):
        new.output[i] = old.output[i] if i < len(old.output) else f"transplanted_output_{at}_{i}"
    new.name = f"transplanted_{at}"
    proto.graph.node[at].CopyFrom(new)


# -- the models ----------------------------------------------------------------------------------


def _many_operators() -> onnx.ModelProto:
    b = ModelBuilder((1, 3, 8, 8))
    x = b.node("Sub", b.input, b.const([[[0.5]]] * 3))
    x = b.batch_norm(b.conv(x, 3, 4, 3, pads=[1, 1, 1, 1]), 4)
    x = b.node("MaxPool", b.node("Relu", x), kernel_shape=[2, 2], strides=[2, 2])
    x = b.node("Dropout", b.node("Add", x, b.node("AveragePool", x, kernel_shape=[1, 1])))
    shape = b.node("Concat", b.node("Shape", x, end=1), b.const([-1], np.int64), axis=0)
    x = b.node("Reshape", x, shape)
    x = b.node("Add", b.node("MatMul", x, b.const(b.random(64, 5, scale=0.1))), b.const(b.random(5)))
    return b.build(b.node("Softmax", x, axis=1))


def _vectors() -> onnx.ModelProto:
    b = ModelBuilder((1, 6))
    x = b.node("Relu", b.gemm(b.node("Mul", b.input, b.const([2.0])), 6, 8))
    return b.build(b.gemm(b.node("Identity", x), 8, 3))


def _quantized(dtype: type) -> onnx.ModelProto:
    """A QDQ network as onnxruntime writes one: Conv with scales per channel, Relu, residual, pool, Gemm."""
    b = ModelBuilder((1, 3, 6, 6))
    zero = b.const(0 if dtype is np.int8 else 128, dtype, name="zero")

    def quantized(x: str, scale: float) -> str:
        scale_name = b.const(scale)
        return b.node("DequantizeLinear", b.node("QuantizeLinear", x, scale_name, zero), scale_name, zero)

    def weights(*shape: int) -> str:
        values = b.const(b.rng.integers(-100, 100, shape), np.int8)
        scales = b.const(np.full(shape[0], 0.01))
        return b.node("DequantizeLinear", values, scales, b.const(np.zeros(shape[0]), np.int8), axis=0)

    def bias(n: int) -> str:
        return b.node("DequantizeLinear", b.const(np.arange(n), np.int32), b.const(0.0002))

    x = quantized(b.input, 0.02)
    x = quantized(b.node("Relu", b.node("Conv", x, weights(4, 3, 3, 3), bias(4), pads=[1, 1, 1, 1])), 0.05)
    y = quantized(b.node("Conv", x, weights(4, 1, 3, 3), bias(4), pads=[1, 1, 1, 1], group=4), 0.05)
    x = quantized(b.node("Add", x, y), 0.06)
    x = quantized(b.node("GlobalAveragePool", x), 0.05)
    x = quantized(b.node("Flatten", x), 0.05)
    return b.build(quantized(b.node("Gemm", x, weights(3, 4), bias(3), transB=1), 0.1))


# -- mutations -----------------------------------------------------------------------------------


def _node(rng: random.Random, proto: onnx.ModelProto) -> onnx.NodeProto:
    return rng.choice(proto.graph.node) if proto.graph.node else proto.graph.node.add()


def _tensor(rng: random.Random, proto: onnx.ModelProto) -> TensorProto:
    return rng.choice(proto.graph.initializer) if proto.graph.initializer else proto.graph.initializer.add()


def _any_name(rng: random.Random, proto: onnx.ModelProto) -> str:
    node = _node(rng, proto)
    return rng.choice([*node.input, *node.output, *NAMES, _tensor(rng, proto).name])


def change_input_shape(rng: random.Random, proto: onnx.ModelProto) -> None:
    dims = rng.choice([*proto.graph.input, *proto.graph.output]).type.tensor_type.shape.dim
    if dims and rng.random() < 0.8:
        rng.choice(dims).dim_value = rng.choice(INTEGERS)
    elif dims and rng.random() < 0.5:
        rng.choice(dims).dim_param = rng.choice(NAMES)
    else:
        dims.add().dim_value = rng.choice(INTEGERS)


def change_tensor_shape(rng: random.Random, proto: onnx.ModelProto) -> None:
    """The declared shape alone, so that it may contradict the data."""
    tensor = _tensor(rng, proto)
    dims = list(tensor.dims)
    action = rng.randrange(4)
    if action == 0 and dims:
        dims[rng.randrange(len(dims))] = rng.choice(INTEGERS)
    elif action == 1:
        dims.append(rng.choice(INTEGERS))
    elif action == 2 and dims:
        dims.pop()
    else:
        dims.reverse()
    del tensor.dims[:]
    tensor.dims.extend(dims)


def replace_tensor(rng: random.Random, proto: onnx.ModelProto) -> None:
    """Another shape, type and values, all consistent."""
    tensor = _tensor(rng, proto)
    shape = list(tensor.dims)
    if shape and rng.random() < 0.7:
        shape[rng.randrange(len(shape))] = rng.choice((0, 1, 2, 3, 4, 5, 8, 16))
    elif rng.random() < 0.5:
        shape = shape[1:]
    else:
        shape.insert(0, rng.choice((1, 2)))
    if not all(0 <= size <= MAX_REPLACED for size in shape) or math.prod(shape) > MAX_REPLACED:
        return  # an earlier change has declared it so
    dtype = rng.choice((np.float32, np.float32, np.int8, np.uint8, np.int32, np.int64, np.float64, np.bool_))
    values = np.full(shape, rng.choice((0, 1, 3, 100)), dtype)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def change_values(rng: random.Random, proto: onnx.ModelProto) -> None:
    """One value, or all, of a tensor: scales, weights, shapes."""
    tensor = _tensor(rng, proto)
    try:
        values = numpy_helper.to_array(tensor).copy()
    except Exception:  # damaged by an earlier mutation
        return
    if values.size == 0 or values.dtype.kind not in "fiu":
        return
    given = rng.choice(FLOATS if values.dtype.kind == "f" else INTEGERS)
    if values.dtype.kind != "f":
        info = np.iinfo(values.dtype)
        given = min(max(given, info.min), info.max)
    if rng.random() < 0.5:
        values.reshape(-1)[rng.randrange(values.size)] = given
    else:
        values[...] = given
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def change_type(rng: random.Random, proto: onnx.ModelProto) -> None:
    if rng.random() < 0.5:
        _tensor(rng, proto).data_type = rng.choice(TYPES)
    else:
        rng.choice([*proto.graph.input, *proto.graph.output]).type.tensor_type.elem_type = rng.choice(TYPES)


def damage_data(rng: random.Random, proto: onnx.ModelProto) -> None:
    tensor = _tensor(rng, proto)
    tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)] + bytes(rng.choice((0, 1, 4)))


def external(rng: random.Random, proto: onnx.ModelProto) -> None:
    tensor = _tensor(rng, proto)
    tensor.data_location = TensorProto.EXTERNAL
    location = rng.choice(("../secret.bin", "/etc/passwd", "missing.bin", "", ".", "a\nb", "C:\\x"))
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key=rng.choice(("offset", "length")), value=rng.choice(("-1", "x", "99999999999")))


def change_attribute(rng: random.Random, proto: onnx.ModelProto) -> None:
    attributes = [a for node in proto.graph.node for a in node.attribute]
    if not attributes:
        return
    attribute = rng.choice(attributes)
    if attribute.type == AttributeProto.INT:
        attribute.i = rng.choice(INTEGERS)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = rng.choice(FLOATS)
    elif attribute.type == AttributeProto.INTS and attribute.ints and rng.random() < 0.8:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(INTEGERS)
    elif attribute.type == AttributeProto.INTS:
        attribute.ints.append(rng.choice(INTEGERS))
    else:
        attribute.s = rng.choice((b"", b"SAME_UPPER", b"\xff\xfe", b"x" * 5000))


def set_attribute(rng: random.Random, proto: onnx.ModelProto) -> None:
    """Any attribute at any node, of any type."""
    name = rng.choice(
        ("group", "pads", "strides", "dilations", "kernel_shape", "axis", "axes", "auto_pad", "alpha", "transA",
         "transB", "ceil_mode", "count_include_pad", "keepdims", "block_size", "output_dtype", "epsilon", "allowzero",
         "nonsense")
    )  # fmt: skip
    value = rng.choice((0, 1, 2, -1, 2**40, 0.5, [1], [0, 0], [2, 2], [1, 1, 1, 1], [-1, 2**40], "SAME_LOWER", b"\xff"))
    node = _node(rng, proto)
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def drop_attribute(rng: random.Random, proto: onnx.ModelProto) -> None:
    attributes = _node(rng, proto).attribute
    if attributes:
        del attributes[rng.randrange(len(attributes))]


def change_edge(rng: random.Random, proto: onnx.ModelProto) -> None:
    node = _node(rng, proto)
    names = rng.choice((node.input, node.output))
    if names:
        names[rng.randrange(len(names))] = _any_name(rng, proto)


def add_or_drop_edge(rng: random.Random, proto: onnx.ModelProto) -> None:
    node = _node(rng, proto)
    names = rng.choice((node.input, node.input, node.output))
    if names and rng.random() < 0.6:
        del names[rng.randrange(len(names))]
    else:
        names.append(_any_name(rng, proto))


def rename(rng: random.Random, proto: onnx.ModelProto) -> None:
    """A tensor everywhere, or a node."""
    node, name = _node(rng, proto), rng.choice(NAMES)
    if rng.random() < 0.5:
        node.name = name
        return
    old = rng.choice([*node.input, *node.output] or [""])
    for each in proto.graph.node:
        for names in (each.input, each.output):
            for i, given in enumerate(names):
                names[i] = name if given == old else given
    for info in [*proto.graph.input, *proto.graph.output, *proto.graph.initializer]:
        info.name = name if info.name == old else info.name


def change_operator(rng: random.Random, proto: onnx.ModelProto) -> None:
    _node(rng, proto).op_type = rng.choice(OPS)


def change_domain(rng: random.Random, proto: onnx.ModelProto) -> None:
    if rng.random() < 0.5:
        _node(rng, proto).domain = rng.choice(("ai.onnx", "com.microsoft", "ai.onnx.ml", "mine", "\x1b[2J"))
    else:
        rng.choice(proto.opset_import).version = rng.choice((0, 1, 6, 7, 9, 11, 13, 18, 22, 999, -1))


def insert_node(rng: random.Random, proto: onnx.ModelProto) -> None:
    """In front of a node's first input."""
    graph = proto.graph
    at = rng.randrange(len(graph.node)) if graph.node else 0
    if not graph.node or not graph.node[at].input:
        return
    source = graph.node[at].input[0]
    new = helper.make_node(rng.choice(OPS), [source], [f"{source}_inserted"], name=rng.choice(("", "new", "stem")))
    graph.node[at].input[0] = new.output[0]
    graph.node.insert(at, new)


def copy_or_drop_node(rng: random.Random, proto: onnx.ModelProto) -> None:
    nodes = proto.graph.node
    if not nodes:
        return
    at = rng.randrange(len(nodes))
    if rng.random() < 0.5:
        del nodes[at]
    else:
        nodes.insert(rng.randrange(len(nodes)), nodes[at])


def change_ends(rng: random.Random, proto: onnx.ModelProto) -> None:
    ends = rng.choice((proto.graph.input, proto.graph.output))
    action = rng.randrange(3)
    if action == 0 and ends:
        ends[0].name = _any_name(rng, proto)
    elif action == 1 and ends:
        del ends[0]
    else:
        ends.append(helper.make_tensor_value_info(_any_name(rng, proto), rng.choice((1, 7)), [1, 4]))


def drop_tensor(rng: random.Random, proto: onnx.ModelProto) -> None:
    if proto.graph.initializer:
        del proto.graph.initializer[rng.randrange(len(proto.graph.initializer))]


MUTATIONS: tuple[Mutation, ...] = (
    change_input_shape, change_tensor_shape, replace_tensor, replace_tensor, change_values, change_values,
    change_values, change_type, damage_data, external, change_attribute, change_attribute, set_attribute,
    drop_attribute, change_edge,
    add_or_drop_edge, rename, change_operator, change_domain, insert_node, copy_or_drop_node, change_ends, drop_tensor,
)  # fmt: skip
