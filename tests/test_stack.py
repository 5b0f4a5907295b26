"""Proven stack bounds: they hold what was measured, agree with the compiler's own figures, and refuse recursion."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Cli
from test_training import LABELS, OPTIONS, SAMPLES, Case
from tinytrain_compiler import Artifacts, compile_model
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.errors import TinyTrainError
from tinytrain_compiler.projects.description import C_FLAGS
from tinytrain_compiler.targets.emulation import emulation_banks, emulation_board
from tinytrain_compiler.targets.firmware import COMPILER, Firmware, build_firmware
from tinytrain_compiler.targets.harness_training import pack_training, run_training
from tinytrain_compiler.targets.stack import StackGraph, _listed, _pushed, stack_bounds
from tools import require_or_skip, write_fake_model

BOARDS = ["stm32f746", "nrf52840dk", "mps2_an385", "rp2040"]
API = ("input", "infer", "enroll", "forget", "unlearn", "train")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Case, Firmware]]:
    """The training network as emulator firmware for a board's core, its whole API linked."""
    require_or_skip("arm-none-eabi-gcc", "arm-none-eabi-objdump")
    built: dict[str, tuple[Case, Firmware]] = {}

    def of(board: str) -> tuple[Case, Firmware]:
        if board not in built:
            folder = tmp_path_factory.mktemp(board)
            case = Case(folder, board)
            machine = emulation_board(load_board(board))
            banks = emulation_banks(machine, case.lowered.plan.region_banks)
            args = (case.directory, "net", machine, banks, "train", folder / "build")
            built[board] = case, build_firmware(*args, whole_api=True)  # type: ignore[arg-type]
        return built[board]

    return of


@pytest.mark.parametrize("board", BOARDS)
def test_bound_holds_what_painting_the_stack_found(
    board: str, trained: Callable[[str], tuple[Case, Firmware]], tmp_path: Path
) -> None:
    require_or_skip("qemu-system-arm", "cc")
    case, firmware = trained(board)
    machine = emulation_board(load_board(board))
    data = pack_training(case.sample, LABELS, OPTIONS)
    ran = run_training(firmware, machine, data, OPTIONS.epochs * SAMPLES, tmp_path)
    bound = StackGraph(firmware).worst_of_image()
    assert ran.stack_bytes <= bound.bytes
    assert ran.stack_bytes > bound.bytes / 2, "a bound far above what is used would be no use"
    assert [name for name, _ in bound.path][:2] == ["Reset_Handler", "main"]


@pytest.mark.parametrize("board", BOARDS)
def test_training_takes_less_than_4_kb(board: str, trained: Callable[[str], tuple[Case, Firmware]]) -> None:
    _, firmware = trained(board)
    bounds = stack_bounds(firmware)
    assert {f"net_{function}" for function in API} <= set(bounds)
    assert all(bound.bytes <= 4096 for bound in bounds.values())
    train = bounds["net_train"]
    assert train.bytes == sum(frame for _, frame in train.path)
    assert train.path[0][0] == "net_train"
    pointed_to = {"net_run_frozen", "net_run_trained", "backward"}
    assert pointed_to & {name for name, _ in train.path}, "through the pointers of the descriptor"
    assert train.bytes > bounds["net_enroll"].bytes > bounds["net_forget"].bytes, "training enrols"
    assert bounds["net_infer"].bytes > max(frame for name, frame in bounds["net_infer"].path)


@pytest.mark.parametrize("board", ["stm32f746", "rp2040"])
def test_frames_are_those_that_the_compiler_reports(
    board: str, trained: Callable[[str], tuple[Case, Firmware]], tmp_path: Path
) -> None:
    """-fstack-usage, an account of its own of the same numbers."""
    case, firmware = trained(board)
    frames = {function.name: function.frame for function in StackGraph(firmware)._functions.values()}
    compared = 0
    for source in (case.directory / "net_kernels.c", case.directory / "net_train.c"):
        command = [COMPILER, *firmware.board.cpu_flags, *C_FLAGS, "-fstack-usage", f"-I{case.directory}"]
        runtime = f"-I{case.directory / 'runtime'}"
        subprocess.run([*command, runtime, "-c", str(source), "-o", str(tmp_path / f"{source.stem}.o")], check=True)
        for line in (tmp_path / f"{source.stem}.su").read_text().splitlines():
            place, size, kind = line.split("\t")
            name = place.split(":")[-1]
            if name in frames:
                assert kind == "static"
                assert frames[name] == int(size), name
                compared += 1
    assert compared >= 8


def sabotaged(tmp_path: Path, statement: str, function: str = "") -> Firmware:
    """A tiny model whose inference does something more."""
    require_or_skip("arm-none-eabi-gcc", "arm-none-eabi-objdump")
    directory = write_fake_model(tmp_path / "model", sabotage=statement)
    source = directory / "fake.c"
    source.write_text(source.read_text().replace("#include <string.h>\n", f"#include <string.h>\n{function}\n"))
    board = load_board("mps2_an386")
    return build_firmware(directory, "fake", board, [board.banks[0].name] * 2, "harness",
                          tmp_path / "build", whole_api=True)  # fmt: skip


def test_recursion_is_an_error_that_names_it(tmp_path: Path) -> None:
    function = """
__attribute__((noinline)) static int odd(int n);
__attribute__((noinline)) static int even(int n) { volatile int a = n; return n == 0 ? 1 : odd(a - 1) + a; }
__attribute__((noinline)) static int odd(int n) { volatile int a = n; return n == 0 ? 0 : even(a - 1) + a; }
"""
    firmware = sabotaged(tmp_path, "result->score += even(input[0]);", function)
    with pytest.raises(TinyTrainError, match=r"the stack has no bound, (even|odd) calls (even|odd)"):
        stack_bounds(firmware)


def test_frame_of_variable_size_is_an_error(tmp_path: Path) -> None:
    function = """
__attribute__((noinline)) static int varies(int n)
{
    volatile char bytes[n + 1];
    bytes[n] = 1;
    return bytes[n / 2];
}
"""
    with pytest.raises(TinyTrainError, match="varies has a frame of variable size"):
        stack_bounds(sabotaged(tmp_path, "result->score += varies(input[0] & 63);", function))


def test_a_larger_frame_shows_in_the_bound_and_on_the_path(tmp_path: Path) -> None:
    function = """
__attribute__((noinline)) static int wide(int n)
{
    volatile char bytes[1000];
    bytes[n] = 1;
    return bytes[n / 2];
}
"""
    plain = stack_bounds(sabotaged(tmp_path / "a", ""))["fake_infer"]
    wide = stack_bounds(sabotaged(tmp_path / "b", "result->score += wide(input[0] & 63);", function))["fake_infer"]
    assert wide.bytes >= plain.bytes - 100 + 1000
    assert wide.path[-1][0] == "wide"
    assert wide.path[-1][1] >= 1000


def test_pushes_of_assembly_are_counted() -> None:
    listing = [
        ("push", "{r4-r7, lr}"), ("sub", "sp, #16"), ("stmdb", "sp!, {r0, r1}"), ("str.w", "lr, [sp, #-8]!"),
        ("vpush", "{d8-d9}"), ("sub.w", "sp, sp, #400\t@ 0x190"), ("add", "sp, #416"), ("ldr", "r0, [sp, #4]"),
        ("strd", "r0, r1, [sp, #-16]!"), ("pop", "{r4-r7, pc}"),
    ]  # fmt: skip
    assert _pushed(listing) == 20 + 16 + 8 + 8 + 16 + 400 + 16
    assert [_listed(text) for text in ("r4", "r4-r7, lr", "d8-d15", "r0, r1, r12")] == [1, 5, 8, 3]


@pytest.fixture(scope="module")
def learning(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    folder = tmp_path_factory.mktemp("learning") / "small"
    return compile_model(small_model, "stm32f746", folder, classes=4, policy="last-layer")


def test_stack_command(run_cli: Cli, learning: Artifacts) -> None:
    require_or_skip("arm-none-eabi-gcc", "arm-none-eabi-objdump")
    ran = run_cli("tinytrain", "stack", str(learning.directory), "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["core"] == "cortex-m7"
    train = found["functions"]["small_train"]
    assert train["bytes"] == sum(frame["bytes"] for frame in train["path"]) <= 4096
    text = run_cli("tinytrain", "stack", str(learning.directory)).out
    assert f"small_train {train['bytes']:,}" in text
    assert "without interrupts and your callbacks" in text
    other = json.loads(run_cli("tinytrain", "stack", str(learning.directory), "--core-of", "rp2040", "--json").out)
    assert other["core"] == "cortex-m0plus"
    assert other["functions"] != found["functions"]


def test_emulate_trains_a_model_that_trains(run_cli: Cli, learning: Artifacts) -> None:
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm", "cc")
    ran = run_cli("tinytrain", "emulate", str(learning.directory), "--inputs", "2", "--profile", "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    training = found["training"]
    assert (training["policy"], training["steps"], training["mismatched_bytes"]) == ("last-layer", 8, 0)
    parts = [training[f"instructions_{part}"] for part in ("forward", "loss", "backward")]
    assert training["instructions_per_step"] == sum(parts)
    assert min(parts) > 500
    assert 0.5 < training["instructions_forward"] / found["instructions_per_inference"] < 2
    assert abs(sum(training["profile"].values()) / training["instructions_per_step"] - 1) < 0.1
    assert found["stack_bounds"]["small_train"] <= 4096
    text = run_cli("tinytrain", "emulate", str(learning.directory), "--inputs", "1").out
    assert re.search(rf"forward {parts[0]:,}, loss {parts[1]:,}, backward and update {parts[2]:,}", text)


def test_emulate_of_a_model_that_does_not_train_says_nothing_of_training(
    run_cli: Cli, compiled_small: Artifacts
) -> None:
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm", "cc")
    found = json.loads(run_cli("tinytrain", "emulate", str(compiled_small.directory), "--inputs", "1", "--json").out)
    assert "training" not in found
    assert "small_train" not in found["stack_bounds"]
    assert found["stack_bounds"]["small_infer"] <= 4096
