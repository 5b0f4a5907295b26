"""The C interface keeps its promises: on the host, under sanitizers, and on emulated cores."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from graphs import layout_of, model_sources, random_inputs, write_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import NETWORKS
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.errors import TinyTrainError
from tinytrain_compiler.projects.description import C_FLAGS, LINK_FLAGS
from tinytrain_compiler.projects.firmware import render_firmware
from tinytrain_compiler.reference import PrototypeHead, run
from tinytrain_compiler.targets.apps import HARNESS
from tinytrain_compiler.targets.emulation import emulation_banks, emulation_board, execute
from tinytrain_compiler.targets.host import WARNINGS, HostModel
from tinytrain_compiler.targets.runner import Job
from tools import require_or_skip

HERE = Path(__file__).parent / "c"
SANITIZE = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
BUILDS = {
    "gcc": ("gcc", ["-O3"]),
    "gcc-sanitizers": ("gcc", SANITIZE),
    "clang": ("clang", ["-O2"]),
    "clang-sanitizers": ("clang", SANITIZE),
}
CLASSES = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("api")
    write_model(NETWORKS["mobile"](), "net", directory, classes=CLASSES)
    return directory


@pytest.mark.parametrize("build", BUILDS)
def test_every_promise_of_the_header_on_the_host(build: str, model: Path, tmp_path: Path) -> None:
    compiler, flags = BUILDS[build]
    require_or_skip(compiler)
    program = tmp_path / "api"
    includes = [f"-I{path}" for path in (model, model / "runtime", HERE)]
    sources = [str(HERE / "api.c"), *map(str, model_sources(model, "net"))]
    subprocess.run([compiler, "-std=c11", *WARNINGS, *flags, *includes, *sources, "-o", str(program)], check=True)
    ran = subprocess.run([str(program)], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "ok\n", "")


@pytest.mark.parametrize("name", ["stm32f746", "mps2_an385", "rp2040"])
def test_every_promise_of_the_header_on_an_emulated_core(name: str, model: Path, tmp_path: Path) -> None:
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm", "cc")
    board = emulation_board(load_board(name))
    for path, text in render_firmware(board, "net", emulation_banks(board, ["x"]), HARNESS).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    firmware = tmp_path / "firmware"
    shutil.copy(HERE / "api.c", firmware)
    includes = [f"-I{path}" for path in (model, model / "runtime", HERE, firmware)]
    sources = [firmware / "api.c", firmware / "startup.c", *model_sources(model, "net")]
    elf = tmp_path / "api.elf"
    command = ["arm-none-eabi-gcc", *board.cpu_flags, *C_FLAGS, *WARNINGS, *includes, *map(str, sources), *LINK_FLAGS]
    subprocess.run([*command, "-T", str(firmware / f"{board.name}.ld"), "-o", str(elf)], check=True)
    assert execute(Job(elf, board, tmp_path / "run", timeout_s=60)).console == "ok\n"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostModel]:
    require_or_skip("cc")
    graph, directory = NETWORKS["mobile"](), tmp_path_factory.mktemp("host")
    lowered = write_model(graph, "net", directory, classes=CLASSES)
    with HostModel(directory, layout_of(graph, lowered, "net")) as host:
        yield host


calls = st.sampled_from(["enroll", "enroll", "infer", "infer", "infer", "forget"])
actions = st.lists(st.tuples(calls, st.integers(0, 11), st.integers(0, 2)), min_size=1, max_size=25)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=actions)
def test_any_sequence_of_calls_answers_like_the_reference_head(
    host: HostModel, steps: list[tuple[str, int, int]]
) -> None:
    graph = NETWORKS["mobile"]()
    inputs = random_inputs(graph, 9, seed=4)
    tensor = graph.tensors[graph.features]
    host.forget()
    head = PrototypeHead(CLASSES, tensor.bytes, tensor.quantization.zero_point)
    for action, which, label in steps:
        output, features = run(graph, inputs[which])
        if action == "enroll":
            host.enroll(inputs[which], label)
            head.enroll(features, label)
        elif action == "forget":
            host.forget()
            head = PrototypeHead(CLASSES, tensor.bytes, tensor.quantization.zero_point)
        else:
            got = host.infer(inputs[which])
            assert (got.output == output).all()
            assert (got.features == features).all()
            if any(head.shots):
                assert (got.label, got.score) == head.classify(features)
            else:
                assert (got.label, got.score) == (output.argmax(), output.max())


def test_host_wrapper_reports_errors_of_the_c_side(host: HostModel) -> None:
    x = random_inputs(NETWORKS["mobile"](), 1)[0]
    with pytest.raises(TinyTrainError, match=r"net_enroll\(\) returned status -4"):
        host.enroll(x, CLASSES)
    with pytest.raises(ValueError, match="an input has 765 bytes, not 764"):
        host.infer(x[:-1])


def test_host_wrapper_notices_writes_outside_the_memory(model: Path, tmp_path: Path) -> None:
    require_or_skip("cc")
    directory = tmp_path / "model"
    shutil.copytree(model, directory)
    kernels = (directory / "net.c").read_text()
    marker = "const tt_model net_model"
    broken = "    regions[0][-3] = 0;\n}\n\n" + marker
    head, tail = kernels.split("}\n\n" + marker)
    (directory / "net.c").write_text(head + broken + tail)
    graph = NETWORKS["mobile"]()
    lowered = write_model(graph, "net", tmp_path / "plan", classes=CLASSES)
    with (
        HostModel(directory, layout_of(graph, lowered, "net")) as host,
        pytest.raises(TinyTrainError, match=r"net_infer\(\) wrote outside the memory it was given"),
    ):
        host.infer(random_inputs(graph, 1)[0])
