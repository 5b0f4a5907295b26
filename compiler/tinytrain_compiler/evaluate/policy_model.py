"""A policy's own C, written from the quantised graph of a compiled model, whatever that was compiled with."""

from __future__ import annotations

from pathlib import Path

from ..codegen.emit import ModelInfo
from ..compiled import CompiledModel
from ..lowering import Lowered, emit, lower
from ..output_folder import write_files
from ..training.heads import HeadKind, head_kind
from ..training.options import learning_options
from ..training.policy import Policy
from ..training.trainable import scheme_of
from .learner import LearnerOptions


def head_of(model: CompiledModel, options: LearnerOptions) -> HeadKind:
    """The head asked for, else the folder's. Raises UsageError where there is none of the name."""
    return head_kind(options.head or model.report["head"])


def takes_steps(model: CompiledModel, options: LearnerOptions, policy: Policy) -> bool:
    """Whether there is anything to train, in layers or in the head."""
    return policy.trains_layers or head_of(model, options).learns


def write_policy(model: CompiledModel, options: LearnerOptions, policy: Policy, directory: Path) -> Lowered:
    """Write the model as it is with this policy. Whether it fits the board is not asked."""
    classes, head = int(model.report["model"]["classes"]), head_of(model, options)
    graph = policy.prepare(model.graph)
    scheme, learning = scheme_of(policy, graph, head), learning_options(policy, head, options.formats)
    lowered = lower(graph, model.board, model.name, classes, scheme, options=learning)
    sources = emit(lowered, ModelInfo(model.name, (), (), classes, None, head.name))
    write_files(directory, {path: text.encode() for path, text in sources.items()})
    return lowered
