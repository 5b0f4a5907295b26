"""The TensorFlow Lite operators, a file a family: how each is spelled in ONNX.

A translation's docstring is its line of the documentation table (`tinytrain ops`): what of the operator it takes.
"""

from . import activations, arithmetic, layers, moves, pools, quantization, shapes  # noqa: F401  (register themselves)
