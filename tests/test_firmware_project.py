"""The generated firmware project: deterministic, warning-free, true to the board, and it starts."""

from __future__ import annotations

import re
import struct
import subprocess
import threading
from pathlib import Path

import pytest
import test_selection
import test_training
from elftools.elf.elffile import ELFFile
from tinytrain_compiler import projects
from tinytrain_compiler.boards import Board, list_boards, load_board
from tinytrain_compiler.errors import DoesNotFitError, UsageError
from tinytrain_compiler.projects import Project, ProjectFormat, render_project
from tinytrain_compiler.projects.description import C_FLAGS, WARNING_FLAGS
from tinytrain_compiler.projects.firmware import boot_stage_words, crc32_mpeg2, render_firmware
from tinytrain_compiler.resources import BOARDS
from tinytrain_compiler.targets.apps import APPS
from tinytrain_compiler.targets.emulation import emulation_banks, emulation_board
from tinytrain_compiler.targets.firmware import Firmware, build_firmware, read_symbols
from tinytrain_compiler.training.formats import formats
from tinytrain_compiler.training.heads import HEADS
from tinytrain_compiler.training.options import LearningOptions
from tinytrain_compiler.training.selectors import SELECTORS
from tools import fake_crc, require_or_skip, write_fake_model

ALL_BOARDS = list_boards()


def _banks(board: Board) -> list[str]:
    return [board.banks[0].name, board.banks[-1].name]


def _build(tmp_path: Path, board: Board, app: str = "selftest", **model: str) -> Firmware:
    require_or_skip("arm-none-eabi-gcc")
    directory = write_fake_model(tmp_path / "model", **model)
    return build_firmware(directory, "fake", board, _banks(board), app, tmp_path / "build")


def _project(board: Board, name: str = "fake", trains: bool = False) -> Project:
    return Project(name, board, tuple(_banks(board)), ("runtime/tt_sum.c",), trains)


def _files(board: Board, app: str) -> dict[str, str]:
    return render_project(_project(board)) | render_firmware(board, "fake", _banks(board), APPS[app])


@pytest.mark.parametrize("name", ALL_BOARDS)
def test_same_input_same_text_without_host_paths(name: str) -> None:
    board = load_board(name)
    for app in ("selftest", "harness", "train"):
        files = _files(board, app)
        assert files == _files(board, app)
        for path, text in files.items():
            assert str(Path.home()) not in text, path
            assert text.endswith("\n"), path
            assert "\n\n\n" not in text, path
            assert not re.search(r"[ \t]+$", text, re.MULTILINE), path


def test_unknown_bank() -> None:
    with pytest.raises(UsageError, match="board 'stm32f746' has no memory bank 'CCM'; it has DTCM_SRAM1_SRAM2"):
        render_project(Project("fake", load_board("stm32f746"), ("CCM",), ()))


@pytest.mark.parametrize("name", ALL_BOARDS)
def test_image_lies_where_the_board_has_memory(tmp_path: Path, name: str) -> None:
    board = load_board(name)
    firmware = _build(tmp_path, board)
    symbols = {s.name: s.address for s in read_symbols(firmware.elf)}
    system = board.banks[0]
    assert symbols["tt_stack_limit"] == system.origin
    assert symbols["tt_stack_top"] == system.origin + board.stack_bytes
    boot = board.boot_stage.bytes if board.boot_stage else 0
    assert symbols["tt_vectors"] == board.flash.origin + boot
    assert firmware.sram["stack"] == board.stack_bytes
    assert (firmware.sram["region0"], firmware.sram["region1"]) == (4096, 64)
    assert 0 < firmware.code_bytes < firmware.flash_bytes < 8192
    assert firmware.objects["fake_weights.c"].constants == 32
    assert firmware.objects["firmware/startup.c"].code > 0
    with firmware.elf.open("rb") as file:
        elf = ELFFile(file)
        for section in elf.iter_sections():
            if section["sh_flags"] & 2 and section["sh_size"]:
                memories = [board.flash, *board.banks]
                first, end = section["sh_addr"], section["sh_addr"] + section["sh_size"]
                assert any(m.origin <= first and end <= m.origin + m.bytes for m in memories), section.name
        for segment in elf.iter_segments():
            # A segment with file bytes must load into flash; one without must not touch it.
            if segment["p_type"] == "PT_LOAD":
                in_flash = board.flash.origin <= segment["p_paddr"] < board.flash.end
                assert in_flash == (segment["p_filesz"] > 0)
                if segment["p_filesz"] > 0:
                    assert segment["p_paddr"] + segment["p_filesz"] <= board.flash.end
        vectors = elf.get_section_by_name(".vectors").data()
    assert struct.unpack_from("<2I", vectors) == (symbols["tt_stack_top"], symbols["Reset_Handler"] | 1)


def test_a_description_cannot_leave_its_comment(tmp_path: Path) -> None:
    """In the linker script, the serial port's driver and the build files."""
    require_or_skip("arm-none-eabi-gcc")
    text = (BOARDS / "stm32f746.toml").read_text()
    text = text.replace('description = "', 'description = "a */ x /* ]] \\\\ ').replace(
        'why = "', 'why = "*/ b /* \\\\ '
    )
    (tmp_path / "hostile.toml").write_text(text)
    board = load_board(tmp_path / "hostile.toml")
    assert board.description.startswith("a */ x /* ]] \\ ")
    assert board.uart.setup[0].why.startswith("*/ b")
    _build(tmp_path, board)


def test_overflowing_image_says_how_much(tmp_path: Path) -> None:
    text = (BOARDS / "stm32f746.toml").read_text().replace("bytes = 0x10000\n", "bytes = 0x1800\n")
    text = text.replace("origin = 0x20010000\nbytes = 0x3C000", "origin = 0x30000000\nbytes = 0x20")
    (tmp_path / "small.toml").write_text(text)
    board = load_board(tmp_path / "small.toml")
    with pytest.raises(DoesNotFitError, match=r"(?s)does not fit stm32f746.*DTCM: needs 8,\d+ bytes, has 6,144: 2,"):
        _build(tmp_path, board)


@pytest.mark.parametrize("name", ALL_BOARDS)
@pytest.mark.parametrize("app", ["selftest", "harness"])
def test_clang_has_no_complaint(tmp_path: Path, name: str, app: str) -> None:
    require_or_skip("arm-none-eabi-gcc", "clang")
    board = load_board(name)
    model = write_fake_model(tmp_path / "model")
    sysroot = subprocess.check_output(["arm-none-eabi-gcc", "-print-sysroot"], text=True).strip()
    files = render_firmware(board, "fake", _banks(board), APPS[app])
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    sources = [str(tmp_path / path) for path in files if path.endswith(".c")]
    flags = ["--target=arm-none-eabi", "-fsyntax-only", *board.cpu_flags, *C_FLAGS, *WARNING_FLAGS, "-Werror"]
    includes = [f"-I{model}", f"-I{model / 'runtime'}", "-isystem", f"{sysroot or '/usr/lib/arm-none-eabi'}/include"]
    result = subprocess.run(["clang", *flags, *includes, *sources], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_boot_stage_is_its_assembly(tmp_path: Path) -> None:
    assert crc32_mpeg2(b"123456789") == 0x0376E6E7  # the CRC catalogue's check value
    require_or_skip("arm-none-eabi-gcc")
    board = load_board("rp2040")
    assert board.boot_stage
    block = (BOARDS / "rp2040.toml").read_text().split("words = [")[1].split("\n]")[0]
    lines = [line.strip()[1:].split("@")[0] for line in block.splitlines() if line.strip().startswith("#")]
    source, object_file = "\n".join([".syntax unified", ".thumb", *lines, ""]), tmp_path / "boot.o"
    command = ["arm-none-eabi-gcc", "-mcpu=cortex-m0plus", "-c", "-xassembler", "-", "-o", str(object_file)]
    subprocess.run(command, input=source.encode(), check=True)
    with object_file.open("rb") as file:
        binary = ELFFile(file).get_section_by_name(".text").data()
    assert binary == struct.pack(f"<{len(board.boot_stage.words)}I", *board.boot_stage.words)
    words = boot_stage_words(board)
    assert len(words) == 64
    # Over data and its own CRC the remainder is 0, which is how the boot ROM sees it.
    assert crc32_mpeg2(struct.pack("<63I", *words[:63]) + struct.pack(">I", words[63])) == 0


def test_baud_rate_registers() -> None:
    assert load_board("stm32f746").uart.divider == 139  # 16 MHz / 115200
    assert load_board("rp2040").uart.divider == 6 * 64 + 33
    assert load_board("nrf52840dk").uart.divider == 0x01D7E000  # the data sheet's value for 115200
    assert load_board("mps2_an500").uart.divider == 217
    assert load_board("stm32f407").uart.divider == 139
    assert load_board("nucleo_l4r5zi").uart.divider == 8889  # RM0432: 256 * 4 MHz / 115200
    assert load_board("stm32u575").uart.divider == 35


# A Cortex-M3 with a PL011: the same driver that the rp2040 gets, on a machine that QEMU has.
_PL011_BOARD = """
name = "lm3s6965"
description = "a board of the user's own"
core = "cortex-m3"
dsp = false
fpu = "none"
mve = false
clock_hz = 50_000_000
flash = [{ name = "FLASH", origin = 0, bytes = 0x40000 }]
ram = [{ name = "RAM", origin = 0x20000000, bytes = 0x10000 }]
uart = { kind = "pl011", base = 0x4000C000, clock_hz = 12_000_000 }
emulation = { qemu_machine = "lm3s6965evb" }
"""


def _first_line(firmware: Firmware, machine: str) -> str:
    return _lines(firmware, machine, 1)[0]


def _lines(firmware: Firmware, machine: str, count: int, port: int = 0) -> list[str]:
    """What the firmware prints on its UART, the machine's number `port`, under QEMU; it never ends by itself."""
    command = ["qemu-system-arm", "-M", machine, "-display", "none", "-monitor", "none"]
    command += [*("-serial", "null") * port, "-serial", "stdio", "-kernel", str(firmware.elf)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        watchdog = threading.Timer(10, process.kill)
        watchdog.start()
        try:
            assert process.stdout
            return [process.stdout.readline().decode() for _ in range(count)]
        finally:
            watchdog.cancel()
            process.kill()


@pytest.mark.parametrize("name", ALL_BOARDS)
def test_selftest_firmware_prints_its_verdict(tmp_path: Path, name: str) -> None:
    require_or_skip("qemu-system-arm")
    machine = emulation_board(load_board(name))
    assert machine.machines["qemu"]
    line = _first_line(_build(tmp_path, machine), machine.machines["qemu"])
    assert line == f"tinytrain: fake self-test ok crc {fake_crc():#010x}\r\n"


def test_the_image_of_stm32f407_runs_on_a_machine_of_its_family(tmp_path: Path) -> None:
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm")
    model = write_fake_model(tmp_path / "model")
    banks = ["SRAM", "SRAM"]  # QEMU 7 has no CCM
    firmware = build_firmware(model, "fake", load_board("stm32f407"), banks, "selftest", tmp_path / "build")
    (line,) = _lines(firmware, "netduinoplus2", 1, port=1)  # USART2
    assert line == f"tinytrain: fake self-test ok crc {fake_crc():#010x}\r\n"


def test_selftest_on_a_board_of_the_users_own(tmp_path: Path) -> None:
    require_or_skip("qemu-system-arm")
    (tmp_path / "own.toml").write_text(_PL011_BOARD)
    line = _first_line(_build(tmp_path, load_board(tmp_path / "own.toml")), "lm3s6965evb")
    assert line == f"tinytrain: fake self-test ok crc {fake_crc():#010x}\r\n"


@pytest.mark.parametrize(
    ("sabotage", "verdict"),
    [
        ("output[0]++;", r"FAILED crc 0x[0-9a-f]{8}"),
        ("return TT_ERR_LABEL;", r"FAILED in infer status -4"),
        ("*(volatile int *)0x50000000 = 1;", r"FAILED fault pc 0x[0-9a-f]{8} cause 0x00008200"),
    ],
)
def test_selftest_firmware_reports_failure(tmp_path: Path, sabotage: str, verdict: str) -> None:
    require_or_skip("qemu-system-arm")
    firmware = _build(tmp_path, load_board("mps2_an500"), sabotage=sabotage)
    assert re.fullmatch(f"tinytrain: fake self-test {verdict}\r\n", _first_line(firmware, "mps2-an500"))


def _with_setup(tmp_path: Path, steps: str) -> Board:
    """The AN500 whose port is set up by these steps first."""
    text = (BOARDS / "mps2_an500.toml").read_text().replace("baud = 115_200\n", f"baud = 115_200\nsetup = [{steps}]\n")
    (tmp_path / "own.toml").write_text(text)
    return load_board(tmp_path / "own.toml")


def test_a_fault_before_the_port_is_up_is_reported(tmp_path: Path) -> None:
    """It was printed on a port that had not been started."""
    require_or_skip("qemu-system-arm")
    board = _with_setup(tmp_path, '{ at = 0x50000000, write = 1, why = "nothing is there" }')
    line = _first_line(_build(tmp_path, board), "mps2-an500")
    assert re.fullmatch(r"tinytrain: fake self-test FAILED fault pc 0x[0-9a-f]{8} cause 0x00008200\r\n", line)


def test_a_port_that_never_becomes_ready_does_not_hold_the_program(tmp_path: Path) -> None:
    require_or_skip("qemu-system-arm")
    board = _with_setup(tmp_path, '{ at = 0x20300000, wait = 1, why = "RAM that nobody sets" }')
    line = _first_line(_build(tmp_path, board), "mps2-an500")
    assert line == f"tinytrain: fake self-test ok crc {fake_crc():#010x}\r\n"


@pytest.mark.parametrize("name", ALL_BOARDS)
def test_the_divider_says_which_clock_it_assumes(name: str) -> None:
    board = load_board(name)
    driver = _files(board, "selftest")["firmware/uart.c"]
    assert f"{board.uart.baud} baud from a clock of {board.uart.clock_hz} Hz" in driver
    assert f"#define DIVIDER {board.uart.divider}u\n" in driver


TRAINED = [
    ("stm32f746", "prototype", "int16", "nearest", None),
    ("stm32f746", "prototype", "float32", "stochastic", None),
    ("rp2040", "linear", "int16", "nearest", None),
    ("nrf52840dk", "prototype", "int16", "nearest", "fisher"),
]


@pytest.mark.parametrize(("name", "head", "gradients", "rounding", "selector"), TRAINED)
def test_the_self_test_trains(
    name: str, head: str, gradients: str, rounding: str, selector: str | None, tmp_path: Path
) -> None:
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm")
    case: test_training.Case | test_selection.Case
    if selector:
        options = LearningOptions(HEADS[head], formats(gradients, rounding), test_selection.POOL, SELECTORS[selector])
        case = test_selection.Case(tmp_path, options, name)
    else:
        case = test_training.Case(tmp_path, name, HEADS[head], gradients=gradients, rounding=rounding)
    machine = emulation_board(load_board(name))
    banks = emulation_banks(machine, case.lowered.plan.region_banks)

    def verdicts(build: str) -> list[str]:
        firmware = build_firmware(case.directory, "net", machine, banks, "selftest", tmp_path / build)
        return _lines(firmware, machine.machines["qemu"], 2)

    inference, training = verdicts("build")
    assert re.fullmatch(r"tinytrain: net self-test ok crc 0x[0-9a-f]{8}\r\n", inference)
    assert re.fullmatch(r"tinytrain: net training self-test ok crc 0x[0-9a-f]{8}\r\n", training)
    # A learning rate of another size is noticed: what is compared depends on the updates.
    source = case.directory / "net_train.c"
    source.write_text(re.sub(r"\.rate = [^,]*,", ".rate = 0.0001f,", source.read_text()))
    inference, training = verdicts("broken")
    assert "net self-test ok" in inference
    assert "net training self-test FAILED crc" in training


def test_emulation_keeps_the_core_of_the_target() -> None:
    board = emulation_board(load_board("rp2040"))
    assert (board.machines["qemu"], board.core, board.boot_stage) == ("mps2-an385", "cortex-m0plus", None)
    assert emulation_board(load_board("stm32f746")).cpu_flags == load_board("stm32f746").cpu_flags
    assert emulation_banks(board, ["SRAM_SCRATCH"]) == ["SRAM"]
    assert emulation_banks(board, ["PSRAM"]) == ["PSRAM"]


def _write_project(directory: Path, name: str, board: Board) -> Path:
    write_fake_model(directory, name)
    for path, text in render_project(_project(board, name)).items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)
    return directory


def test_a_build_for_this_machine_says_that_it_made_no_firmware(tmp_path: Path) -> None:
    require_or_skip("cmake", "cc")
    project = _write_project(tmp_path / "fake", "fake", load_board("stm32f746"))
    output = _cmake(project)
    assert "no firmware. For stm32f746:\n" in output
    assert "cmake -B build-stm32f746 -DCMAKE_TOOLCHAIN_FILE=cmake/arm-none-eabi.cmake\n" in output


@pytest.mark.parametrize("name", ALL_BOARDS)
def test_the_folder_says_how_to_build_flash_and_listen(name: str) -> None:
    board = load_board(name)
    text = render_project(_project(board, trains=True))["README.md"]
    assert "cmake -B build -DCMAKE_TOOLCHAIN_FILE=cmake/arm-none-eabi.cmake\ncmake --build build\n" in text
    assert board.flashing
    for way in board.flashing:
        assert f"\n{way.tool}:\n" in text
    assert re.search(r"build/fake\.(elf|bin|hex)", text)
    assert not re.search(r"\{(elf|bin|hex|address)\}", text)
    assert f"{board.uart.baud} baud, 8 data bits, no parity, 1 stop bit" in text
    assert board.uart.terminal in text
    assert "tinytrain: fake training self-test ok crc" in text
    assert "tt_last_fault" in text


def test_a_project_format_is_one_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets every source there is, and the README names its build."""

    def files(project: Project) -> dict[str, str]:
        sources = (*project.model_sources, *project.runtime_sources, *project.firmware_sources)
        return {"toy.txt": "\n".join((*sources, project.linker_script, ""))}

    toy = ProjectFormat("toy", files, ("toy build",), lambda project: f"out/{project.name}", "Toy: add NAME.")
    monkeypatch.setattr(projects, "FORMATS", (*projects.FORMATS, toy))
    rendered = render_project(_project(load_board("rp2040"), trains=True))
    listed = rendered["toy.txt"].split()
    assert {path for path in rendered if path.endswith((".c", ".ld"))} <= set(listed)
    assert {"fake.c", "fake_weights.c", "fake_kernels.c", "fake_train.c", "runtime/tt_sum.c"} <= set(listed)
    assert "toy build" in rendered["README.md"]
    assert "Toy: add fake." in rendered["README.md"]


def _cmake(source: Path, *options: str) -> str:
    build = source / "build"
    text = subprocess.run(["cmake", "-S", source, "-B", build, *options], capture_output=True, text=True, check=False)
    assert text.returncode == 0, text.stderr
    made = subprocess.run(["cmake", "--build", build], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    return made.stdout


@pytest.mark.parametrize("name", ["stm32f746", "rp2040"])
def test_cmake_builds_the_same_image(tmp_path: Path, name: str) -> None:
    require_or_skip("cmake", "arm-none-eabi-gcc")
    board = load_board(name)
    project = _write_project(tmp_path / "fake", "fake", board)
    output = _cmake(project, "-DCMAKE_TOOLCHAIN_FILE=cmake/arm-none-eabi.cmake")
    assert "text" in output  # size's table
    ours = build_firmware(project, "fake", board, _banks(board), "selftest", tmp_path / "ours")
    for suffix in ("elf", "hex"):
        assert (project / "build" / f"fake.{suffix}").exists()
    assert (project / "build" / "fake.bin").stat().st_size == ours.flash_bytes


def test_two_models_in_one_program(tmp_path: Path) -> None:
    require_or_skip("cmake", "cc")
    board = load_board("stm32f746")
    for name in ("first", "second"):
        _write_project(tmp_path / name, name, board)
    (tmp_path / "main.c").write_text(
        "#include <first.h>\n#include <second.h>\n"
        "int main(void)\n{\n    first_session a;\n    second_session b;\n"
        "    static uint8_t m[4096], n[64];\n"
        "    return first_init(&a, m, sizeof m, n, sizeof n) + second_init(&b, m, sizeof m, n, sizeof n);\n}\n"
    )
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(both LANGUAGES C)\n"
        "add_subdirectory(first)\nadd_subdirectory(second)\n"
        "add_executable(both main.c)\ntarget_link_libraries(both first second)\n"
    )
    _cmake(tmp_path)
    assert subprocess.run([tmp_path / "build" / "both"], check=False).returncode == 0
