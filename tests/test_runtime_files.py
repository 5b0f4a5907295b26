"""The runtime's rooms: what includes what, which files a model brings along, and what Python and C agree on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from test_training import Case
from tinytrain_compiler import compile_model
from tinytrain_compiler.resources import RUNTIME
from tinytrain_compiler.runtime_abi import STATUS, inference_asserts, status_name
from tinytrain_compiler.runtime_files import GRADIENTS, runtime_files
from tinytrain_compiler.targets.host import WARNINGS
from tinytrain_compiler.training.heads import HEADS
from tools import require_or_skip

ALL = {path.name for path in RUNTIME.iterdir()}


def includes(name: str) -> set[str]:
    return set(re.findall(r'#include "(.*?)"', (RUNTIME / name).read_text()))


def reachable(name: str) -> set[str]:
    """Headers that a file includes, and those that these include."""
    found: set[str] = set()
    todo = includes(name)
    while todo:
        header = todo.pop()
        if header not in found:
            found.add(header)
            todo |= includes(header)
    return found


def test_headers_include_each_other_in_one_direction() -> None:
    assert [name for name in ALL if name.endswith(".h") and name in reachable(name)] == []


def test_what_infers_and_saves_does_not_know_what_trains() -> None:
    training = {"tinytrain_training.h", "tt_learning.h", "tt_support.h", "tt_choice.h", "tt_select.h", "tt_check.h"}
    for name in runtime_files("prototype", None):
        assert not reachable(name) & training, name


@pytest.mark.parametrize(
    ("head", "gradients"), [("prototype", None), *((head, gradients) for head in HEADS for gradients in GRADIENTS)]
)
def test_a_models_files_include_no_others(head: str, gradients: str | None) -> None:
    """A linear head trains, whatever the policy: it always has gradients."""
    files = runtime_files(head, gradients)
    for name in files:
        assert reachable(name) <= files.keys(), name


def test_every_file_belongs_to_a_feature() -> None:
    assert {name for head in HEADS for gradients in GRADIENTS for name in runtime_files(head, gradients, True)} == ALL
    assert runtime_files("prototype", None, True).keys() - runtime_files("prototype", None) == {
        "tt_audio.c",
        "tt_audio.h",
    }


def test_firmware_that_does_not_train_carries_no_training() -> None:
    sources = {name for name in runtime_files("prototype", None) if name.endswith(".c")}
    assert sources == {"tt_head.c", "tt_math.c", "tt_prototype.c", "tt_session.c", "tt_status.c", "tt_storage.c"}


def test_generated_code_refuses_a_runtime_with_other_numbers(tmp_path: Path) -> None:
    require_or_skip("gcc")
    case = Case(tmp_path)
    header = case.directory / "runtime" / "tinytrain.h"
    header.write_text(header.read_text().replace("TT_ERR_FULL = -5,", "TT_ERR_FULL = -15,"))
    command = ["gcc", "-fsyntax-only", f"-I{case.directory}", f"-I{header.parent}", str(case.directory / "net.c")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "the compiler knew another runtime: status codes" in done.stderr


def test_every_status_has_one_name() -> None:
    assert [status_name(code) for code in STATUS.values()] == [f"TT_{name}" for name in STATUS]
    assert status_name(-99) == "no status of this runtime"
    assert all(len(line) <= 120 for line in inference_asserts().splitlines())


def test_a_log_is_compiled_in_where_the_application_brings_one(tmp_path: Path) -> None:
    """And its formats suit their arguments: warnings are errors."""
    require_or_skip("gcc")
    port = tmp_path / "port.h"
    port.write_text(
        "#include <stdio.h>\n#include <stdlib.h>\n#define TT_LOG(...) printf(__VA_ARGS__)\n"
        "#define TT_ASSERT(condition) ((condition) ? (void)0 : abort())\n"
    )
    flags = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-O1", f"-I{RUNTIME}", "-c"]
    for source in ("tt_train.c", "tt_support.c", "tt_storage.c"):
        for out, more in (("with.o", [f'-DTT_PORT="{port}"']), ("without.o", [])):
            command = ["gcc", *flags, *more, str(RUNTIME / source), "-o", str(tmp_path / out)]
            subprocess.run(command, check=True)
        assert b"tinytrain:" in (tmp_path / "with.o").read_bytes()
        assert b"tinytrain:" not in (tmp_path / "without.o").read_bytes()


_TWO = """
#include "first.h"
#include "second.h"

static uint8_t arena_first[FIRST_REGION0_BYTES] __attribute__((aligned(TT_ALIGNMENT)));
static uint8_t arena_second[SECOND_REGION0_BYTES] __attribute__((aligned(TT_ALIGNMENT)));
static first_session one;
static second_session other;

static tt_status sample(void *user, uint32_t index, int32_t epoch, int8_t *input, int32_t *label)
{
    (void)user;
    (void)epoch;
    for (uint32_t i = 0; input != NULL && i < SECOND_INPUT_BYTES; i++) {
        input[i] = (int8_t)(index * 37 + i);
    }
    *label = (int32_t)index;
    return TT_OK;
}

int main(void)
{
    const tt_train_options options = { .epochs = 1 };
    const tt_samples samples = { .count = 2, .get = sample };
    tt_result result;
    if (first_init(&one, arena_first, sizeof arena_first) != TT_OK ||
        first_infer(&one, first_input(&one), &result) != TT_OK || result.source != TT_FROM_NETWORK) {
        return 1;
    }
    if (second_init(&other, arena_second, sizeof arena_second) != TT_OK ||
        second_train(&other, &options, &samples, NULL, NULL) != TT_OK ||
        second_infer(&other, second_input(&other), &result) != TT_OK || result.source != TT_FROM_HEAD) {
        return 2;
    }
    return 0;
}
"""


def test_a_model_that_infers_and_one_that_trains_share_a_program(small_model: Path, tmp_path: Path) -> None:
    """Their runtime folders differ: a program takes the union, each file once."""
    require_or_skip("cc")
    compile_model(small_model, "stm32f746", tmp_path / "a", name="first")
    compile_model(small_model, "stm32f746", tmp_path / "b", name="second", policy="bias", head="linear")
    runtimes = [{path.name: path for path in (tmp_path / folder / "runtime").iterdir()} for folder in "ab"]
    assert runtimes[0].keys() - runtimes[1].keys(), "otherwise one folder would do"
    union = runtimes[0] | runtimes[1]
    (tmp_path / "main.c").write_text(_TWO)
    sources = [path for folder in "ab" for path in (tmp_path / folder).glob("*.c") if "kernels_host" not in path.name]
    sources += [path for name, path in union.items() if name.endswith(".c")]
    includes = [f"-I{tmp_path / place}" for place in ("a", "b", "a/runtime", "b/runtime")]
    command = ["cc", "-std=c11", "-O1", *WARNINGS, *includes, str(tmp_path / "main.c"), *map(str, sources)]
    subprocess.run([*command, "-lm", "-o", str(tmp_path / "program")], check=True)
    assert subprocess.run([str(tmp_path / "program")], check=False).returncode == 0
