"""Does it run, and learn, on the core? The board's firmware on an emulated machine with the same core."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .boards import Board
from .compiled import CompiledModel
from .errors import TinyTrainError
from .ops import Int8
from .reference import run
from .targets.emulation import emulation_banks, emulation_board, machine_name
from .targets.firmware import build_firmware
from .targets.harness import INFER, pack_records, run_records
from .targets.host import HostModel
from .targets.short_training import EPOCHS, SAMPLES, measure_training, short_training
from .targets.stack import StackGraph, stack_bounds


def emulate(
    model: CompiledModel,
    count: int | None = None,
    *,
    core_of: Board | None = None,
    profile: bool = False,
    timeout_s: float = 300,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Run `count` test inputs on QEMU and compare every output and embedding byte with the NumPy reference.

    core_of: another board on whose core (and kernel variant) the same sources run; None for the model's own.
    Returns runner, core, inputs, mismatched_bytes, instructions_per_inference (mean), stack_bytes, stack_bounds,
    flash_bytes and sram_bytes (stack included) of the linked board image, training where the model trains (see
    emulate_training) and, with `profile`, instructions per function.
    """
    board = core_of or model.board
    machine = emulation_board(board)
    inputs = model.inputs(count)
    banks = emulation_banks(board, model.region_banks)
    with tempfile.TemporaryDirectory(prefix="tinytrain-emulate-") as folder:
        # What is flashed is linked for the board's own memory map: the sizes are its sizes.
        image = build_firmware(
            model.directory, model.name, board, banks, "selftest", Path(folder) / "board",
            slots=model.slots if board == model.board else None,
        )  # fmt: skip
        harness = build_firmware(
            model.directory, model.name, machine, emulation_banks(machine, model.region_banks), "harness",
            Path(folder) / "emulated", whole_api=True,
        )  # fmt: skip
        records = pack_records([(INFER, x.tobytes()) for x in inputs])
        ran = run_records(
            harness, machine, records, Path(folder) / "run", timeout_s, profile=profile, progress=progress
        )
        bounds = {entry: bound.bytes for entry, bound in stack_bounds(harness).items()}
        _check_stack(ran.stack_bytes, StackGraph(harness).worst_of_image().bytes)
    mismatched = 0
    for x, record in zip(inputs, ran.records, strict=True):
        if record.status != 0:
            raise TinyTrainError(f"{model.name}_infer() returned status {record.status} on {machine.name}")
        output, features = run(model.graph, x)
        mismatched += int((output != _int8(record.output)).sum() + (features != _int8(record.features)).sum())
    found = {
        "runner": machine_name(machine),
        "core": board.core,
        "board": board.name,
        "inputs": len(inputs),
        "mismatched_bytes": mismatched,
        "instructions_per_inference": round(sum(ran.instructions) / len(inputs)),
        "stack_bytes": ran.stack_bytes,
        "stack_bounds": bounds,
        "flash_bytes": image.flash_bytes,
        "code_bytes": image.code_bytes,
        "sram_bytes": image.sram_bytes,
    }
    if ran.profile is not None:
        found["profile"] = {symbol: n // len(inputs) for symbol, n in ran.profile.items()}
    if model.report["training"] is not None:
        found["training"] = emulate_training(model, core_of=core_of, profile=profile, progress=progress)
    return found


def emulate_training(
    model: CompiledModel,
    samples: int = SAMPLES,
    epochs: int = EPOCHS,
    *,
    core_of: Board | None = None,
    profile: bool = False,
    timeout_s: float = 300,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Train on a few test inputs on QEMU and compare every byte of the training state with this machine's C.

    Returns policy, head, steps, mismatched_bytes, training_state_bytes, instructions_per_step and of these
    instructions_forward, instructions_loss and instructions_backward (updates included), fisher_samples and the
    instructions_fisher that measuring on all of them took, stack_bytes (deepest, the
    emulator's program included) and, with `profile`, instructions per function and step.
    """
    training = model.report["training"]
    task = short_training(model.inputs(samples), model.report["model"]["classes"], epochs)
    measured = measure_training(
        model.directory, model.name, core_of or model.board, model.region_banks, task, head=model.report["head"],
        fisher_passes=training["fisher_passes"], profile=profile, timeout_s=timeout_s, progress=progress,
    )  # fmt: skip
    ran = measured.ran
    _check_stack(ran.stack_bytes, measured.stack_bound)
    with HostModel(model.directory, model.layout) as host:
        options = task.options
        host.train(task.sample, task.labels, options.epochs, options.rate, options.seed)
        state = host.training_state(model.report)
    step = ran.per_step
    found = {
        "policy": model.report["policy"],
        "head": model.report["head"],
        "steps": task.steps,
        "mismatched_bytes": sum(a != b for a, b in zip(state, ran.training_state[: len(state)], strict=True)),
        "training_state_bytes": len(state),
        "instructions_per_step": step.total,
        "instructions_forward": step.forward,
        "instructions_loss": step.loss,
        "instructions_backward": step.backward,
        "fisher_samples": len(ran.fisher),
        "instructions_fisher": sum(sample.total for sample in ran.fisher),
        "stack_bytes": ran.stack_bytes,
    }
    if ran.profile is not None:
        found["profile"] = {symbol: n // task.steps for symbol, n in ran.profile.items()}
    return found


def _check_stack(measured: int, bound: int) -> None:
    if measured > bound:
        raise TinyTrainError(f"{measured} bytes of stack were used, proven were {bound}: please report it")


def _int8(data: bytes) -> Int8:
    return np.frombuffer(data, np.int8)


def stack_bounds_of(model: CompiledModel, board: Board) -> dict[str, Any]:
    """{"core", "functions": {function of the model's API: {"bytes", "path": [{"function", "bytes"}]}}}.

    Bounds are of the core's own code, so they need its compiler, but nothing runs. Interrupts and the callbacks of a
    training are the application's and come on top.
    """
    with tempfile.TemporaryDirectory(prefix="tinytrain-stack-") as folder:
        banks = emulation_banks(board, model.region_banks)
        image = build_firmware(model.directory, model.name, board, banks, "selftest", Path(folder), whole_api=True)
        bounds = stack_bounds(image)
    functions = {
        entry: {"bytes": bound.bytes, "path": [{"function": name, "bytes": size} for name, size in bound.path]}
        for entry, bound in bounds.items()
    }
    return {"core": board.core, "functions": functions}
