"""What a model does, in order: typed steps, each with what it reads, writes and needs as scratch memory.

Training plans add steps; memory planning, code generation and reports read them. Nobody else numbers anything.
"""

from .forward import forward_step, inference_schedule, renamed
from .places import PURPOSES, Activation, BufferNames, BufferSpec, Place, Purpose, align
from .schedule import Moment, Phase, Schedule, moment_name
from .steps import (
    Accumulate,
    ApplyMask,
    CopyGradient,
    EffectiveParameters,
    FisherScore,
    Forward,
    InputGradient,
    KeepFisherInput,
    KernelStep,
    Loss,
    SaveArgmaxIndices,
    SaveInput,
    SaveMask,
    ShareGradient,
    Step,
    UpdateBias,
    UpdateWeights,
)

__all__ = [
    "PURPOSES",
    "Accumulate",
    "Activation",
    "ApplyMask",
    "BufferNames",
    "BufferSpec",
    "CopyGradient",
    "EffectiveParameters",
    "FisherScore",
    "Forward",
    "InputGradient",
    "KeepFisherInput",
    "KernelStep",
    "Loss",
    "Moment",
    "Phase",
    "Place",
    "Purpose",
    "SaveArgmaxIndices",
    "SaveInput",
    "SaveMask",
    "Schedule",
    "ShareGradient",
    "Step",
    "UpdateBias",
    "UpdateWeights",
    "align",
    "forward_step",
    "inference_schedule",
    "moment_name",
    "renamed",
]
