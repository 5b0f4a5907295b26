"""onnxruntime, running the quantised ONNX model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ...errors import UsageError
from ...graph import Graph
from ...ops import Int8, operator_of
from .file import input_shape
from .float_passes.runtime import FATAL, new_session

SUFFIX = ".qdq.onnx"


class OrtSession:
    """onnxruntime running a model node by node as written: its fused int8 kernels may saturate on some CPUs."""

    def __init__(self, proto: onnx.ModelProto, tensors: Sequence[str] | None = None) -> None:
        """tensors: which to return, any tensor of the graph; None for the model's outputs."""
        self._input = proto.graph.input[0].name
        self._names = list(tensors) if tensors is not None else [o.name for o in proto.graph.output]
        present = {o.name for o in proto.graph.output}
        extra = [name for name in self._names if name not in present]
        if extra:
            proto = onnx.ModelProto.FromString(proto.SerializeToString())
            proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra)
        self._session = new_session(proto)

    def run(self, samples: NDArray[np.float32]) -> list[NDArray[Any]]:
        """samples (n, *input shape without batch) -> per tensor, its values (n, *shape without batch)."""
        results = [self._session.run(self._names, {self._input: s[None]}) for s in samples]
        return [np.concatenate(values) for values in zip(*results, strict=True)]


class OnnxOracle:
    """An oracle.Oracle; `origins` of the graph name its tensors in the model."""

    name = "onnxruntime"

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto

    @classmethod
    def from_file(cls, path: Path) -> OnnxOracle:
        return cls(onnx.load(str(path)))

    @property
    def file(self) -> tuple[str, bytes]:
        return SUFFIX, self.proto.SerializeToString(deterministic=True)

    def tensors(self, graph: Graph, inputs: Int8) -> dict[str, Int8]:
        try:
            values = OrtSession(self.proto, list(graph.origins.values())).run(self._floats(graph, inputs))
        except Exception as e:  # onnxruntime's exceptions share no base class of their own
            text = " ".join(str(e).split())
            raise UsageError(f"onnxruntime cannot run the quantised model: {text}; export it again") from e
        images = _image_shapes(graph)
        return {
            name: _device_layout(_int8(value), graph.tensors[name].shape, images.get(name))
            for name, value in zip(graph.origins, values, strict=True)
        }

    def optimised_outputs(self, graph: Graph, inputs: Int8) -> NDArray[np.int64]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = FATAL
        model = self.proto.SerializeToString()
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        floats = np.concatenate([session.run(None, {name: x[None]})[0] for x in self._floats(graph, inputs)])
        output = graph.tensors[graph.output]
        q = output.quantization
        steps = np.rint(floats / np.float32(q.scale)).astype(np.int64) + q.zero_point
        return _device_layout(steps, output.shape, _image_shapes(graph).get(output.name)).reshape(len(inputs), -1)

    def _floats(self, graph: Graph, inputs: Int8) -> NDArray[np.float32]:
        """Input bytes (n, bytes) as the float samples (n, C, H, W) or (n, F) that quantise to them."""
        tensor = graph.tensors[graph.input]
        q = tensor.quantization
        x = ((inputs.astype(np.float32) - q.zero_point) * np.float32(q.scale)).reshape(-1, *tensor.shape)
        if x.ndim == 4:
            x = x.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(x.reshape(len(x), *input_shape(self.proto)[1:]), np.float32)


def _device_layout(values: NDArray[Any], shape: tuple[int, ...], image: tuple[int, ...] | None) -> NDArray[Any]:
    """Values in the file's order -> (n, *shape). image: (H, W, C) of what the values are in that order, if any."""
    if image is not None:  # NCHW order in the file, NHWC on the device
        h, w, c = image
        values = values.reshape(-1, c, h, w).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(values).reshape(-1, *shape)


def _image_shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """(H, W, C) of each tensor that is an image, or a vector that is one flattened."""
    shapes = {name: tensor.shape for name, tensor in graph.tensors.items()}
    found: dict[str, tuple[int, ...]] = {name: shape for name, shape in shapes.items() if len(shape) == 3}
    for node in graph.nodes:
        source = found.get(node.inputs[0])
        if source is not None and operator_of(node).keeps_order:
            found.setdefault(node.output, source)
    return found


def _int8(values: NDArray[Any]) -> Int8:
    """A uint8 model counts the same steps from 0 instead of -128."""
    return (values.astype(np.int16) - 128).astype(np.int8) if values.dtype == np.uint8 else values
