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
from ...ops import Int8
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
        """samples (n, *input shape without batch) -> per tensor, its values (n, *shape without a first axis of 1)."""
        results = [self._session.run(self._names, {self._input: s[None]}) for s in samples]
        stacked = [np.stack(values) for values in zip(*results, strict=True)]
        return [values[:, 0] if values.shape[1:2] == (1,) else values for values in stacked]


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
        names = list(dict.fromkeys(origin.name for origin in graph.origins.values()))
        try:
            found = OrtSession(self.proto, names).run(self._floats(graph, inputs))
        except Exception as e:  # onnxruntime's exceptions share no base class of their own
            text = " ".join(str(e).split())
            raise UsageError(f"onnxruntime cannot run the quantised model: {text}; export it again") from e
        values = dict(zip(names, map(_int8, found), strict=True))
        return {tensor: origin.layout.to_device(values[origin.name]) for tensor, origin in graph.origins.items()}

    def optimised_outputs(self, graph: Graph, inputs: Int8) -> NDArray[np.int64]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = FATAL
        model = self.proto.SerializeToString()
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        floats = np.stack([session.run(None, {name: x[None]})[0] for x in self._floats(graph, inputs)])
        q = graph.tensors[graph.output].quantization
        steps = np.rint(floats / np.float32(q.scale)).astype(np.int64) + q.zero_point
        return graph.answer_layout.to_device(steps).reshape(len(inputs), -1)

    def _floats(self, graph: Graph, inputs: Int8) -> NDArray[np.float32]:
        """Input bytes (n, bytes) as the float samples (n, *shape in the file without batch) that quantise to them."""
        q = graph.tensors[graph.input].quantization
        x = (inputs.astype(np.float32) - q.zero_point) * np.float32(q.scale)
        return graph.sample_layout.from_device(x)[:, 0]


def _int8(values: NDArray[Any]) -> Int8:
    """A uint8 model counts the same steps from 0 instead of -128."""
    return (values.astype(np.int16) - 128).astype(np.int8) if values.dtype == np.uint8 else values
