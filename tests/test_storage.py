"""The training state survives: saved and loaded byte for byte, whenever power fails; refused where it does not fit."""

from __future__ import annotations

import ctypes
import re
import struct
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import make_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from graphs import layout_of, model_sources, random_inputs, write_model
from networks import NETWORKS
from test_selection import Case as ChoosingCase
from test_training import CLASSES, LABELS, Case, network
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.codegen.digest import state_digest
from tinytrain_compiler.errors import TinyTrainError
from tinytrain_compiler.footprint.use import RUNTIME_CODE, STORAGE_CODE, state_bytes
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.lowering import lower
from tinytrain_compiler.projects.description import C_FLAGS, LINK_FLAGS, WARNING_FLAGS
from tinytrain_compiler.projects.firmware import SELFTEST, render_firmware
from tinytrain_compiler.quantize.input_bytes import PixelMap
from tinytrain_compiler.targets.flash import SimulatedFlash
from tinytrain_compiler.targets.host import WARNINGS, HostModel
from tinytrain_compiler.training.options import LearningOptions
from tinytrain_compiler.training.scheme import Scheme, TrainedLayer
from tools import require_or_skip

HERE = Path(__file__).parent / "c"
HEADER = 64  # header and commit mark
SANITIZE = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    require_or_skip("cc")
    return Case(tmp_path_factory.mktemp("storage"))


@pytest.fixture
def host(case: Case) -> Iterator[HostModel]:
    with case.host() as host:
        yield host


# -- power cuts --------------------------------------------------------------------------------


def power_cuts(
    case: Case | ChoosingCase, folder: Path, compiler: str, flags: list[str], cycles: int, program_bytes: int
) -> subprocess.CompletedProcess[str]:
    require_or_skip(compiler)
    program = folder / "power_cuts"
    includes = [f"-I{path}" for path in (case.directory, case.directory / "runtime", HERE)]
    sources = [HERE / "power_cuts.c", *model_sources(case.directory, "net")]
    command = [compiler, "-std=c11", *WARNINGS, *flags, *includes, *map(str, sources), "-lm", "-o", str(program)]
    subprocess.run(command, check=True)
    return subprocess.run([str(program), str(cycles), str(program_bytes), "1"], capture_output=True, text=True)


@pytest.mark.parametrize("saves", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_power_may_fail_anywhere_in_many_saves(case: Case, tmp_path: Path, saves: int) -> None:
    """`pytest -s` prints how many cuts there were."""
    ran = power_cuts(case, tmp_path, "gcc", ["-O2"], saves, 4)
    assert (ran.returncode, ran.stderr, ran.stdout.splitlines()[-1]) == (0, "", "ok"), ran.stdout
    print(f"\n{ran.stdout}", end="")
    assert int(ran.stdout.split()[0]) > 1_000 * saves


def test_power_may_fail_where_the_device_chooses_what_learns(tmp_path: Path) -> None:
    """A pool: states of very different lengths follow each other."""
    choosing = ChoosingCase(tmp_path, LearningOptions(pool=2048))
    ran = power_cuts(choosing, tmp_path, "gcc", ["-O2"], 3, 4)
    assert (ran.returncode, ran.stderr, ran.stdout.splitlines()[-1]) == (0, "", "ok"), ran.stdout


@pytest.mark.parametrize("program_bytes", [1, 2, 8, 16, 32])
def test_power_may_fail_whatever_unit_the_flash_programs(case: Case, tmp_path: Path, program_bytes: int) -> None:
    ran = power_cuts(case, tmp_path, "gcc", ["-O2"], 4, program_bytes)
    assert (ran.returncode, ran.stderr, ran.stdout.splitlines()[-1]) == (0, "", "ok"), ran.stdout


@pytest.mark.parametrize(
    ("compiler", "flags"), [("gcc", SANITIZE), ("clang", SANITIZE), ("clang", ["-O2"])], ids=lambda v: str(v)[:18]
)
def test_storage_is_clean_under_sanitizers_and_clang(
    case: Case, tmp_path: Path, compiler: str, flags: list[str]
) -> None:
    ran = power_cuts(case, tmp_path, compiler, flags, 3, 4)
    assert (ran.returncode, ran.stderr, ran.stdout.splitlines()[-1]) == (0, "", "ok"), ran.stdout


# -- the example's driver ----------------------------------------------------------------------


@pytest.mark.parametrize(("compiler", "flags"), [("gcc", ["-O2"]), ("clang", SANITIZE)], ids=["gcc", "clang-sanitized"])
def test_the_driver_for_stm32f7_keeps_its_controllers_rules(
    case: Case, tmp_path: Path, compiler: str, flags: list[str]
) -> None:
    """Saves and loads on a simulated flash controller; sectors of the image are never touched."""
    require_or_skip(compiler)
    program = tmp_path / "stm32f7_flash"
    driver = Path(__file__).parents[1] / "examples" / "storage"
    includes = [f"-I{path}" for path in (case.directory, case.directory / "runtime", HERE, driver)]
    sources = [HERE / "stm32f7_driver.c", *model_sources(case.directory, "net")]
    slots = re.search(r"SLOTS \(r\) : ORIGIN = (0x\w+)", (case.directory / "firmware" / "stm32f746.ld").read_text())
    assert slots
    place = ["-no-pie", f"-Wl,--defsym=net_slots_start={slots[1]}"]
    command = [
        compiler,
        "-std=c11",
        *WARNINGS,
        *flags,
        *includes,
        *map(str, sources),
        *place,
        "-lm",
        "-o",
        str(program),
    ]
    subprocess.run(command, check=True)
    ran = subprocess.run([str(program)], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "ok\n", "")


def test_the_driver_for_stm32f7_compiles_for_its_core(case: Case, tmp_path: Path) -> None:
    require_or_skip("arm-none-eabi-gcc")
    driver = Path(__file__).parents[1] / "examples" / "storage" / "stm32f7_flash.c"
    flags = [*load_board("stm32f746").cpu_flags, *C_FLAGS, *WARNING_FLAGS, "-Werror", f"-I{case.directory / 'runtime'}"]
    subprocess.run(["arm-none-eabi-gcc", *flags, "-c", str(driver), "-o", str(tmp_path / "driver.o")], check=True)


# -- byte for byte -----------------------------------------------------------------------------


def payload_of(flash: SimulatedFlash, slot: int = 0) -> bytes:
    data = flash.slot(slot)
    return data[HEADER : HEADER + struct.unpack_from("<8I", data)[5]]


def state_of(host: HostModel) -> bytes:
    flash = SimulatedFlash(host.state_bytes)
    host.save(flash)
    return payload_of(flash)


def test_a_loaded_session_infers_like_the_one_that_was_saved(case: Case, host: HostModel) -> None:
    flash = SimulatedFlash(host.state_bytes)
    host.train(case.sample, LABELS, 3, 0.05)
    host.save(flash)
    before = [host.infer(x) for x in case.clean]
    with case.host() as other:
        other.enroll(case.clean[0], 3)  # whatever it held is gone
        other.load(flash)
        after = [other.infer(x) for x in case.clean]
        assert case.training_state(other) == case.training_state(host)
    assert [(a.label, a.score, a.output.tobytes(), a.features.tobytes()) for a in after] == [
        (b.label, b.score, b.output.tobytes(), b.features.tobytes()) for b in before
    ]
    assert len({b.score for b in before}) > 1


def test_training_goes_on_after_loading_as_if_nothing_had_happened(case: Case, host: HostModel) -> None:
    flash = SimulatedFlash(host.state_bytes)
    host.train(case.sample, LABELS, 2, 0.2)
    host.save(flash)
    with case.host() as other:
        other.load(flash)
        for session in (host, other):
            session.train(case.sample, LABELS, 2, 0.1, seed=8)
        assert state_of(host) == state_of(other) != payload_of(flash)


def test_prototypes_alone_are_kept_without_a_policy(tmp_path: Path) -> None:
    require_or_skip("cc")
    graph = NETWORKS["mobile"]()
    lowered = write_model(graph, "net", tmp_path, classes=3)
    inputs = random_inputs(graph, 6)
    with HostModel(tmp_path, layout_of(graph, lowered, "net")) as first:
        assert first.state_bytes == state_bytes(3, graph.tensors[graph.features].bytes, 0)
        flash = SimulatedFlash(first.state_bytes)
        for i, x in enumerate(inputs):
            first.enroll(x, i % 3)
        first.save(flash)
        expected = [(first.infer(x).label, first.infer(x).score) for x in inputs]
    with HostModel(tmp_path, layout_of(graph, lowered, "net")) as second:
        second.load(flash)
        assert [(second.infer(x).label, second.infer(x).score) for x in inputs] == expected


def test_saves_take_turns_and_the_newest_is_loaded(case: Case, host: HostModel) -> None:
    flash = SimulatedFlash(host.state_bytes)
    for shots in range(1, 5):
        host.enroll(case.clean[0], 0)
        host.save(flash)
        written = payload_of(flash, (shots - 1) % 2)
        assert struct.unpack_from("<H", written, len(written) - 2 * CLASSES)[0] == shots
        with case.host() as other:
            other.load(flash)
            assert state_of(other) == written


def test_a_slot_is_laid_out_as_the_documentation_says(case: Case, host: HostModel) -> None:
    flash = SimulatedFlash(host.state_bytes)
    host.train(case.sample, LABELS, 2, 0.2)
    host.save(flash)
    slot, state = flash.slot(0), case.training_state(host)
    used = state.rstrip(b"\0")
    magic, version, first, second, classes, size, sequence, crc = struct.unpack_from("<8I", slot)
    plan, graph = case.lowered.training, case.graph
    features = graph.tensors[graph.features].bytes
    assert (slot[:4], version, classes, sequence) == (b"TTST", 2, CLASSES, 0)
    assert magic == int.from_bytes(b"TTST", "little")
    assert (first, second) == state_digest(graph, plan, None)
    assert size == len(used) + 2 * CLASSES * (features + 1)
    assert slot[32:64] == bytes(255 - byte for byte in slot[:32])
    assert zlib.crc32(slot[:28] + payload_of(flash)) == crc
    assert payload_of(flash)[: len(used)] == used
    assert host.state_bytes == state_bytes(CLASSES, features, len(state)) == HEADER + -(-size // 32) * 32
    assert set(slot[HEADER + size :]) <= {0xFF}
    assert flash.slot(1) == b"\xff" * flash.slot_bytes
    assert flash.erases == -(-host.state_bytes // 1024), "no more is erased than the state needs"
    assert flash.programmed_bytes == HEADER + -(-size // 32) * 32


def test_zeros_at_the_end_of_the_training_state_are_not_written(case: Case, host: HostModel) -> None:
    """A short state in the place of a longer one, and loaded over a session that was trained."""
    flash = SimulatedFlash(host.state_bytes, erase_bytes=32)
    host.train(case.sample, LABELS, 2, 0.2)
    for _ in range(2):
        host.save(flash)
    assert len(payload_of(flash)) > (prototypes := 2 * CLASSES * (1 + case.graph.tensors[case.graph.features].bytes))
    erases = flash.erases
    host.unlearn()
    host.enroll(case.clean[0], 1)
    host.save(flash)
    assert struct.unpack_from("<8I", flash.slot(0))[5] == prototypes
    assert flash.erases - erases == 2 + -(-prototypes // 32), "only what the new state reaches"
    with case.host() as other:
        other.train(case.sample, LABELS, 2, 0.2)
        other.load(flash)
        assert not any(case.training_state(other))
        assert state_of(other) == payload_of(flash)


def test_nothing_stored_and_a_failing_driver_are_told_apart(case: Case, host: HostModel) -> None:
    flash = SimulatedFlash(host.state_bytes)
    with pytest.raises(TinyTrainError, match="status -8"):
        host.load(flash)
    host.save(flash)
    flash.bytes[HEADER] ^= 4
    with pytest.raises(TinyTrainError, match="status -9"):
        host.load(flash)
    flash.storage.program_bytes = 3
    with pytest.raises(TinyTrainError, match="status -1"):
        host.save(flash)
    worn = SimulatedFlash(host.state_bytes)
    host.save(worn)
    worn.storage.program = type(worn.storage.program)(lambda *_: 0)  # says it was done, and writes nothing
    with pytest.raises(TinyTrainError, match="status -12"):
        host.save(worn)
    host.load(worn)  # the first state is still there


@pytest.mark.parametrize("fails", [True, False], ids=["fails", "changes"])
def test_flash_that_reads_differently_a_second_time_leaves_no_mixture(case: Case, host: HostModel, fails: bool) -> None:
    flash, calls, at = SimulatedFlash(host.state_bytes), 0, 0
    host.train(case.sample, LABELS, 2, 0.2)
    host.save(flash)

    def disturbed(user: int, offset: int, data: int, count: int) -> int:
        nonlocal calls
        calls += 1
        flash._read(user, offset, data, count)
        if calls == at and not fails:
            ctypes.memset(data + count // 2, 0xA5 ^ ctypes.string_at(data + count // 2, 1)[0], 1)
        return -int(calls == at and fails)

    flash.storage.read = type(flash.storage.read)(disturbed)
    seen, saved, status = set(), state_of(host), ""
    with case.host() as other:
        while calls >= at:
            at, calls, status = at + 1, 0, "0"
            other.unlearn()
            factory = state_of(other)
            other.enroll(case.clean[0], 3)
            before = state_of(other)
            try:
                other.load(flash)
            except TinyTrainError as error:
                status = str(error).split("status ")[1].split(",")[0]
            seen.add((status, {saved: "new", before: "as it was", factory: "factory"}.get(state_of(other), "mixture")))
    assert seen <= {("0", "new"), ("-9", "as it was"), ("-12", "as it was"), ("-12", "factory")}
    assert {("0", "new"), ("-12", "factory"), ("-12" if fails else "-9", "as it was")} <= seen


# -- which model -------------------------------------------------------------------------------


def digest(graph: Graph, scheme: Scheme | None, pixels: PixelMap | None = None) -> tuple[int, int]:
    return state_digest(graph, lower(graph, load_board("stm32f746"), "net", CLASSES, scheme).training, pixels)


def test_a_digest_does_not_depend_on_the_names_of_fields() -> None:
    """The names of Python's fields were hashed: renaming one would have made every saved state another model's."""
    pixels, renamed = PixelMap((1,), (2,)), make_dataclass("Renamed", ["a", "b"])((1,), (2,))
    assert digest(*network(), renamed) == digest(*network(), pixels)


def test_only_the_same_model_has_the_same_digest() -> None:
    graph, scheme = network()
    same = digest(graph, scheme)
    assert digest(*network()) == same
    lowered = lower(graph, load_board("rp2040"), "other", 2, scheme)
    assert state_digest(graph, lowered.training, None) == same, "where it runs and how many classes do not count"
    others = [
        digest(graph, None),
        digest(graph, scheme, PixelMap((1,), (2,))),
        digest(graph, scheme, PixelMap((2,), (2,))),
    ]
    for channels in ((0, 2, 3, 5), (2, 0, 3, 6), (0, 2, 3)):
        others.append(digest(graph, Scheme({**scheme.layers, "expand": TrainedLayer(channels)})))
    others.append(digest(graph, Scheme({k: v for k, v in scheme.layers.items() if k != "stem"})))
    for index, node in enumerate(graph.nodes):
        for role, values in node.constants.items():
            changed = values.copy()
            changed.reshape(-1)[-1] += 1
            nodes = list(graph.nodes)
            nodes[index] = replace(node, constants={**node.constants, role: changed})
            others.append(digest(replace(graph, nodes=nodes), None))
    for name, tensor in graph.tensors.items():
        for q in (replace(tensor.quantization, zero_point=7), replace(tensor.quantization, scale=0.123)):
            tensors = {**graph.tensors, name: replace(tensor, quantization=q)}
            others.append(state_digest(replace(graph, tensors=tensors), None, None))
    others.append(digest(replace(graph, features=graph.output), None))
    assert len({same, *others}) == len(others) + 1


def test_a_state_of_another_model_is_refused_and_changes_nothing(case: Case, host: HostModel, tmp_path: Path) -> None:
    graph, _ = network()
    node = next(node for node in graph.nodes if node.name == "classifier")
    node.constants["weights"][0, 0] ^= 1
    lowered = write_model(graph, "net", tmp_path, classes=CLASSES)
    with HostModel(tmp_path, layout_of(graph, lowered, "net")) as other:
        flash = SimulatedFlash(max(host.state_bytes, other.state_bytes))
        other.save(flash)
        host.enroll(case.clean[1], 2)
        before = host.infer(case.clean[1])
        with pytest.raises(TinyTrainError, match="status -10"):
            host.load(flash)
        assert np.array_equal(host.infer(case.clean[1]).features, before.features)
        assert host.infer(case.clean[1]).score == before.score
        host.save(flash)  # takes a slot and does not mind
        host.load(flash)


# -- size --------------------------------------------------------------------------------------

_KEEP = """
#include "net.h"
#include "startup.h"
static _Alignas(16) uint8_t arena[NET_REGION0_BYTES];
static net_session session;
static int erase(void *user, uint32_t offset) { (void)user; return (int)offset; }
static int program(void *user, uint32_t at, const void *data, uint32_t n) { return user == data || at == n; }
static int read(void *user, uint32_t at, void *data, uint32_t n) { (void)user; (void)data; return (int)(at + n); }
static const tt_storage storage = { erase, program, read, NULL, 4096, 1024, 4 };
static const tt_storage *volatile driver;
_Noreturn void tt_fault(uint32_t pc, uint32_t cause) { (void)pc; (void)cause; for (;;) {} }
int main(void) {
    driver = &storage;
    (void)net_init(&session, arena, sizeof arena);
    return CALLS;
}
"""


@pytest.mark.parametrize("board_name", ["stm32f746", "mps2_an385", "rp2040"])
def test_code_that_saves_and_loads_stays_below_its_bound(board_name: str, tmp_path: Path) -> None:
    require_or_skip("arm-none-eabi-gcc")
    board = load_board(board_name)
    lowered = write_model(NETWORKS["mobile"](), "net", tmp_path, board_name)
    for path, text in render_firmware(board, "net", lowered.plan.region_banks, SELFTEST).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "keep.c").write_text(_KEEP)
    sources = [tmp_path / "keep.c", tmp_path / "firmware" / "startup.c", *model_sources(tmp_path, "net")]
    sources += (tmp_path / "firmware").glob("boot_stage.c")

    def linked(calls: str) -> int:
        elf = tmp_path / "keep.elf"
        flags = [*board.cpu_flags, *C_FLAGS, *WARNING_FLAGS, f"-I{tmp_path}", f"-I{tmp_path / 'runtime'}"]
        flags += [f"-I{tmp_path / 'firmware'}", f"-DCALLS={calls}", *LINK_FLAGS, "-Wl,--undefined=tt_boot_stage"]
        script = tmp_path / "firmware" / f"{board.name}.ld"
        subprocess.run(["arm-none-eabi-gcc", *flags, *map(str, sources), "-T", script, "-o", elf], check=True)
        sizes = subprocess.run(["arm-none-eabi-size", elf], capture_output=True, text=True, check=True).stdout
        return int(sizes.splitlines()[1].split()[0])

    both = linked("net_save(&session,driver)+net_load(&session,driver)") - linked("0")
    print(f"\n{board_name}: saving and loading take {both} bytes of flash")
    assert 0.6 * STORAGE_CODE < both <= STORAGE_CODE < RUNTIME_CODE
