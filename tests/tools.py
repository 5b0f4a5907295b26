"""What several tests share: skipping without a tool, and a tiny hand-written model with the generated C API."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
from tinytrain_compiler.errors import ToolMissingError
from tinytrain_compiler.targets.tools import require_tool

INPUT_BYTES, OUTPUT_BYTES, FEATURES = 48, 4, 8


def require_or_skip(*tools: str) -> None:
    """Skip the test where a tool is missing, saying how to install it; fail where CI is set: there it must run."""
    for tool in tools:
        try:
            require_tool(tool)
        except ToolMissingError as error:
            if os.environ.get("CI"):
                pytest.fail(str(error))
            pytest.skip(str(error))


def fake_infer(data: bytes) -> tuple[bytes, bytes]:
    """Output and features that the fake model below makes of INPUT_BYTES bytes."""
    features = bytes(sum(data[i::FEATURES]) & 0xFF for i in range(FEATURES))
    output = bytes((features[i] ^ features[i + OUTPUT_BYTES]) for i in range(OUTPUT_BYTES))
    return output, features


def fake_selftest_input() -> bytes:
    return bytes((7 * i + 1) & 0xFF for i in range(INPUT_BYTES))


def fake_crc() -> int:
    output, features = fake_infer(fake_selftest_input())
    return zlib.crc32(output + features)


_RUNTIME_H = """
#ifndef TINYTRAIN_H
#define TINYTRAIN_H
#include <stddef.h>
#include <stdint.h>
#define TT_ALIGNMENT 16
typedef enum tt_status { TT_OK = 0, TT_ERR_MEMORY = -3, TT_ERR_LABEL = -4 } tt_status;
typedef struct { int32_t label; int32_t score; const int8_t *output; const int8_t *features; } tt_result;
int32_t tt_sum(const int8_t *bytes, size_t count, size_t step);
#endif
"""

_RUNTIME_C = """
#include "tinytrain.h"
int32_t tt_sum(const int8_t *bytes, size_t count, size_t step)
{
    int32_t sum = 0;
    for (size_t i = 0; i < count; i += step) {
        sum += bytes[i];
    }
    return sum;
}
"""

_HEADER = """
#ifndef {NAME}_H
#define {NAME}_H
#include "tinytrain.h"
#define {NAME}_INPUT_BYTES 48
#define {NAME}_OUTPUT_BYTES 4
#define {NAME}_FEATURES 8
#define {NAME}_REGION0_BYTES 4096
#define {NAME}_REGION1_BYTES 64
#define {NAME}_SELFTEST_CRC 0x{crc:08X}u
typedef struct {name}_session {{ uint8_t *region0; uint8_t *region1; int32_t enrolled; }} {name}_session;
tt_status {name}_init({name}_session *s, void *region0, size_t region0_bytes, void *region1, size_t region1_bytes);
int8_t *{name}_input(const {name}_session *s);
tt_status {name}_infer({name}_session *s, const int8_t *input, tt_result *result);
tt_status {name}_enroll({name}_session *s, const int8_t *input, int32_t label);
void {name}_selftest_input(int8_t *input);
void {name}_kernel(const int8_t *input, int8_t *features);
extern const uint8_t {name}_weights[32];
#endif
"""

# `sabotage` runs at the end of every inference; s and input are at hand.
_MODEL = """
#include "{name}.h"
#include <string.h>
tt_status {name}_init({name}_session *s, void *region0, size_t region0_bytes, void *region1, size_t region1_bytes)
{{
    s->region0 = region0;
    s->region1 = region1;
    s->enrolled = -1;
    return region0_bytes < {NAME}_REGION0_BYTES || region1_bytes < {NAME}_REGION1_BYTES ? TT_ERR_MEMORY : TT_OK;
}}
int8_t *{name}_input(const {name}_session *s)
{{
    return (int8_t *)s->region0;
}}
tt_status {name}_infer({name}_session *s, const int8_t *input, tt_result *result)
{{
    int8_t *const features = (int8_t *)s->region1;
    int8_t *const output = features + 16;
    {name}_kernel(input, features);
    for (int i = 0; i < 4; ++i) {{
        output[i] = (int8_t)(features[i] ^ features[i + 4]);
    }}
    result->label = s->enrolled;
    result->score = output[0];
    result->output = output;
    result->features = features;
    {sabotage}
    return TT_OK;
}}
tt_status {name}_enroll({name}_session *s, const int8_t *input, int32_t label)
{{
    (void)input;
    s->enrolled = label;
    return label < 10 ? TT_OK : TT_ERR_LABEL;
}}
void {name}_selftest_input(int8_t *input)
{{
    for (int i = 0; i < {NAME}_INPUT_BYTES; ++i) {{
        input[i] = (int8_t)(7 * i + 1);
    }}
}}
"""

_WEIGHTS = """
#include "{name}.h"
const uint8_t {name}_weights[32] = {{1}};
"""

_KERNELS = """
#include "{name}.h"
static uint8_t initialised = 1; /* so that .data and .bss are not empty */
static uint8_t zeroed;
void {name}_kernel(const int8_t *input, int8_t *features)
{{
    for (int i = 0; i < {NAME}_FEATURES; ++i) {{
        features[i] = (int8_t)(tt_sum(input + i, (size_t)({NAME}_INPUT_BYTES - i), 8) * {name}_weights[0] * initialised
                               + zeroed);
    }}
    *(volatile uint8_t *)&zeroed = 0;
    *(volatile uint8_t *)&initialised = 1;
}}
"""


def write_fake_model(directory: Path, name: str = "fake", sabotage: str = "") -> Path:
    """A model directory with the generated API: features are sums of every eighth byte."""
    (directory / "runtime").mkdir(parents=True, exist_ok=True)
    (directory / "runtime" / "tinytrain.h").write_text(_RUNTIME_H)
    (directory / "runtime" / "tt_sum.c").write_text(_RUNTIME_C)
    values = {"name": name, "NAME": name.upper(), "crc": fake_crc(), "sabotage": sabotage}
    for suffix, text in ((".h", _HEADER), (".c", _MODEL), ("_weights.c", _WEIGHTS), ("_kernels.c", _KERNELS)):
        (directory / f"{name}{suffix}").write_text(text.format(**values))
    return directory
