"""A policy's own C, written from the quantised graph of a compiled model."""

from __future__ import annotations

from pathlib import Path

from ..codegen.emit import ModelInfo
from ..compiled import CompiledModel
from ..lowering import Lowered, emit, lower
from ..output_folder import write_files
from ..runtime_abi import SELECTORS
from ..training.heads import HeadKind, head_kind
from ..training.options import learning_options
from ..training.policies import scheme_for
from .learner import LearnerOptions

# Policies that let the device choose: `tinytrain`, and the same by other selectors.
SELECTOR_OF = {"tinytrain": SELECTORS[0]} | {selector: selector for selector in SELECTORS[1:]}


def head_of(model: CompiledModel, options: LearnerOptions) -> HeadKind:
    """The head asked for, else the folder's. Raises UsageError where there is none of the name."""
    return head_kind(options.head or model.report["head"])


def write_policy(model: CompiledModel, options: LearnerOptions, policy: str, directory: Path) -> Lowered:
    """Write the model as it is with this policy of `tinytrain evaluate`. Whether it fits the board is not asked."""
    classes, head = int(model.report["model"]["classes"]), head_of(model, options)
    selector, macs = None, None
    if policy in SELECTOR_OF:
        policy, selector, macs = "tinytrain", SELECTOR_OF[policy], options.macs
    pool = options.pool if policy == "tinytrain" else None
    learning = learning_options(policy, head, options.formats, pool, selector, macs)
    scheme_file = options.scheme if policy in ("sparse-update", "tinytrain") else None
    scheme = scheme_for(model.graph, policy, scheme_file, head)
    lowered = lower(model.graph, model.board, model.name, classes, scheme, options=learning)
    sources = emit(lowered, ModelInfo(model.name, model.report["model"]["sha256"], "", classes, None, head.name))
    write_files(directory, {path: text.encode() for path, text in sources.items()})
    return lowered
