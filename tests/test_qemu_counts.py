"""The emulation wrapper: counts are exact, and a run that went wrong never looks like one that went right."""

from __future__ import annotations

import dataclasses
import struct
import subprocess
import time
from pathlib import Path

import pytest
from tinytrain_compiler.boards import Board, load_board
from tinytrain_compiler.errors import TinyTrainError, UsageError
from tinytrain_compiler.projects.description import C_FLAGS, LINK_FLAGS
from tinytrain_compiler.projects.firmware import render_firmware
from tinytrain_compiler.targets import emulation
from tinytrain_compiler.targets.apps import HARNESS
from tinytrain_compiler.targets.emulation import emulation_banks, emulation_board, execute
from tinytrain_compiler.targets.firmware import Firmware, build_firmware
from tinytrain_compiler.targets.harness import INFER, HarnessRun, pack_records, run_records
from tinytrain_compiler.targets.runner import Job, Run
from tools import INPUT_BYTES, fake_infer, fake_selftest_input, require_or_skip, write_fake_model

# Stretches whose instructions can be counted by reading. The markers are the harness's.
_CALIBRATION = r"""
#include "semihosting.h"
#include "startup.h"
#define BEGIN "mov r10, r10\n"
#define END "mov r11, r11\n"
_Noreturn void tt_fault(uint32_t pc, uint32_t cause)
{
    (void)pc, (void)cause;
    tt_exit(1u);
}
__attribute__((noinline)) void count_down(uint32_t n)
{
    __asm__ volatile("1: sub %0, %0, #1\n cmp %0, #0\n bne 1b" : "+r"(n) : : "cc");
}
int main(void)
{
    uint32_t n = 1000000u;
    __asm__ volatile(BEGIN END);
    __asm__ volatile(BEGIN ".rept 1000\n nop\n .endr\n" END);
    __asm__ volatile(BEGIN ".rept 12345\n add r0, r0, #1\n .endr\n" END : : : "r0", "cc");
    __asm__ volatile(BEGIN "1: subs %0, %0, #1\n bne 1b\n" END : "+r"(n) : : "cc");
    /* An IT block's skipped instruction occupies the pipeline, and counts. */
    __asm__ volatile(BEGIN "cmp r0, r0\n ite eq\n addeq r1, r1, #1\n addne r1, r1, #1\n" END : : : "r1", "cc");
    /* The block-transfer instruction is one, however many registers it moves. */
    __asm__ volatile(BEGIN "push {r0-r7}\n pop {r0-r7}\n" END : : : "memory");
    __asm__ volatile(BEGIN : : : "memory");
    count_down(500u);
    __asm__ volatile(END : : : "memory");
    tt_exit(0u);
}
"""
_EXPECTED = [0, 1000, 12345, 2_000_000, 4, 2]


def _calibration_image(directory: Path, board: Board) -> Path:
    for path, text in render_firmware(board, "fake", [], HARNESS).items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)
    firmware = directory / "firmware"
    (firmware / "main.c").write_text(_CALIBRATION)
    elf = directory / "calibration.elf"
    command = ["arm-none-eabi-gcc", *board.cpu_flags, *C_FLAGS, *LINK_FLAGS, "-T", str(firmware / f"{board.name}.ld")]
    subprocess.run([*command, str(firmware / "main.c"), str(firmware / "startup.c"), "-o", str(elf)], check=True)
    return elf


@pytest.mark.parametrize("name", ["mps2_an385", "mps2_an386", "mps2_an500"])
@pytest.mark.parametrize("profile", [False, True])
def test_counts_are_exact(tmp_path: Path, name: str, profile: bool) -> None:
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm", "cc")
    board = load_board(name)
    run = execute(Job(_calibration_image(tmp_path, board), board, tmp_path / "run", timeout_s=30, profile=profile))
    assert run.counts[:-1] == _EXPECTED
    # 500 rounds of three, the call's argument, the call and the return.
    assert 1500 + 2 <= run.counts[-1] <= 1500 + 4
    if profile:
        assert run.profile == {
            "main": sum(run.counts) - 1501,
            "count_down": 1501,
        }


def _harness(tmp_path: Path, board: Board, sabotage: str = "") -> Firmware:
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm", "cc")
    model = write_fake_model(tmp_path / "model", sabotage=sabotage)
    banks = emulation_banks(board, ["DTCM", "SRAM1"])
    return build_firmware(model, "fake", board, banks, "harness", tmp_path / "build")


def _run(tmp_path: Path, name: str, sabotage: str = "", timeout_s: float = 20, profile: bool = False) -> HarnessRun:
    board = emulation_board(load_board(name))
    records = pack_records([(INFER, fake_selftest_input()), (3, bytes(INPUT_BYTES)), (99, bytes(INPUT_BYTES)),
                            (INFER, bytes(range(INPUT_BYTES)))])  # fmt: skip
    firmware = _harness(tmp_path, board, sabotage)
    return run_records(firmware, board, records, tmp_path / "run", timeout_s, profile=profile)


@pytest.mark.parametrize("name", ["stm32f746", "nrf52840dk", "rp2040", "mps2_an385"])
def test_records_come_back(tmp_path: Path, name: str) -> None:
    run = _run(tmp_path, name, profile=True)
    first, enrolled, refused, last = run.records
    assert (first.status, first.label) == (0, -1)
    assert (first.output, first.features) == fake_infer(fake_selftest_input())
    assert enrolled == (0, 3, 0, bytes(4), bytes(8))
    assert refused == (-4, 99, 0, bytes(4), bytes(8))
    assert (last.status, last.label) == (0, 99)
    assert (last.output, last.features) == fake_infer(bytes(range(INPUT_BYTES)))
    assert 0 < run.stack_bytes < 1024
    assert run.instructions[0] == run.instructions[3] > 48
    assert max(run.instructions[1:3]) < 30
    assert run.profile
    assert sum(run.profile.values()) == sum(run.instructions)
    assert {"fake_kernel", "tt_sum"} <= run.profile.keys()
    again = run_records(
        _harness(tmp_path, emulation_board(load_board(name))),
        emulation_board(load_board(name)),
        (tmp_path / "run" / "input.bin").read_bytes(),
        tmp_path / "again",
    )
    assert (again.outputs, again.instructions) == (run.outputs, run.instructions)


@pytest.mark.parametrize(
    ("sabotage", "message"),
    [
        ("s->region0[4096] = 1;", "a guard beside the memory region was overwritten"),
        ("s->region1[-1] = 1;", "a guard beside the memory region was overwritten"),
        ("*(volatile int *)0x50000000 = 1;", r"exit code 1.*fault at pc 0x[0-9a-f]{8} in fake_infer"),
        ("volatile char d[5000]; for (int i = 4999; i >= 0; --i) { d[i] = d[i]; }", "stack overflow.*has 4096 bytes"),
        ("volatile int zero = 0; result->score /= zero;", "fault at pc .* in fake_infer"),
        ("memset(features, 0, 20);", "every output of the emulated firmware is 0"),
        ('__asm__ volatile("mov r10, r10");', "exit code 70.*a stretch begins inside another"),
        ('__asm__ volatile("mov r0, #24\\nldr r1, =0x20026\\nbkpt 0xab" : : : "r0", "r1");', "without its verdict"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_an_error(tmp_path: Path, sabotage: str, message: str) -> None:
    with pytest.raises(TinyTrainError, match=f"(?s){message}"):
        _run(tmp_path, "stm32f746", sabotage)


def test_unaligned_access_faults_on_the_emulated_m0plus(tmp_path: Path) -> None:
    with pytest.raises(TinyTrainError, match=r"fault at pc .* in fake_infer"):
        _run(tmp_path, "rp2040", "*(volatile int *)(void *)(s->region0 + 1) = 1;")


def test_a_hanging_firmware_is_stopped(tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(TinyTrainError, match=r"stopped after 1 s with 0 of 4 records done\. Raise the time limit"):
        _run(tmp_path, "stm32f746", 'for (;;) { __asm__ volatile(""); }', timeout_s=1)
    assert time.monotonic() - begin < 8


def test_wrong_use_is_named(tmp_path: Path) -> None:
    machine = load_board("mps2_an500")
    firmware = _harness(tmp_path, machine)
    with pytest.raises(UsageError, match="5 bytes are not 1 records of a label and 48 input bytes"):
        run_records(firmware, machine, b"\1\0\0\0x", tmp_path / "run")
    records = pack_records([(INFER, bytes(INPUT_BYTES))])
    with pytest.raises(UsageError, match="'stm32f746' is no machine of qemu"):
        run_records(firmware, load_board("stm32f746"), records, tmp_path / "run")


class _EchoRunner:
    """Answers one record without running anything."""

    name, tools = "echo", ()

    def run(self, job: Job) -> Run:
        output, features = fake_infer(job.files["input.bin"][8:])  # behind the count and the label
        answer = struct.pack("<iii", 0, 2, 5) + output + features
        return Run("tinytrain: stack 8 bytes\ntinytrain: done 1 records\n", "", [7], None, {job.wanted[0]: answer})


def test_a_runner_is_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_or_skip("arm-none-eabi-gcc")
    monkeypatch.setattr(emulation, "RUNNERS", (*emulation.RUNNERS, _EchoRunner()))
    machine = dataclasses.replace(load_board("mps2_an385"), machines={"echo": "anything"})
    firmware = _harness(tmp_path, machine)
    ran = run_records(firmware, machine, pack_records([(INFER, fake_selftest_input())]), tmp_path / "run")
    assert (ran.instructions, ran.stack_bytes, ran.records[0].label) == ([7], 8, 2)
    assert emulation.machine_name(machine) == "echo anything"
