"""What a .tflite file holds, by name: types, operators, the options of each operator, and the numbers of all fields.

The numbers are those of TensorFlow Lite's schema, version 3, which only ever adds some.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from .flatbuffer import Table

IDENTIFIER = b"TFL3"  # at offset 4


class Model:
    """Field numbers of the tables, a class each."""

    VERSION, OPERATOR_CODES, SUBGRAPHS, DESCRIPTION, BUFFERS, METADATA = 0, 1, 2, 3, 4, 6


class Buffer:
    DATA, OFFSET, SIZE = range(3)


class Metadata:
    NAME, BUFFER = range(2)


class OperatorCode:
    OLD_NUMBER, CUSTOM_NAME, VERSION, NUMBER = range(4)


class SubGraph:
    TENSORS, INPUTS, OUTPUTS, OPERATORS = range(4)


class Tensor:
    SHAPE, TYPE, BUFFER, NAME, QUANTIZATION, IS_VARIABLE, SPARSITY, SIGNATURE = range(8)


class QuantizationParameters:
    SCALE, ZERO_POINT, DETAILS_TYPE, DIMENSION = 2, 3, 4, 6


class Operator:
    CODE, INPUTS, OUTPUTS, OPTIONS, NEWER_OPTIONS = 0, 1, 2, 4, 12


TYPES = (
    "float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64", "int8", "float64",
    "complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4", "bfloat16",
)  # fmt: skip

OPERATORS = tuple(
    """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
    FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION
    LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH
    CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER
    BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE
    BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM
    ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE
    TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK
    LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD
    RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N
    GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE
    NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL
    PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE
    HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE
    ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU
    DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2
    UNSORTED_SEGMENT_MIN SIGN
    """.split()  # noqa: SIM905
)  # by number


class Option(NamedTuple):
    """A field of an operator's options."""

    number: int
    kind: str
    default: float


_KINDS = {
    "padding": "int8", "activation": "int8", "mode": "int8", "weights_format": "int8", "beta": "float32",
    "alpha": "float32", "keep_num_dims": "bool", "keep_dims": "bool", "align_corners": "bool",
    "half_pixel_centers": "bool", "adjoint_x": "bool", "adjoint_y": "bool", "approximate": "bool", "offset": "bool",
}  # fmt: skip
_DEFAULTS = {"dilation_w": 1, "dilation_h": 1}


def _options(fields: str) -> dict[str, Option]:
    """Fields in the order of their numbers; what is no integer stands in _KINDS, a `-` is passed over."""
    return {
        name: Option(number, _KINDS.get(name, "int32"), _DEFAULTS.get(name, 0))
        for number, name in enumerate(fields.split())
        if name != "-"
    }


_POOL = _options("padding stride_w stride_h filter_w filter_h activation")
_REDUCE = _options("keep_dims")
OPTIONS: dict[str, dict[str, Option]] = {
    "ADD": _options("activation"),
    "AVERAGE_POOL_2D": _POOL,
    "BATCH_MATMUL": _options("adjoint_x adjoint_y"),
    "CONCATENATION": _options("axis activation"),
    "CONV_2D": _options("padding stride_w stride_h activation dilation_w dilation_h"),
    "DEPTHWISE_CONV_2D": _options("padding stride_w stride_h multiplier activation dilation_w dilation_h"),
    "DEPTH_TO_SPACE": _options("block_size"),
    "DIV": _options("activation"),
    "FULLY_CONNECTED": _options("activation weights_format keep_num_dims"),
    "GATHER": _options("axis batch_dims"),
    "GELU": _options("approximate"),
    "L2_NORMALIZATION": _options("activation"),
    "LEAKY_RELU": _options("alpha"),
    "MAX_POOL_2D": _POOL,
    "MEAN": _REDUCE,
    "MIRROR_PAD": _options("mode"),
    "MUL": _options("activation"),
    "PACK": _options("count axis"),
    "REDUCE_MAX": _REDUCE,
    "REDUCE_MIN": _REDUCE,
    "RESIZE_BILINEAR": _options("- - align_corners half_pixel_centers"),
    "RESIZE_NEAREST_NEIGHBOR": _options("align_corners half_pixel_centers"),
    "SOFTMAX": _options("beta"),
    "SPACE_TO_DEPTH": _options("block_size"),
    "STRIDED_SLICE": _options("begin_mask end_mask ellipsis_mask new_axis_mask shrink_axis_mask offset"),
    "SUB": _options("activation"),
    "SUM": _REDUCE,
    "TRANSPOSE_CONV": _options("padding stride_w stride_h activation"),
    "UNPACK": _options("count axis"),
}


@dataclass(frozen=True)
class Options:
    """Of one operator, by name."""

    operator: str
    table: Table | None

    def __getitem__(self, name: str) -> Any:
        option = OPTIONS[self.operator][name]
        return option.default if self.table is None else self.table.number(option.number, option.kind, option.default)
