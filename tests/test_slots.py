"""Saved states never lie where code does: slots at the end of the flash, in whole sectors, behind the image."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import Cli
from hypothesis import given
from hypothesis import strategies as st
from tinytrain_compiler import Artifacts
from tinytrain_compiler.boards import MemoryRegion, Sectors, load_board
from tinytrain_compiler.errors import DoesNotFitError
from tinytrain_compiler.memory import NoSlots, Slots, plan_slots
from tinytrain_compiler.memory.slots import NO_ROOM, UNKNOWN
from tinytrain_compiler.projects import Project, render_project
from tinytrain_compiler.resources import BOARDS
from tinytrain_compiler.targets.firmware import build_firmware, read_symbols
from tools import require_or_skip, write_fake_model

KB = 1024


@pytest.mark.parametrize(
    ("board", "origin", "slot", "erase"),
    [
        ("stm32f746", 0x08080000, 256 * KB, 256 * KB),  # sectors 6 and 7
        ("nrf52840dk", 0x100000 - 2 * 8 * KB, 8 * KB, 4 * KB),
        ("rp2040", 0x10200000 - 2 * 8 * KB, 8 * KB, 4 * KB),
        ("mps2_an500", 0x400000 - 2 * 64 * KB, 64 * KB, 64 * KB),
    ],
)
def test_slots_are_the_last_sectors(board: str, origin: int, slot: int, erase: int) -> None:
    assert plan_slots(load_board(board).flash, 5000, 100 * KB) == Slots(origin, slot, erase)


def test_mcunet_that_learns_leaves_no_two_sectors() -> None:
    """The image ended in sector 6 while the documentation put the slots into sectors 6 and 7."""
    found = plan_slots(load_board("stm32f746").flash, state_bytes=68_832, image_bytes=777_100)
    assert found == NoSlots(NO_ROOM, 68_832, 777_100, 256 * KB, 256 * KB, 1, largest_image_bytes=512 * KB)


def test_a_smaller_state_is_offered_where_one_would_fit() -> None:
    found = plan_slots(load_board("nrf52840dk").flash, state_bytes=300 * KB, image_bytes=600 * KB)
    assert isinstance(found, NoSlots)
    assert (found.largest_state_bytes, found.largest_image_bytes) == (212 * KB, 424 * KB)
    flash = load_board("nrf52840dk").flash
    assert isinstance(plan_slots(flash, found.largest_state_bytes, 600 * KB), Slots)
    assert isinstance(plan_slots(flash, 300 * KB, found.largest_image_bytes), Slots)


def test_flash_of_unknown_sectors_holds_no_slots() -> None:
    found = plan_slots(MemoryRegion("FLASH", 0, 1 << 20), 100, 100)
    assert found == NoSlots(UNKNOWN, 100, 100)


sectors = st.lists(st.builds(Sectors, st.integers(1, 6), st.integers(1, 32).map(lambda n: 4096 * n)), min_size=1)


@given(runs=sectors, state=st.integers(64, 200_000), image=st.integers(0, 1_000_000))
def test_no_sector_is_shared_and_all_advice_holds(runs: list[Sectors], state: int, image: int) -> None:
    edges = [0x1000]
    for run in runs:
        edges += [edges[-1] + (i + 1) * run.bytes for i in range(run.count)]
    flash = MemoryRegion("FLASH", 0x1000, edges[-1] - 0x1000, sectors=tuple(runs))
    found = plan_slots(flash, state, image)
    if isinstance(found, Slots):
        assert found.origin >= flash.origin + image
        assert found.slot_bytes >= state
        assert found.origin + found.bytes == flash.end
        inside = [edge for edge in edges if found.origin <= edge <= flash.end]
        assert inside == [*range(found.origin, flash.end + 1, found.erase_bytes)]
        assert found.slot_bytes % found.erase_bytes == 0
        return
    if found.largest_state_bytes:
        assert isinstance(plan_slots(flash, found.largest_state_bytes, image), Slots)
        assert isinstance(plan_slots(flash, found.largest_state_bytes + 1, image), NoSlots)
    if found.largest_image_bytes:
        assert isinstance(plan_slots(flash, state, found.largest_image_bytes), Slots)
        assert isinstance(plan_slots(flash, state, found.largest_image_bytes + 1), NoSlots)


# -- the image ------------------------------------------------------------------------------------


def _fake(directory: Path) -> Path:
    model = write_fake_model(directory)
    header = model / "fake.h"
    header.write_text(header.read_text().replace("#endif\n", "", 0) + "#define FAKE_STATE_BYTES 96\n")
    return model


def test_the_linker_keeps_the_image_out_of_the_slots(tmp_path: Path) -> None:
    require_or_skip("arm-none-eabi-gcc")
    board, model = load_board("stm32f746"), _fake(tmp_path / "model")
    banks = [board.banks[0].name] * 2
    slots = Slots(0x080C0000, 128 * KB, 128 * KB)
    firmware = build_firmware(model, "fake", board, banks, "selftest", tmp_path / "build", slots=slots)
    assert {s.name: s.address for s in read_symbols(firmware.elf)}["fake_slots_start"] == 0x080C0000
    low = Slots(board.flash.origin + 512, 128 * KB, 128 * KB)
    with pytest.raises(DoesNotFitError, match=r"FLASH: needs \d,\d+ bytes, has 512"):
        build_firmware(model, "fake", board, banks, "selftest", tmp_path / "low", slots=low)


def test_constants_for_the_driver_come_from_the_linker_script(tmp_path: Path) -> None:
    require_or_skip("arm-none-eabi-gcc")
    board, model = load_board("stm32f746"), _fake(tmp_path / "model")
    banks = [board.banks[0].name] * 2
    slots = Slots(0x08080000, 256 * KB, 256 * KB)
    header = render_project(Project("fake", board, tuple(banks), (), slots=slots))["fake_storage.h"]
    (model / "fake_storage.h").write_text(header)
    main = (model / "fake_kernels.c").read_text()
    uses = "FAKE_SLOTS_ADDRESS, FAKE_SLOTS_BYTES, FAKE_SLOT_BYTES, FAKE_ERASE_BYTES"
    asked = "const volatile void *kept; volatile uint32_t asked[4]; void fake_ask(void);\nvoid fake_ask(void)\n{\n"
    asked += f"    const uint32_t all[4] = {{{uses}}};\n    for (int i = 0; i < 4; ++i) {{ asked[i] = all[i]; }}\n}}\n"
    (model / "fake_kernels.c").write_text('#include "fake_storage.h"\n' + main + asked)
    firmware = build_firmware(model, "fake", board, banks, "selftest", tmp_path / "build", slots=slots)
    assert firmware.flash_bytes < slots.origin - board.flash.origin
    # Too small a slot for this number of classes does not compile.
    assert re.search(r"#if FAKE_SLOT_BYTES < FAKE_STATE_BYTES\n#error", header)


# -- the command ----------------------------------------------------------------------------------


def test_the_report_says_where_slots_lie(compiled_small: Artifacts) -> None:
    report = json.loads(compiled_small.files["report.json"])
    storage, flash = report["storage"], report["memory"]["flash"]
    assert storage["slots"] == {"origin": 0x08080000, "slot_bytes": 256 * KB, "erase_bytes": 256 * KB}
    assert storage["no_slots"] is None
    assert flash["slots_bytes"] == 512 * KB
    assert flash["left_bytes"] == 512 * KB - flash["total_bytes"]
    script = compiled_small.files["firmware/stm32f746.ld"].decode()
    assert "FLASH (rx) : ORIGIN = 0x08000000, LENGTH = 0x80000\n" in script
    assert "small_storage.h" in compiled_small.files


def test_without_room_it_compiles_with_a_warning_unless_slots_are_asked_for(
    small_model: Path, run_cli: Cli, tmp_path: Path
) -> None:
    text = (BOARDS / "stm32f746.toml").read_text()
    text = re.sub(r"sectors = \[.*?\n\]\n", "sectors = [{ count = 2, bytes = 0x80000 }]\n", text, flags=re.S)
    board = tmp_path / "large_sectors.toml"
    board.write_text(text)
    arguments = (small_model, "--board", board, "-o")
    ran = run_cli("tinytrain-compile", *arguments, tmp_path / "auto")
    assert ran.code == 0
    printed = " ".join(ran.out.split())
    assert "no room to save the training state: a state takes" in printed
    assert "what would fit: external flash, 2 areas of at least" in printed
    report = json.loads((tmp_path / "auto" / "report.json").read_text())
    assert report["storage"]["slots"] is None
    assert report["storage"]["no_slots"]["why"] == NO_ROOM
    assert not (tmp_path / "auto" / "small_storage.h").exists()
    refused = run_cli("tinytrain-compile", *arguments, tmp_path / "flash", "--storage", "flash")
    assert refused.code == 3
    assert "--storage flash does not fit stm32f746: a state takes" in refused.err
    assert "what would fit: external flash" in refused.err
    own = run_cli("tinytrain-compile", *arguments, tmp_path / "none", "--storage", "none")
    assert own.code == 0
    assert "LENGTH = 0x100000" in (tmp_path / "none" / "firmware" / "stm32f746.ld").read_text()
    assert run_cli("tinytrain-compile", *arguments, tmp_path / "x", "--storage", "sd").code == 2


def test_the_firmware_of_a_folder_links_with_its_slots(compiled_small: Artifacts, tmp_path: Path) -> None:
    require_or_skip("arm-none-eabi-gcc")
    assert compiled_small.directory is not None
    report = compiled_small.report
    firmware = build_firmware(
        compiled_small.directory, compiled_small.name, compiled_small.board, compiled_small.plan.region_banks,
        "selftest", tmp_path, slots=Slots(**report["storage"]["slots"]),
    )  # fmt: skip
    assert firmware.flash_bytes <= report["memory"]["flash"]["total_bytes"]
