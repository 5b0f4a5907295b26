"""The C that README and guide show compiles against what the compiler writes, warnings as errors."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import onnx
import pytest
from onnx_models import ModelBuilder
from tinytrain_compiler import compile_model
from tinytrain_compiler.targets.host import WARNINGS
from tools import require_or_skip

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
BLOCKS = [
    (f"{page.relative_to(ROOT)}:{1 + text[: match.start()].count(chr(10))}", match.group(1))
    for page in PAGES
    for text in [page.read_text()]
    for match in re.finditer(r"^```c\n(.*?)^```", text, re.M | re.S)
]


@pytest.fixture(scope="module")
def mynet(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documented") / "mynet"
    compile_model(small_model, "stm32f746", folder, name="mynet", policy="bias")
    return folder


@pytest.fixture(scope="module")
def hearing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a model that takes sound."""
    folder = tmp_path_factory.mktemp("documented") / "mynet"
    builder = ModelBuilder((1, 1, 49, 10))
    x = builder.node("Flatten", builder.node("GlobalAveragePool", builder.conv(builder.input, 1, 4)))
    onnx.save(builder.build(builder.gemm(x, 4, 4)), folder.with_suffix(".onnx"))
    audio = ROOT / "examples" / "keywords" / "mfcc.toml"
    compile_model(folder.with_suffix(".onnx"), "stm32f746", folder, name="mynet", policy="bias", audio=audio)
    return folder


@pytest.mark.parametrize(("where", "code"), BLOCKS, ids=[where for where, _ in BLOCKS])
def test_documented_c_compiles(where: str, code: str, mynet: Path, hearing: Path, tmp_path: Path) -> None:
    require_or_skip("arm-none-eabi-gcc")
    folder = hearing if "mynet_audio" in code else mynet
    source = tmp_path / "shown.c"
    source.write_text(code if '#include "mynet.h"' in code else f'#include "mynet.h"\n{code}')
    includes = [f"-I{path}" for path in (folder, folder / "runtime", ROOT / "examples" / "storage")]
    unused = ["-Wno-unused-function", "-Wno-unused-variable"]  # examples define what an application would call
    command = [
        "arm-none-eabi-gcc",
        "-mcpu=cortex-m7",
        "-mthumb",
        "-std=c11",
        *WARNINGS,
        *unused,
        *includes,
        "-fsyntax-only",
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
