"""--mean and --std: in which units they are, what is refused, and a warning where they cannot be right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from tinytrain_compiler import compile_model
from tinytrain_compiler.compiled import load_compiled
from tinytrain_compiler.errors import UsageError
from tinytrain_compiler.quantize.calibration import load_calibration
from tinytrain_compiler.quantize.normalization import normalization
from tinytrain_compiler.verify import verify_on_data
from tools import require_or_skip


@pytest.mark.parametrize(
    ("mean", "std", "raw_mean", "raw_std"),
    [
        (0.5, 0.5, (127.5,), (127.5,)),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        (0, 0.5, (0,), (127.5,)),
        (0.5, 1, (127.5,), (255,)),
    ],
)
def test_numbers_up_to_1_are_of_pixels_scaled_to_0_1(mean: Any, std: Any, raw_mean: Any, raw_std: Any) -> None:
    found = normalization(mean, std)
    np.testing.assert_allclose((found.mean, found.std), (raw_mean, raw_std))
    assert found.scaled
    assert "are of pixels scaled to 0..1; of raw pixels they are --mean" in (found.note or "")


@pytest.mark.parametrize(("mean", "std"), [(127.5, 127.5), (0, 1), (0, 255), (0.5, 127.5), ((1, 2, 3), 1), (-0.5, 1)])
def test_other_numbers_are_of_raw_pixels(mean: Any, std: Any) -> None:
    found = normalization(mean, std)
    assert (found.scaled, found.note) == (False, None)
    np.testing.assert_array_equal(found.mean, np.atleast_1d(mean))
    np.testing.assert_array_equal(found.std, np.atleast_1d(std))


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        (127.5, -1, "--std must be greater than 0, not -1"),
        (127.5, (1, 0, 1), "--std must be greater than 0, not 1,0,1"),
        (127.5, 1e-60, "--std must be greater than 0"),
        (float("nan"), 1, "--mean must be finite numbers, not nan"),
        (1e60, 1, "--mean must be finite"),
        (0, float("inf"), "--std must be finite numbers, not inf"),
    ],
)
def test_what_cannot_be_meant_is_refused(mean: Any, std: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        normalization(mean, std)


def test_torchvisions_numbers_make_the_same_samples_and_pixels(small_model: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (16, 12, 12, 3), np.uint8)
    np.savez(tmp_path / "pack.npz", images=images)
    scaled, raw = (load_calibration(tmp_path / "pack.npz", (1, 3, 12, 12), v, v).samples for v in (0.5, 127.5))
    np.testing.assert_array_equal(scaled, raw)
    pack = tmp_path / "pack.npz"
    a, b = (compile_model(small_model, "stm32f746", calibration=pack, mean=(v,), std=(v,)) for v in (0.5, 127.5))
    assert a.files["small.graph"] == b.files["small.graph"]
    header = [files["small.h"].decode().split("*/", 1)[1] for files in (a.files, b.files)]
    assert header[0] == header[1], "<name>_pixel() too"
    assert any("scaled to 0..1" in note for note in a.notes)
    assert b.notes == ()


def test_low_agreement_is_a_loud_warning(
    run_cli: Cli, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "pack.npz", images=np.zeros((4, 12, 12, 3), np.uint8))
    command = ("tinytrain-compile", small_model, "--board", "stm32f746", "--calibration", tmp_path / "pack.npz")
    for share, low in ((0.57, True), (0.9, False)):
        monkeypatch.setattr("tinytrain_compiler.frontends.onnx.reader.top1_agreement", lambda *_, share=share: share)
        ran = run_cli(*command, "--mean", "0.5", "--std", "0.5", "--json", "-o", tmp_path / "out")
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["quantization"]["low_agreement"] is low
        assert ("warning: int8 and float agree on only 57.0% of the calibration samples" in ran.err) is low
        assert "note: --mean and --std are of pixels scaled to 0..1" in ran.err


def test_data_is_verified_as_the_model_was_compiled(small_model: Path, tmp_path: Path) -> None:
    """It took pixels for -1..1 whatever the model takes."""
    require_or_skip("cc")
    np.savez(tmp_path / "pack.npz", images=np.random.default_rng(0).integers(0, 256, (16, 12, 12, 3), np.uint8))
    folder = tmp_path / "out"
    artifacts = compile_model(
        small_model, "stm32f746", folder, calibration=tmp_path / "pack.npz", mean=(0,), std=(1,), name="net"
    )
    found = verify_on_data(load_compiled(folder), tmp_path / "pack.npz", small_model)
    assert found["float_top1_agreement"] == artifacts.report["quantization"]["top1_agreement"] >= 0.9
