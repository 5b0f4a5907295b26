"""The ten real networks of the shared folder: they compile, fit, agree byte for byte, and keep to their figures."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from test_outline import never_more_than_needed
from tinytrain_compiler import compile_model
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.compiled import CompiledModel, load_compiled
from tinytrain_compiler.emulate import emulate
from tinytrain_compiler.verify import verify, verify_on_data
from tools import require_or_skip

INPUTS = 20


class Case(NamedTuple):
    calibration: str | None = "imagenet_check250.npz"
    mean: float = 127.5
    std: float = 127.5
    arena_limit: int = 320 * 1024
    instructions_limit: int = 40_000_000


MODELS = {
    "mcunet_5fps_96": Case(),
    "mcunet_5fps_128": Case(),
    "mobilenetv2_w035_96": Case(),
    "mobilenetv2_w035_128": Case(),
    "proxylessnas_w03_96": Case(),
    "proxylessnas_w03_128": Case(),
    "mlperf_tiny_vww_mobilenetv1_025_96": Case(mean=0, std=255, arena_limit=56 * 1024, instructions_limit=22_000_000),
    "mlperf_tiny_resnet8_cifar10": Case("cifar10.npz", 0, 1, 50 * 1024, 28_000_000),
    "mlperf_tiny_kws_dscnn": Case("kws_speechcommands_test.npz", arena_limit=20 * 1024, instructions_limit=7_000_000),
    "mlperf_tiny_ad01_autoencoder": Case(None, arena_limit=4 * 1024, instructions_limit=600_000),
}
BACKBONES = ("mcunet_5fps_128", "mobilenetv2_w035_128", "proxylessnas_w03_128")
Compiled = Callable[[str], CompiledModel]
all_models = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(scope="module")
def compiled(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Each network is compiled once, when a test first asks for it."""
    root = tmp_path_factory.mktemp("real")

    @cache
    def get(name: str) -> CompiledModel:
        case = MODELS[name]
        calibration = shared / "data" / case.calibration if case.calibration else None
        model = shared / "models" / f"{name}.onnx"
        compile_model(
            model, "stm32f746", root / name, calibration=calibration, mean=(case.mean,), std=(case.std,), name="net"
        )
        return load_compiled(root / name)

    return get


def agree(found: dict[str, Any]) -> None:
    assert (found["inputs"], found["mismatched_bytes"]) == (INPUTS, 0)


def test_every_model_of_the_folder_is_tested(shared: Path) -> None:
    assert {path.stem for path in (shared / "models").glob("*.onnx")} == set(MODELS)


@all_models
def test_fits_and_the_arena_is_close_to_its_lower_bound(compiled: Compiled, shared: Path, name: str) -> None:
    never_more_than_needed(shared / "models" / f"{name}.onnx", compiled(name).report)
    memory = compiled(name).report["memory"]
    sram, flash = memory["sram"], memory["flash"]
    assert sram["arena_bytes"] <= MODELS[name].arena_limit
    assert sram["arena_bytes"] <= 1.02 * sram["lower_bound_bytes"]
    assert sram["total_bytes"] + sram["stack_bytes"] <= sram["budget_bytes"]
    assert flash["total_bytes"] <= flash["budget_bytes"]


@all_models
def test_host_c_is_the_reference_and_close_to_onnxruntime(compiled: Compiled, name: str) -> None:
    require_or_skip("cc")
    found = verify(compiled(name), INPUTS)
    agree(found["host"])
    assert found["onnxruntime"]["within_one_step"] >= 0.999
    assert found["onnxruntime"]["top1_agreement"] >= 0.9


@all_models
def test_emulated_m7_is_the_reference_within_its_instructions(compiled: Compiled, name: str) -> None:
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm", "cc")
    model = compiled(name)
    found = emulate(model, INPUTS)
    agree(found)
    assert found["core"] == "cortex-m7"
    assert found["instructions_per_inference"] <= MODELS[name].instructions_limit
    memory = model.report["memory"]
    assert found["flash_bytes"] <= memory["flash"]["total_bytes"] <= memory["flash"]["budget_bytes"]
    assert found["sram_bytes"] <= memory["sram"]["budget_bytes"]
    assert found["stack_bytes"] <= memory["sram"]["stack_bytes"] // 2, "half of the stack is the application's"


@pytest.mark.parametrize("board", ["nrf52840dk", "mps2_an385"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in BACKBONES else name for name in MODELS]
)  # the smaller images' backbones are the same layers
def test_emulated_m4_and_m3_are_the_reference(compiled: Compiled, name: str, board: str) -> None:
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm", "cc")
    found = emulate(compiled(name), INPUTS, core_of=load_board(board))
    agree(found)
    assert found["core"] == {"nrf52840dk": "cortex-m4", "mps2_an385": "cortex-m3"}[board]


@pytest.mark.parametrize("name", BACKBONES)
def test_int8_backbone_agrees_with_the_float_model(compiled: Compiled, shared: Path, name: str) -> None:
    require_or_skip("cc")
    images = shared / "data" / "imagenet_check250.npz"
    found = verify_on_data(compiled(name), images, shared / "models" / f"{name}.onnx")
    assert found["inputs"] == 250
    assert found["float_top1_agreement"] >= 0.85


def test_keyword_network_recognises_keywords(compiled: Compiled, shared: Path) -> None:
    require_or_skip("cc")
    pack = shared / "data" / "kws_speechcommands_test.npz"
    found = verify_on_data(compiled("mlperf_tiny_kws_dscnn"), pack, None)
    assert found["inputs"] > 4000
    assert found["accuracy"] >= 0.91
