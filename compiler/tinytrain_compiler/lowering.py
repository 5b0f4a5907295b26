"""A graph becomes memory, kernels and, at the end, text: what compile, evaluation and tests share."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .audio import AudioPlan
from .boards import Board
from .codegen import KernelTable, emit_sources, kernel_table
from .codegen.emit import ModelInfo
from .footprint.use import LINK_SLACK, FlashUse, SramUse, flash_use, session_bytes, sram_use, state_bytes
from .graph import Graph
from .memory import MemoryPlan, NoSlots, Slots, plan_memory, plan_slots
from .memory.slots import AUTO, DECLINED, NONE
from .projects import Project, render_project
from .runtime_files import runtime_sources
from .schedule import inference_schedule
from .training.options import DEFAULT, LearningOptions
from .training.plan import TrainingPlan, plan_training
from .training.scheme import Scheme

DEFAULT_CLASSES = 10


@dataclass(frozen=True)
class Lowered:
    """A graph with its memory and its kernels, ready to be written as C."""

    graph: Graph
    board: Board
    plan: MemoryPlan
    kernels: KernelTable
    sram: SramUse
    flash: FlashUse
    classes: int
    options: LearningOptions
    slots: Slots | NoSlots  # of saved states
    training: TrainingPlan | None = None
    audio: AudioPlan | None = None  # the front end, of a model that takes sound


def lower(
    graph: Graph, board: Board, prefix: str, classes: int = DEFAULT_CLASSES, scheme: Scheme | None = None,
    sram_limit: int | None = None, options: LearningOptions = DEFAULT, storage: str = AUTO,
    audio: AudioPlan | None = None,
) -> Lowered:  # fmt: skip
    """Plan memory and choose kernels; says nothing yet about whether it fits.

    scheme: what learns, if anything. sram_limit: bytes the model may use, None for all that the board has.
    options: how it learns; UsageError where the board cannot compute in its formats. storage: of memory/slots.py.
    audio: the front end, if the model takes sound.
    """
    features = graph.tensors[graph.features].bytes
    session = session_bytes(classes, features, trains=scheme is not None)
    options.formats.gradients.check(board)
    training = plan_training(graph, scheme, classes, options) if scheme is not None else None
    schedule = inference_schedule(graph) if training is None else training.schedule
    front_end = 0 if audio is None else audio.state_bytes
    plan = plan_memory(schedule, board.banks, board.stack_bytes + session + front_end + LINK_SLACK)
    kernels = kernel_table(graph, prefix)
    flash = flash_use(kernels, board, training, audio)
    state = state_bytes(classes, features, training.training_state_bytes if training else 0)
    slots = NoSlots(DECLINED, state) if storage == NONE else plan_slots(board.flash, state, flash.total)
    if isinstance(slots, Slots):
        flash = replace(flash, slots=slots.bytes)
    return Lowered(
        graph,
        board,
        plan,
        kernels,
        sram_use(plan, board, session, sram_limit, audio),
        flash,
        classes,
        options,
        slots,
        training,
        audio,
    )


def emit(lowered: Lowered, info: ModelInfo) -> dict[str, str]:
    """All C, headers and build files, by path."""
    sources = emit_sources(lowered.plan, lowered.kernels, info, lowered.training, lowered.audio)
    training, slots = lowered.training, lowered.slots if isinstance(lowered.slots, Slots) else None
    audio = lowered.audio is not None
    runtime = runtime_sources(info.head, None if training is None else training.formats.gradients.name, audio)
    banks = tuple(lowered.plan.region_banks)
    project = Project(info.prefix, lowered.board, banks, runtime, training is not None, slots, audio)
    return sources | render_project(project)
