"""Board files: what ships is right, what a user writes wrongly is named."""

from __future__ import annotations

import copy
import random
import tomllib
from pathlib import Path
from typing import Any

import pytest
from tinytrain_compiler.boards import Board, list_boards, load_board
from tinytrain_compiler.boards.keys import KEYS
from tinytrain_compiler.boards.page import page
from tinytrain_compiler.boards.reader import check
from tinytrain_compiler.boards.tables import Problems, read_table
from tinytrain_compiler.boards.uart import divider
from tinytrain_compiler.errors import UsageError
from tinytrain_compiler.resources import BOARDS

KB = 1024


def test_all_boards_load() -> None:
    assert set(list_boards()) >= {"mps2_an385", "mps2_an386", "mps2_an500", "nrf52840dk", "rp2040", "stm32f746"}
    for name in list_boards():
        assert load_board(name).name == name


def test_stm32f746_has_the_memory_of_its_data_sheet() -> None:
    board = load_board("stm32f746")
    assert [(r.name, r.origin, r.bytes, r.fast) for r in board.ram] == [
        ("DTCM", 0x20000000, 64 * KB, True),
        ("SRAM1", 0x20010000, 240 * KB, False),
        ("SRAM2", 0x2004C000, 16 * KB, False),
    ]
    assert (board.flash.origin, board.flash_bytes, board.ram_bytes) == (0x08000000, 1024 * KB, 320 * KB)
    assert [(b.name, b.origin, b.bytes) for b in board.banks] == [("DTCM_SRAM1_SRAM2", 0x20000000, 320 * KB)]
    assert board.stack_bytes == 4096


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("stm32f746", "-mcpu=cortex-m7 -mfpu=fpv5-sp-d16 -mfloat-abi=hard -mthumb"),
        ("nrf52840dk", "-mcpu=cortex-m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard -mthumb"),
        ("rp2040", "-mcpu=cortex-m0plus -mfloat-abi=soft -mthumb"),
        ("mps2_an385", "-mcpu=cortex-m3 -mfloat-abi=soft -mthumb"),
        ("nucleo_h753zi", "-mcpu=cortex-m7 -mfpu=fpv5-d16 -mfloat-abi=hard -mthumb"),
        ("stm32u575", "-mcpu=cortex-m33 -mfpu=fpv5-sp-d16 -mfloat-abi=hard -mthumb"),
        ("corstone300", "-mcpu=cortex-m55 -mfloat-abi=hard -mthumb"),
    ],
)
def test_cpu_flags(name: str, flags: str) -> None:
    assert " ".join(load_board(name).cpu_flags) == flags


def test_separate_memories_stay_separate_banks_fast_first() -> None:
    board = load_board("mps2_an500")
    assert [(b.name, b.origin, b.fast) for b in board.banks] == [
        ("SRAM", 0x20000000, True),
        ("PSRAM", 0x60000000, False),
    ]


def test_unknown_board_names_the_near_ones() -> None:
    with pytest.raises(
        UsageError, match=r"unknown board 'stm32f764'\. Did you mean stm32f746\b.*\? Boards: .*nrf52840dk"
    ) as error:
        load_board("stm32f764")
    assert error.value.exit_code == 2
    with pytest.raises(UsageError, match=r"unknown board 'zzz'\. Boards:"):
        load_board("zzz")


def _edited(tmp_path: Path, old: str, new: str) -> Path:
    text = (BOARDS / "stm32f746.toml").read_text()
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1))
    return path


def test_a_path_is_a_board_too(tmp_path: Path) -> None:
    board: Board = load_board(_edited(tmp_path, 'name = "stm32f746"', 'name = "mine"'))
    assert (board.name, board.ram_bytes) == ("mine", 320 * KB)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('core = "cortex-m7"', "", "'core' is missing"),
        ('core = "cortex-m7"', 'core = "cortex-m9"', "'core' must be one of .*cortex-m7.*, not 'cortex-m9'"),
        ("dsp = true", 'dsp = "yes"', "'dsp' must be true or false, not 'yes'"),
        ("mve = false", "mve = true", "'mve' cannot be true: a cortex-m7 has none"),
        ('fpu = "sp"', 'fpu = "half"', "'fpu' must be one of none, sp, dp"),
        ("stack_bytes", "stack_byte", "'stack_byte' is not a key.*did you mean 'stack_bytes'"),
        ("bytes = 0x10000\n", "", r"'ram\[0\]\.bytes' is missing"),
        ("origin = 0x20010000", "origin = 0x2000F000", "'ram' DTCM and SRAM1 overlap at 0x2000f000"),
        ('name = "SRAM1"', 'name = "SRAM2"', "the name SRAM2 is used twice"),
        ('kind = "stm32-usart-v2"', 'kind = "usart"', r"'uart\.kind' must be one of cmsdk"),
        ("set = 0x00000001", "sett = 1", r"'uart\.setup\[0\]' needs exactly one of write"),
        ('board = "mps2_an500"', "", "'emulation' needs exactly one of"),
        ("[[flash]]", "[flash]", "'flash' must be an array"),
        ("clock_hz = 216_000_000", "clock_hz = -1", "'clock_hz' must lie between 1"),
        ('core = "cortex-m7"', "core = ", "is not valid TOML"),
        ('description = "', 'description = "a\\n', "'description' must be one line of printable characters"),
        (
            "baud = 115_200",
            "baud = 200",
            r"'uart\.baud' cannot be 200: .* BRR would be 0x13880, .* to 0xffff",
        ),
        ("baud = 115_200", "baud = 8_000_000", r"'uart\.baud' cannot be 8000000: .* BRR would be 0x2"),
        ("count = 3, bytes = 0x40000", "count = 2, bytes = 0x40000", r"'flash\[0\]\.sectors' add up to 786,432 bytes"),
        ("count = 4, bytes = 0x8000", "count = 4, bytes = 0x8001", r"'flash\[0\]\.sectors\[0\]\.bytes' must be a mult"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        load_board(_edited(tmp_path, old, new))
    assert "mine.toml" in str(error.value)


def test_all_mistakes_of_a_file_are_named_at_once(tmp_path: Path) -> None:
    text = (BOARDS / "stm32f746.toml").read_text()
    for old, new in (
        ('core = "cortex-m7"', 'core = "cortex-m9"'),
        ("dsp = true", 'dsp = "yes"'),
        ("baud = 115_200", "baud = 10"),
        ("origin = 0x20010000", "origin = 0x2000F000"),
        ("set = 0x00000001", "sett = 1"),
        ("[emulation]", "[emulations]"),
    ):
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UsageError) as error:
        load_board(tmp_path / "mine.toml")
    head, *problems = str(error.value).splitlines()
    assert head.endswith("mine.toml: 7 problems")
    for key in ("emulations", "core", "dsp", "uart.setup[0].sett", "uart.setup[0]", "uart.baud", "ram"):
        assert sum(line.startswith(f"  '{key}' ") for line in problems) == 1, key


ODD = [0, -1, 1, 2**32, 2**40, 1.5, "", "x", "a*/b", "none", [], [{}], [1], {}, True, [[]], "\0", 0x20000000,
       [{"count": 1, "bytes": 32}]]  # fmt: skip


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside."""
    found = []
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        found.append((value, key))
        if isinstance(inner, dict | list):
            found += _places(inner)
    return found


def test_whatever_a_file_holds_it_is_read_or_refused() -> None:
    rng = random.Random(1)
    base = tomllib.loads((BOARDS / "rp2040.toml").read_text())
    refused = 0
    for _ in range(1000):
        data = copy.deepcopy(base)
        for _ in range(rng.randint(1, 3)):
            container, key = rng.choice(_places(data))
            container[key] = copy.deepcopy(rng.choice(ODD))
        problems = Problems()
        check(read_table(data, problems), problems)
        refused += bool(problems.lines)
    assert refused > 800


@pytest.mark.parametrize(
    ("kind", "clock_hz", "lowest", "highest"),
    [
        ("cmsdk", 25_000_000, 24, 1_562_500),
        ("nrf-uarte", 16_000_000, 1_205, 1_000_000),
        ("pl011", 12_000_000, 12, 750_000),
        ("stm32-usart-v2", 16_000_000, 245, 1_000_000),
    ],
)
def test_baud_rates_that_fit_the_register(kind: str, clock_hz: int, lowest: int, highest: int) -> None:
    for baud in (lowest, highest):
        assert divider(kind, clock_hz, baud) > 0
    for baud in (lowest * 9 // 10, highest * 11 // 10):
        with pytest.raises(ValueError, match=f"cannot be {baud}"):
            divider(kind, clock_hz, baud)


def test_the_page_of_keys_is_what_the_reader_knows() -> None:
    """tests/test_reference_pages.py holds the file against page()."""
    for key in KEYS:
        assert f"| `{key.name}` |" in page()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the board file .*none\.toml"):
        load_board(tmp_path / "none.toml")
