"""What to do about operators that have no kernel, by type; part of the messages of support.py."""

from __future__ import annotations

GENERIC_FIX = "replace it by supported operators ('tinytrain ops' lists them), or end the model in front of it"
NO_RECURRENCE = "use 1-D convolutions over the steps (a TCN), or attention over them, and train it again"
ALTERNATIVES = {
    "LogSoftmax": "leave it out: the largest output stays the same",
    "ArgMax": "leave it out: the firmware finds the largest output itself",
    "Transpose": "export the model in NCHW without transposes (tf2onnx: --inputs-as-nchw INPUT)",
    "Cast": "export the whole model in float32, without casts",
    "GlobalMaxPool": "use GlobalAveragePool, or a MaxPool over the whole image",
    "GRU": NO_RECURRENCE,
    "LSTM": NO_RECURRENCE,
    "RNN": NO_RECURRENCE,
    "InstanceNormalization": "use BatchNormalization",
    "GroupNormalization": "use BatchNormalization",
}
STATIC = "quantise statically (onnxruntime: quantize_static), or pass the float model"
DYNAMIC = frozenset(
    {
        "ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulInteger",
        "MatMulIntegerToFloat",
    }
)  # fmt: skip
FOUR_BITS = frozenset({"GatherBlockQuantized", "MatMulBnb4", "MatMulFpQ4", "MatMulNBits"})
