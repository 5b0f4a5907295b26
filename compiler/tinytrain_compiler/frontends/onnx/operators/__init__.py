"""The ONNX operators, a file a family: for each its support rule and the builder of its node.

A rule's docstring is the line of the documentation table (`tinytrain ops`) and closes every message about a node
the rule refuses, so the two can't drift. An empty fix leaves the word to the docstring. A builder reads a node's
attributes and weights, in the device's layout.
"""

from . import activations, arithmetic, attention, layers, moves, pools, quantization, shapes  # noqa: F401
