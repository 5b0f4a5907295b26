"""What the generated C looks like and what its helpers compute: names, headers, file by file."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_selection
import test_training
from graphs import GraphBuilder, layout_of, model_sources, random_inputs, write_model
from networks import NETWORKS
from tinytrain_compiler import Artifacts, compile_model
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.codegen.layout import statement
from tinytrain_compiler.codegen.render import Identifiers, c_name
from tinytrain_compiler.graph import Graph, Layout, Quantization, Tensor
from tinytrain_compiler.lowering import Lowered
from tinytrain_compiler.quantize.input_bytes import quantize_samples
from tinytrain_compiler.reference import run
from tinytrain_compiler.reference.trainer import ReferenceTrainer
from tinytrain_compiler.targets.host import HostModel
from tinytrain_compiler.training.scheme import Scheme, TrainedLayer
from tinytrain_compiler.training.visits import TrainOptions
from tinytrain_compiler.version import __version__
from tools import require_or_skip

STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wcomment", "-Wtrigraphs", "-Werror"]

# -- names from a model ------------------------------------------------------------------------

HOSTILE = [
    "a*/int x5;/*", "/* */", "*/", "/*", "//", "*", "/", "/*/", "**//", "line\\\n#error spliced", "ends in \\",
    "??/\nx", "*??/\n/", "\n#error its own line", "\r\x00\x07\x1b", 'quote " \' `', "", " ", "{{ name }} {% raw %}",
    "\u00e4\u6f22\U0001f600", "\u202e\u2066 right to left", "\ud800", "x" * 10_000, "scope/" * 2_000 + "*/", "%s %n %d",
]  # fmt: skip


def renamed(graph: Graph, scheme: Scheme, names: list[str]) -> tuple[Graph, Scheme]:
    """The same network; node i and tensor i are called names[i], with as much behind it as makes them unique."""
    nodes = {node.name: f"{names[i % len(names)]}{' ' * (i // len(names))}" for i, node in enumerate(graph.nodes)}
    tensors = {name: f"{names[-i % len(names)]}{' ' * (i // len(names))}" for i, name in enumerate(graph.tensors)}
    graph = replace(
        graph,
        input=tensors[graph.input], output=tensors[graph.output], features=tensors[graph.features],
        tensors={tensors[name]: replace(tensor, name=tensors[name]) for name, tensor in graph.tensors.items()},
        nodes=[
            replace(n, name=nodes[n.name], inputs=tuple(tensors[x] for x in n.inputs), output=tensors[n.output])
            for n in graph.nodes
        ],
    )  # fmt: skip
    return graph, Scheme({nodes[name]: layer for name, layer in scheme.layers.items()})


@pytest.mark.parametrize("first", [0, 12])
def test_hostile_names_stay_names(first: int, tmp_path: Path) -> None:
    """Built with training, for this machine and for a core, warnings as errors; it answers as the reference does."""
    require_or_skip("gcc")
    require_or_skip("arm-none-eabi-gcc")
    graph, scheme = renamed(*test_training.network(), HOSTILE[first:] + HOSTILE[:first])
    lowered = write_model(graph, "net", tmp_path, scheme=scheme)
    with HostModel(tmp_path, layout_of(graph, lowered, "net")) as host:
        for x in random_inputs(graph, 2):
            assert (host.infer(x).output == run(graph, x)[0]).all()
    own = [path for path in model_sources(tmp_path, "net") if path.parent == tmp_path]
    flags = [*STRICT, *load_board("stm32f746").cpu_flags, "-fsyntax-only", f"-I{tmp_path}", f"-I{tmp_path / 'runtime'}"]
    done = subprocess.run(["arm-none-eabi-gcc", *flags, *map(str, own)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_in_a_comment(name: str) -> None:
    text = c_name(name)
    assert not any(part in text for part in ("*/", "/*", "\\", "\n", "\r", "??"))
    assert len(text) < 100
    text.encode()


def test_names_that_are_alike_stay_apart() -> None:
    identifiers = Identifiers()
    made = [identifiers.make(name) for name in [*HOSTILE, *HOSTILE, "x_2", "x", "x", "x" * 10_001]]
    assert len(set(made)) == len(made)
    assert max(map(len, made)) < 50


# -- layout ------------------------------------------------------------------------------------

COLUMNS = 120


def lines_of(folder: Path, prefix: str) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob(f"{prefix}*")):
        for line in path.read_text().splitlines():
            yield path.name, line


def test_no_generated_line_is_longer_than_a_window(tmp_path: Path) -> None:
    trained = {"net": test_training.network(), "sel": test_selection.network()}
    trained["visual_wake_words"] = renamed(*test_training.network(), HOSTILE)
    graphs = {name: (make(), None) for name, make in NETWORKS.items()}
    for name, (graph, scheme) in {**trained, **graphs}.items():
        write_model(graph, name, tmp_path / name, scheme=scheme)
        assert [(path, line) for path, line in lines_of(tmp_path / name, name) if len(line) > COLUMNS] == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("short(a, b);", ["short(a, b);"]),
        (f"call({'a' * 60}, {'b' * 60});", [f"call({'a' * 60},", f"     {'b' * 60});"]),
        (f"{'f' * 70}({'a' * 30}, {'b' * 30});", [f"{'f' * 70}({'a' * 30},", f"    {'b' * 30});"]),
        (f"{'f' * 90}({'a' * 40}, b);", [f"{'f' * 90}(", f"    {'a' * 40}, b);"]),
        (f"    y = {'v' * 115};", ["    y =", f"        {'v' * 115};"]),
        ("x" * 130, ["x" * 130]),
    ],
)
def test_long_statements_are_continued(text: str, lines: list[str]) -> None:
    assert statement(text) == lines


def test_the_memory_map_is_sorted_by_step(tmp_path: Path) -> None:
    graph, scheme = test_training.network()
    write_model(graph, "net", tmp_path, scheme=scheme)
    pattern = re.compile(r"#define (\w+) +(\d+) /\* +(\d+) \.\. (\d+) +([\d,]+) \*/")
    rows = [m.groups() for _, line in lines_of(tmp_path, "net_arena") if (m := pattern.fullmatch(line))]
    steps = [int(first) for _, _, first, _, _ in rows]
    assert steps == sorted(steps)
    found = {macro: (int(offset), int(first)) for macro, offset, first, _, _ in rows}
    assert found["NET_AT_INPUT"][1] == 0
    assert found["NET_AT_ADD_4_OUT"] == (found["NET_AT_STEM_OUT"][0], 4), "it takes over the memory of its input"
    assert len(rows) > len(graph.tensors)


def test_what_one_file_keeps_to_itself_has_no_prefix(tmp_path: Path) -> None:
    write_model(test_training.network()[0], "net", tmp_path)
    own = [line for path, line in lines_of(tmp_path, "net") if path == "net_weights.c" and line.startswith("static ")]
    assert own
    assert not [line for line in own if " net_" in line]


def test_layers_of_one_shape_share_their_functions(tmp_path: Path) -> None:
    """Whatever their weights: bounds of the backward pass come as arguments."""
    b = GraphBuilder((5, 4, 6))
    x = b.input
    for i in range(3):
        x = b.depthwise(b.conv2d(x, 6, name=f"wide{i}"), (3, 3), pad_before=(1, 1), pad_after=(1, 1), name=f"deep{i}")
    graph = b.build()
    write_model(graph, "net", tmp_path, scheme=Scheme({"wide0": TrainedLayer()}))
    declared = [line for path, line in lines_of(tmp_path, "net_train") if path.endswith(".h") and "_gradient(" in line]
    assert [re.findall(r"net_(\w+)\(", line) for line in declared] == [
        ["depthwise_3x3_p1111_5x4x6_input_gradient"], ["conv2d_1x1_5x4x6_6_input_gradient"],
    ]  # fmt: skip


# -- golden files ------------------------------------------------------------------------------

GOLDEN = Path(__file__).parent / "golden" / "generated"
UPDATE = bool(os.environ.get("TINYTRAIN_UPDATE_GOLDEN"))
GOLDEN_FILES = {
    "tiny": ("tiny.c", "tiny_arena.h", "tiny_kernels.c", "tiny_kernels.h", "tiny_weights.c"),
    "learns": ("learns.c", "learns_arena.h", "learns_train.c", "learns_train.h"),
}
LEARNS = Scheme({"stem": TrainedLayer(), "depthwise": TrainedLayer((0, 2)), "hidden": TrainedLayer((1, 3))})


def tiny() -> Graph:
    """A layer of each shape of call: with scratch memory, in place, two inputs, no code; and an embedding."""
    b = GraphBuilder((4, 4, 2), seed=4)
    x = b.conv2d(b.input, 4, (3, 3), pad_before=(1, 1), pad_after=(1, 1), zero=-128, name="stem")
    y = b.depthwise(x, (3, 3), pad_before=(1, 1), pad_after=(1, 1), name="depthwise")
    x = b.reshape(b.avg_pool(b.add(x, y, name="sum"), name="pool"), name="flatten")
    features = b.fully_connected(x, 6, name="hidden")
    return b.build(b.fully_connected(features, 2, name="classifier"), features)


def write_golden(name: str, folder: Path) -> Lowered:
    return write_model(tiny(), name, folder, scheme=LEARNS if name == "learns" else None)


@pytest.mark.parametrize("name", GOLDEN_FILES)
def test_generated_c_is_as_it_was_read_last(name: str, tmp_path: Path) -> None:
    """To take over a change: TINYTRAIN_UPDATE_GOLDEN=1 python -m pytest tests/test_generated_text.py, and read it."""
    write_golden(name, tmp_path)
    for path in GOLDEN_FILES[name]:
        text = (tmp_path / path).read_text().replace(f"tinytrain-compiler {__version__}\n", "tinytrain-compiler\n")
        if UPDATE:
            GOLDEN.mkdir(parents=True, exist_ok=True)
            (GOLDEN / path).write_text(text)
        assert text == (GOLDEN / path).read_text(), path


@pytest.mark.parametrize("name", GOLDEN_FILES)
def test_golden_c_computes_and_learns_what_the_reference_does(name: str, tmp_path: Path) -> None:
    require_or_skip("gcc")
    graph, lowered = tiny(), write_golden(name, tmp_path)
    for path in GOLDEN_FILES[name]:
        (tmp_path / path).write_text((GOLDEN / path).read_text())
    inputs = random_inputs(graph, 8)
    with HostModel(tmp_path, layout_of(graph, lowered, name)) as host:
        for x in inputs:
            assert (host.infer(x).output == run(graph, x)[0]).all()
        if name == "learns":
            trainer, labels = ReferenceTrainer(graph, LEARNS, 3), [0, 1, 2, 0, 1, 2, 0, 1]
            trainer.train(lambda index, epoch: inputs[index], labels, TrainOptions(epochs=2, rate=0.1, seed=3))
            host.train(lambda index, epoch: inputs[index], labels, epochs=2, rate=0.1, seed=3)
            assert [(a.label, a.score) for a in map(host.infer, inputs)] == [trainer.infer(x) for x in inputs]


# -- the header's helpers ----------------------------------------------------------------------


def quantized_in_c(tensor: Tensor, values: np.ndarray, folder: Path, flags: list[str]) -> np.ndarray:
    """int8 of each value by the generated <name>_quantize()."""
    b = GraphBuilder((2,), scale=tensor.quantization.scale, zero=tensor.quantization.zero_point)
    b.fully_connected(b.input, 2)
    write_model(b.build(), "net", folder)
    source = folder / "all.c"
    source.write_text(
        '#include "net.h"\nvoid all(const float *x, int8_t *y, int n);\nvoid all(const float *x, int8_t *y, int n)\n'
        "{ for (int i = 0; i < n; i++) y[i] = net_quantize(x[i]); }\n"
    )
    library = folder / "all.so"
    command = ["gcc", *STRICT, *flags, "-fPIC", "-shared", f"-I{folder}", f"-I{folder / 'runtime'}", str(source)]
    subprocess.run([*command, "-o", str(library)], check=True)
    found = np.empty(len(values), np.int8)
    floats = np.ascontiguousarray(values, np.float32)
    ctypes.CDLL(str(library)).all(ctypes.c_void_p(floats.ctypes.data), ctypes.c_void_p(found.ctypes.data), len(floats))
    return found


@pytest.mark.parametrize(
    ("scale", "zero"), [(0.05, -3), (1.0, 0), (2.0**-7, -128), (0.0078431377, 127), (1e-6, 1), (3e5, -1)]
)
def test_floats_become_input_bytes_as_in_python(scale: float, zero: int, tmp_path: Path) -> None:
    require_or_skip("gcc")
    rng = np.random.default_rng(0)
    scale = float(np.float32(scale))
    halves = (np.arange(-1200, 1201) / 2 * scale).astype(np.float32)
    near = np.concatenate([np.nextafter(halves, np.float32(side)) for side in (-np.inf, np.inf)])
    far = np.array([3e38, -3e38, 1e-45, -0.0, np.inf, -np.inf], np.float32)
    values = np.concatenate([halves, near, far, (rng.normal(size=4000) * 100 * scale).astype(np.float32)])
    tensor = Tensor("x", (len(values),), Quantization(scale, zero))
    with np.errstate(over="ignore"):
        wanted = quantize_samples(values[None], tensor, Layout.row_major((1, len(values))))[0]
    assert (quantized_in_c(tensor, values, tmp_path, ["-O2"]) == wanted).all()


def test_scales_are_floats(compiled_small: Artifacts) -> None:
    lines = [line for line in compiled_small.files["small.h"].decode().splitlines() if "_SCALE " in line]
    assert len(lines) == 2
    for line in lines:
        assert line.endswith("f"), line


def test_pixels_and_augmentation_are_offered_where_calibration_was_images(
    small_model: Path, compiled_small: Artifacts, tmp_path: Path
) -> None:
    """A model that takes floats, such as spectra, may have an input of an image's shape."""
    rng = np.random.default_rng(0)
    height, width, channels = compiled_small.graph.tensors[compiled_small.graph.input].shape
    np.savez(tmp_path / "images.npz", images=rng.integers(0, 256, (8, height, width, channels), np.uint8))
    np.savez(tmp_path / "floats.npz", x=rng.normal(size=(8, channels, height, width)).astype(np.float32))
    for name, offered in (("images", True), ("floats", False)):
        data = tmp_path / f"{name}.npz"
        files = compile_model(small_model, "stm32f746", name="net", calibration=data, policy="bias").files
        text = files["net.h"].decode()
        assert ("net_pixel(" in text) == ("net_augment(" in text) == offered
        assert "_quantize(" in text


# -- firmware and host -------------------------------------------------------------------------


def test_code_for_this_machine_is_in_a_file_that_firmware_does_not_compile(compiled_small: Artifacts) -> None:
    files = compiled_small.files
    for path in ("small_kernels.c", "small_train.c", "CMakeLists.txt"):
        text = files.get(path, b"")
        assert b"tt_vector" not in text
        assert b"kernels_host" not in text
    assert b"tt_vector" in files["small_kernels_host.c"]
