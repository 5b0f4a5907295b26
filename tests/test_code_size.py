"""Sizes promised at compile time against linked firmware: the bound on flash holds and is not far off, RAM is exact."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from graphs import write_model
from networks import NETWORKS
from test_training import Case
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.codegen.kernels import kernel_bodies, kernel_table
from tinytrain_compiler.footprint.training import training_flash
from tinytrain_compiler.footprint.use import STORAGE_CODE, code_bound
from tinytrain_compiler.lowering import Lowered
from tinytrain_compiler.ops import Kernel
from tinytrain_compiler.schedule import KernelStep
from tinytrain_compiler.targets.firmware import Firmware, build_firmware
from tools import require_or_skip

BOARDS = ("stm32f746", "mps2_an385", "rp2040")


def linked(name: str, board_name: str, folder: Path, classes: int = 3) -> tuple[Lowered, Firmware]:
    require_or_skip("arm-none-eabi-gcc")
    board = load_board(board_name)
    lowered = write_model(NETWORKS[name](), "net", folder / "model", board_name, classes)
    banks = lowered.plan.region_banks
    return lowered, build_firmware(folder / "model", "net", board, banks, "selftest", folder / "build")


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_flash_stays_below_the_bound_that_decides_what_fits(name: str, board: str, tmp_path: Path) -> None:
    lowered, firmware = linked(name, board, tmp_path)
    constants = sum(use.kernel.flash_bytes for use in lowered.kernels.uses)
    # The bring-up program neither saves nor loads; test_storage.py measures what does.
    code, bound = firmware.flash_bytes - constants, lowered.flash.total - constants - STORAGE_CODE
    assert code <= bound <= 1.8 * code


@pytest.mark.parametrize("board", BOARDS)
def test_ram_is_what_the_report_says(board: str, tmp_path: Path) -> None:
    lowered, firmware = linked("mobile", board, tmp_path, classes=7)
    assert firmware.sram["region0"] == lowered.sram.arena
    assert firmware.sram["stack"] == lowered.sram.stack
    # The bring-up program keeps the session in .bss and nothing else that is larger than a few words.
    assert 0 <= firmware.sram["bss"] - lowered.sram.session <= 64
    assert "data" not in firmware.sram
    assert lowered.sram.static_data == 0


def test_session_size_is_sizeof_on_a_32_bit_core(tmp_path: Path) -> None:
    """For even and odd numbers of classes and features."""
    require_or_skip("arm-none-eabi-gcc")
    for name in ("mobile", "few_pixels", "vectors"):
        for classes in (1, 2, 5):
            folder = tmp_path / f"{name}{classes}"
            lowered = write_model(NETWORKS[name](), "net", folder, classes=classes)
            check = f'_Static_assert(sizeof(net_session) == {lowered.sram.session}, "size");\n'
            (folder / "check.c").write_text(f'#include "net.h"\n{check}')
            flags = [*load_board("mps2_an385").cpu_flags, f"-I{folder}", f"-I{folder / 'runtime'}", "-fsyntax-only"]
            subprocess.run(["arm-none-eabi-gcc", *flags, str(folder / "check.c")], check=True)


@pytest.mark.parametrize("board", BOARDS)
def test_flash_of_a_model_that_trains_stays_below_its_bound(board: str, tmp_path: Path) -> None:
    require_or_skip("arm-none-eabi-gcc")
    case = Case(tmp_path, board)
    plan, lowered = case.lowered.training, case.lowered
    assert plan is not None
    target = load_board(board)
    banks = lowered.plan.region_banks
    firmware = build_firmware(case.directory, "net", target, banks, "train", tmp_path / "build")
    constants = sum(use.kernel.flash_bytes for use in lowered.kernels.uses) + training_flash(plan, target)[0]
    code, bound = firmware.flash_bytes - constants, lowered.flash.total - constants
    assert code <= bound <= 1.8 * code


def test_every_kernel_of_a_backward_pass_has_a_bound(tmp_path: Path) -> None:
    plan = Case(tmp_path).lowered.training
    assert plan is not None
    steps = [step for step in plan.schedule.steps() if isinstance(step, KernelStep)]
    assert steps
    for step in steps:
        assert_bounds(step.kernel)


def test_shared_kernels_are_counted_once() -> None:
    table = kernel_table(NETWORKS["mobile"](), "net")
    board = load_board("stm32f746")
    twice = type(table)(table.uses * 2, table.prototypes)
    assert code_bound(twice, board) - code_bound(table, board) == 20 * len(table.uses)


def test_every_kernel_has_a_bound() -> None:
    for make in NETWORKS.values():
        for use in kernel_table(make(), "net").uses:
            assert_bounds(use.kernel)


def assert_bounds(kernel: Kernel) -> None:
    """A record says how large each variant gets that it has a template for, and no other."""
    assert set(kernel.code) == {variant.name for variant in kernel_bodies(kernel) if not variant.host}
    assert all(kernel.code_bytes(load_board(name)) > 0 for name in BOARDS)


def test_a_record_without_a_size_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="new/forward: its record does not say how large the portable kernel gets"):
        Kernel("new/forward", "new", "tt_no_params", {}, {"dsp": 100})
