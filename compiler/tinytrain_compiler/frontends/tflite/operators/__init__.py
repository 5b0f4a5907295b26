"""The TensorFlow Lite operators, a file a family: how each is spelled in ONNX.

A translation's docstring says what of the operator it takes. `tinytrain ops` lists the ONNX operators they become.
"""

from . import activations, arithmetic, layers, moves, pools, quantization, shapes  # noqa: F401  (register themselves)
