"""What a training step of a policy costs on the board's core: one short training on an emulated one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from ..compiled import CompiledModel
from ..errors import TinyTrainError
from ..targets.emulation import emulation_board, runner_of
from ..targets.firmware import COMPILER
from ..targets.harness_training import StepInstructions
from ..targets.short_training import SAMPLES, measure_training, short_training
from ..targets.tools import require_tool
from ..training.policy import Policy
from .learner import LearnerOptions
from .policy_model import takes_steps, write_policy

Note = Callable[[str], None]


def step_instructions(
    model: CompiledModel, name: str, policy: Policy, options: LearnerOptions, note: Note = lambda text: None
) -> StepInstructions | None:
    """None for a policy that takes no steps, and, with a note of one line, where it cannot be measured here.

    name: of the policy, for the note.
    """
    if not takes_steps(model, options, policy):
        return None
    try:
        for tool in (COMPILER, *runner_of(emulation_board(model.board)).tools):
            require_tool(tool)
        with tempfile.TemporaryDirectory(prefix="tinytrain-steps-") as folder:
            lowered = write_policy(model, options, policy, Path(folder) / "model")
            assert lowered.training is not None
            task = short_training(model.inputs(SAMPLES), lowered.classes)
            measured = measure_training(
                Path(folder) / "model", model.name, model.board, lowered.plan.region_banks, task,
                head=lowered.options.head.name, fisher_passes=lowered.training.fisher_passes,
            )  # fmt: skip
    except TinyTrainError as error:  # accuracy does not depend on it: hours of episodes must not be lost here
        note(f"instructions of a step of {name} were not measured: {' '.join(str(error).split())}")
        return None
    return measured.ran.per_step
