"""The generated and the runtime C: clean under every compiler, no clash between two models, nothing hidden."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from batch import compile_batch, sample, write_batch
from graphs import GraphBuilder, describe, gaps, layout_of, model_sources, random_inputs, write_model
from networks import NETWORKS
from operator_cases import STRATEGIES
from tinytrain_compiler import Artifacts, compile_model
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.reference import run
from tinytrain_compiler.targets.host import HOST_KERNELS, HostModel
from tools import require_or_skip

STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wundef", "-Wstrict-prototypes", "-Werror"]
# Helpers of the compiler for 64-bit arithmetic on cores without it.
LIBRARY = re.compile(r"mem(cpy|set|move)|__aeabi_\w+|__clzsi2|__udivmoddi4")
MATHS = re.compile(r"(sqrt|frexp|ldexp)f")  # step sizes of training are float32
# Runtime files that are all integer.
INFERENCE = (
    "tinytrain.h", "tinytrain_storage.h", "tt_session.c", "tt_storage.c", "tt_head.c", "tt_head.h", "tt_math.c",
    "tt_math.h", "tt_prototype.c", "tt_prototype.h", "tt_kernel.h", "tt_dsp.h", "tt_vector.h",
)  # fmt: skip


def command(*parts: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in parts], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All test networks in one folder, with one runtime."""
    directory = tmp_path_factory.mktemp("networks")
    for name, make in NETWORKS.items():
        write_model(make(), name, directory)
    return directory


def sources(models: Path) -> list[Path]:
    return sorted({path for name in NETWORKS for path in model_sources(models, name)})


def objects(models: Path, folder: Path, compiler: str, *flags: str) -> list[Path]:
    """Every C file compiled on its own, in `folder`."""
    folder.mkdir(exist_ok=True)
    includes = [f"-I{models}", f"-I{models / 'runtime'}"]
    done = subprocess.run([compiler, *STRICT, *flags, *includes, "-c", *map(str, sources(models))], cwd=folder,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return sorted(folder.glob("*.o"))


# -- compilers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", ["-O0", "-O3", "-Os -fno-common -ffreestanding"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_no_warning_on_the_host(models: Path, tmp_path: Path, compiler: str, flags: str) -> None:
    require_or_skip(compiler)
    objects(models, tmp_path, compiler, *HOST_KERNELS, *flags.split())


@pytest.mark.parametrize("board", ["stm32f746", "nrf52840dk", "mps2_an385", "rp2040"])
def test_no_warning_for_the_cores(models: Path, tmp_path: Path, board: str) -> None:
    require_or_skip("arm-none-eabi-gcc")
    objects(models, tmp_path, "arm-none-eabi-gcc", "-O2", *load_board(board).cpu_flags)


def test_clang_takes_the_dsp_kernels_too(models: Path, tmp_path: Path) -> None:
    """There is no C library for it: -ffreestanding brings clang's own stdint.h, the rest is declared here."""
    require_or_skip("clang")
    maths = "float sqrtf(float);\nfloat frexpf(float, int *);\nfloat ldexpf(float, int);\n"
    (tmp_path / "math.h").write_text(maths)
    (tmp_path / "string.h").write_text(
        "#include <stddef.h>\nvoid *memcpy(void *, const void *, size_t);\n"
        "void *memmove(void *, const void *, size_t);\nvoid *memset(void *, int, size_t);\n"
    )
    flags = ["--target=arm-none-eabi", "-ffreestanding", *load_board("stm32f746").cpu_flags, f"-isystem{tmp_path}"]
    objects(models, tmp_path / "objects", "clang", "-O2", *flags)


def test_headers_are_cxx_too(models: Path, tmp_path: Path) -> None:
    require_or_skip("g++")
    for name in NETWORKS:
        (tmp_path / "use.cpp").write_text(
            f'#include "{name}.h"\n#include "{name}.h"\n{name}_session session;\n'
            f"int use(void *arena) {{ return {name}_init(&session, arena, {name.upper()}_REGION0_BYTES); }}\n"
        )
        flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{models}", f"-I{models / 'runtime'}"]
        done = command("g++", *flags, tmp_path / "use.cpp")
        assert done.returncode == 0, done.stderr


def test_version_mismatch_stops_the_compiler(models: Path, tmp_path: Path) -> None:
    require_or_skip("gcc")
    header = (models / "runtime" / "tinytrain.h").read_text()
    doctored = re.sub(r"(#define TT_RUNTIME_VERSION) \d+", r"\1 999", header)
    assert doctored != header
    (tmp_path / "tinytrain.h").write_text(doctored)
    done = command("gcc", "-fsyntax-only", f"-I{tmp_path}", f"-I{models}", models / "mobile.c")
    assert done.returncode != 0
    assert re.search(r"#error.*generated for TinyTrain runtime version \d+: use the runtime/ folder", done.stderr)


def test_number_of_classes_can_be_changed_by_a_define(models: Path, tmp_path: Path) -> None:
    require_or_skip("gcc")
    includes = [f"-I{models}", f"-I{models / 'runtime'}"]
    assert (
        command("gcc", *STRICT, "-DMOBILE_CLASSES=100", *includes, "-fsyntax-only", models / "mobile.c").returncode == 0
    )
    refused = command("gcc", *STRICT, "-DMOBILE_CLASSES=0", *includes, "-fsyntax-only", models / "mobile.c")
    assert refused.returncode != 0


def test_an_application_may_have_fewer_classes_than_its_model_was_compiled_with(models: Path, tmp_path: Path) -> None:
    """Only the file that holds the session knows: what was compiled elsewhere asks the session."""
    require_or_skip("gcc")
    (tmp_path / "main.c").write_text("""
#define MOBILE_CLASSES 2
#include "mobile.h"
#include <string.h>
static _Alignas(16) uint8_t arena[MOBILE_REGION0_BYTES];
static struct { mobile_session session; uint8_t behind[4096]; } s;
int main(void)
{
    tt_result r;
    memset(s.behind, 0x5A, sizeof s.behind);
    if (mobile_init(&s.session, arena, sizeof arena)) return 1;
    mobile_selftest_input(mobile_input(&s.session));
    if (mobile_enroll(&s.session, mobile_input(&s.session), 2) != TT_ERR_LABEL) return 2;
    mobile_selftest_input(mobile_input(&s.session));
    if (mobile_enroll(&s.session, mobile_input(&s.session), 1)) return 3;
    mobile_selftest_input(mobile_input(&s.session));
    if (mobile_infer(&s.session, mobile_input(&s.session), &r) || r.label != 1) return 4;
    if (mobile_forget(&s.session)) return 5;
    for (unsigned i = 0; i < sizeof s.behind; i++) if (s.behind[i] != 0x5A) return 6;
    return 0;
}
""")
    includes = [f"-I{models}", f"-I{models / 'runtime'}"]
    flags = [*STRICT, "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    done = command(
        "gcc", *flags, *includes, tmp_path / "main.c", *model_sources(models, "mobile"), "-o", tmp_path / "a"
    )
    assert done.returncode == 0, done.stderr
    assert command(tmp_path / "a").returncode == 0


# -- symbols and sections ----------------------------------------------------------------------


def symbols(paths: list[Path], nm: str) -> list[tuple[str, str, str]]:
    """(object, kind, name); kind as nm prints it: U undefined, lower case local."""
    found = []
    for path in paths:
        for line in command(nm, path).stdout.splitlines():
            *_, kind, name = line.split()
            found.append((path.name, kind, name))
    return found


@pytest.mark.parametrize(
    ("compiler", "nm", "board"),
    [
        ("gcc", "nm", None),
        *(("arm-none-eabi-gcc", "arm-none-eabi-nm", b) for b in ("stm32f746", "mps2_an385", "rp2040")),
    ],
)
def test_symbols_are_prefixed_const_and_need_no_library(
    models: Path, tmp_path: Path, compiler: str, nm: str, board: str | None
) -> None:
    require_or_skip(compiler)
    flags = load_board(board).cpu_flags if board else ("-fno-pie",)  # else addresses in constants need relocation
    prefixes = tuple(f"{name}_" for name in NETWORKS)
    found = symbols(objects(models, tmp_path, compiler, "-O2", *flags), nm)
    defined = {name for _, kind, name in found if kind in "TRDBCV"}
    for source, kind, name in found:
        assert kind not in "DdBbCGgSs", f"{source}: {name} is writable"
        if kind in "TRV":
            assert name.startswith("tt_" if source.startswith("tt_") else prefixes), f"{source}: {name} has no prefix"
        if kind == "U":
            maths = source.startswith("tt_learn") and MATHS.fullmatch(name)
            assert name in defined or LIBRARY.fullmatch(name) or maths, f"{source} calls {name}"
    assert sum(kind == "T" for _, kind, _ in found) > 60, "the check saw something"


def test_two_models_link_into_one_program(tmp_path: Path) -> None:
    """The same network twice, under two names: every symbol would clash that can."""
    require_or_skip("gcc")
    graph = NETWORKS["mobile"]()
    for name in ("first", "second"):
        write_model(graph, name, tmp_path)
    body = "".join(
        f"static _Alignas(16) uint8_t {n}_arena[{n.upper()}_REGION0_BYTES];\nstatic {n}_session {n};\n"
        for n in ("first", "second")
    )
    runs = "".join(
        f"if ({n}_init(&{n}, {n}_arena, sizeof {n}_arena)) return 1;\n{n}_selftest_input({n}_input(&{n}));\n"
        f"if ({n}_infer(&{n}, {n}_input(&{n}), &r)) return 2;\nsum = sum * 31 + r.score + r.label;\n"
        for n in ("first", "second")
    )
    main = f"int main(void) {{ tt_result r; int sum = 0;\n{runs}return sum == 0; }}"
    main = f'#include "first.h"\n#include "second.h"\n{body}{main}\n'
    (tmp_path / "main.c").write_text(main)
    files = {*model_sources(tmp_path, "first"), *model_sources(tmp_path, "second"), tmp_path / "main.c"}
    includes = [f"-I{tmp_path}", f"-I{tmp_path / 'runtime'}"]
    done = command("gcc", *STRICT, "-O1", *includes, *sorted(files), "-o", tmp_path / "both")
    assert done.returncode == 0, done.stderr
    assert command(tmp_path / "both").returncode == 0


def test_no_function_calls_itself(models: Path, tmp_path: Path) -> None:
    require_or_skip("gcc")
    objects(models, tmp_path, "gcc", "-O0", "-fcallgraph-info")
    calls: dict[str, set[str]] = {}
    for path in tmp_path.glob("*.ci"):
        for caller, callee in re.findall(r'sourcename: "(.*?)" targetname: "(.*?)"', path.read_text()):
            calls.setdefault(caller.rsplit(":")[-1], set()).add(callee.rsplit(":")[-1])
    assert len(calls) > 50

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        todo = list(calls.get(start, ()))
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += calls.get(name, ())
        return seen

    assert [name for name in calls if name in reachable(name)] == []
    # Calls through pointers: of the model's own passes and head, which make none, and of the caller's callbacks.
    indirect = {caller for caller, callees in calls.items() if "__indirect_call" in callees}
    assert "run" in indirect
    storage = {"read_bytes", "erase_slot", "program_block", "tt_stored_read", "check_payload"}
    training = {
        "tt_train", "train_epoch", "fetch", "features_of", "tt_enroll_all", "tt_step_on", "loss", "tt_measure",
    }  # fmt: skip
    assert indirect <= {"run", "tt_infer", *training, *storage}


def test_no_heap_no_stdio_and_inference_without_float(models: Path) -> None:
    for path in {*models.glob("*.[ch]"), *(models / "runtime").glob("*.[ch]")}:
        code = re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(), flags=re.DOTALL)
        code = re.sub(
            r"static inline int8_t \w+_quantize\(float.*?\n}", "", code, flags=re.DOTALL
        )  # the caller's numbers
        integer = path.name in INFERENCE or path.parent == models
        banned = r"malloc|calloc|realloc|free|printf|puts|alloca|goto|double" + ("|float" if integer else "")
        assert not re.search(rf"\b({banned})\b", code), path.name
        headers = {"stdint.h", "stddef.h", "string.h", *([] if integer else ["math.h"])}
        assert set(re.findall(r"#include <(.*?)>", code)) <= headers, path.name


# -- sanitizers --------------------------------------------------------------------------------

_RUN_ONE = """
#include "{n}.h"
static int run_{n}(void)
{{
    static const int8_t inputs[][{N}_INPUT_BYTES] = {{ {inputs} }};
    static const uint32_t hidden[] = {{ {hidden} }};
    uint8_t *const arena = aligned_alloc(16, ({N}_REGION0_BYTES + 15) / 16 * 16);
    {n}_session *const session = malloc(sizeof *session);
    for (size_t i = 0; i + 1 < sizeof hidden / sizeof hidden[0]; i += 2) {{
        __asan_poison_memory_region(arena + hidden[i], hidden[i + 1]);
    }}
    if ({n}_init(session, arena, {N}_REGION0_BYTES)) return 1;
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {{
        tt_result result;
        if ({n}_infer(session, inputs[i], &result) || {n}_enroll(session, inputs[i], (int32_t)i % 3)) return 1;
        fwrite(result.output, 1, {N}_OUTPUT_BYTES, stdout);
    }}
    return 0;
}}
"""


def sanitized(graphs: list[Graph], directory: Path, compiler: str, *more: str) -> subprocess.CompletedProcess[bytes]:
    """Run all graphs in one program, the bytes between their buffers poisoned; it prints their outputs."""
    parts = [
        "#include <stdio.h>\n#include <stdlib.h>\nvoid __asan_poison_memory_region(void const volatile *, size_t);\n"
    ]
    for i, (graph, plan) in enumerate(zip(graphs, write_batch(graphs, directory), strict=True)):
        free = gaps(plan)
        starts = [int(free[0]), *(int(b) for a, b in itertools.pairwise(free) if b != a + 1)]
        inputs = ", ".join("{" + ",".join(map(str, x.tolist())) + "}" for x in random_inputs(graph, 2))
        hidden = ", ".join(f"{start}, {sum(1 for f in free if start <= f < start + 64)}" for start in starts)
        parts.append(_RUN_ONE.format(n=f"m{i}", N=f"M{i}", inputs=inputs, hidden=hidden))
    calls = " || ".join(f"run_m{i}()" for i in range(len(graphs)))
    parts.append(f"int main(void) {{ return {calls}; }}\n")
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", *more]
    path = compile_batch(len(graphs), directory, "".join(parts), "program", compiler, flags, [])
    return subprocess.run([str(path)], capture_output=True, check=False, env={"ASAN_OPTIONS": "detect_leaks=0"})


@pytest.mark.parametrize("variant", ["-DTT_PORTABLE", "-march=native"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_kernels_stay_inside_their_buffers_and_have_no_undefined_behaviour(
    tmp_path: Path, compiler: str, variant: str
) -> None:
    require_or_skip(compiler)
    graphs = [graph for strategy in STRATEGIES.values() for graph in sample(strategy, 4)[1:]]
    graphs += [make() for make in NETWORKS.values()]
    expected = b"".join(run(graph, x)[0].tobytes() for graph in graphs for x in random_inputs(graph, 2))
    ran = sanitized(graphs, tmp_path, compiler, variant)
    assert (ran.returncode, ran.stderr.decode()) == (0, "")
    assert ran.stdout == expected


def test_sanitizer_would_see_a_kernel_that_leaves_its_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_or_skip("gcc")
    from tinytrain_compiler.ops.conv2d import Conv2d

    honest = Conv2d.scratch_bytes
    monkeypatch.setattr(Conv2d, "scratch_bytes", lambda *a: honest(*a) // 64)
    b = GraphBuilder((5, 5, 3))
    b.conv2d(b.input, 4, (3, 3))
    ran = sanitized([b.build()], tmp_path, "gcc", "-DTT_PORTABLE")  # the vector kernel leaves scratch alone
    assert ran.returncode != 0
    assert b"use-after-poison" in ran.stderr


# -- names and determinism ---------------------------------------------------------------------

AWKWARD = ["init", "conv", "conv_weights", "conv_bias", "conv.weights", "Conv", "input", "pixel", "1/x", "a*/b", "ä",
           "", "int", "session", "model", "run", "add_4_q22", "conv2d_1x1_2x2x1_1", "selftest_input"]  # fmt: skip


def test_any_layer_names_give_c_that_compiles(tmp_path: Path) -> None:
    require_or_skip("gcc")
    b = GraphBuilder((2, 2, 1))
    x = b.input
    for name in AWKWARD:
        x = b.lookup(b.conv2d(x, 1, name=name or "/"), name=f"{name}?")
    graph = b.build()
    lowered = write_model(graph, "net", tmp_path)
    with HostModel(tmp_path, layout_of(graph, lowered, "net")) as host:
        for x_ in random_inputs(graph, 3):
            assert (host.infer(x_).output == run(graph, x_)[0]).all(), describe(graph)


Files = Callable[[Path], dict[str, bytes]]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_input_same_bytes_in_another_process_and_folder(
    compiled_small: Artifacts, small_model: Path, tmp_path: Path
) -> None:
    assert compiled_small.directory is not None
    wanted = files_of(compiled_small.directory)
    assert wanted == compiled_small.files
    code = (
        "import sys; from tinytrain_compiler import compile_model; "
        "compile_model(sys.argv[1], 'stm32f746', sys.argv[2], classes=4)"
    )
    for seed in ("0", "4711"):
        out = tmp_path / f"elsewhere-{seed}" / "deep" / "out"
        environment = os.environ | {"PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo", "LC_ALL": "C"}
        subprocess.run(
            [sys.executable, "-c", code, str(small_model), str(out)], check=True, env=environment, cwd=tmp_path
        )
        assert files_of(out) == wanted


def test_outputs_hold_no_path_and_no_date(compiled_small: Artifacts, small_model: Path) -> None:
    assert compiled_small.directory is not None
    own = [
        str(Path.home()),
        str(small_model.parent),
        str(compiled_small.directory.parent),
        str(Path(__file__).parents[1]),
    ]
    for path, data in compiled_small.files.items():
        for text in own:
            assert text.encode() not in data, path
        assert not re.search(rb"\b20[2-9]\d-[01]\d-[0-3]\d\b|\b[0-2]\d:[0-5]\d:[0-5]\d\b", data), path


def test_another_board_or_option_gives_other_bytes(compiled_small: Artifacts, small_model: Path) -> None:
    for changed in ({"board": "rp2040"}, {"classes": 5}, {"mean": (0,)}, {"name": "other"}):
        options = {"board": "stm32f746", "classes": 4} | changed
        assert compile_model(small_model, **options).files != compiled_small.files  # type: ignore[arg-type]


def test_headers_name_tool_digest_and_options(compiled_small: Artifacts) -> None:
    text = compiled_small.files["small.h"].decode()
    assert compiled_small.report["model"]["sha256"] in text
    assert compiled_small.report["tool"]["version"] in text
    assert "--board stm32f746 --classes 4" in text
