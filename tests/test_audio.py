"""The front end for sound: near its float definition; the same bytes in NumPy, on this machine and on every core."""

from __future__ import annotations

import ctypes
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx_models import ModelBuilder
from test_firmware_project import _lines
from tinytrain_compiler import compile_model
from tinytrain_compiler.audio import AudioSettings, FrontEnd, audio_plan, noise_features, read_audio_settings
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.compiled import load_compiled
from tinytrain_compiler.errors import UsageError
from tinytrain_compiler.graph import Quantization, Tensor
from tinytrain_compiler.replay import replay
from tinytrain_compiler.targets.emulation import emulation_banks, emulation_board
from tinytrain_compiler.targets.firmware import build_firmware
from tinytrain_compiler.targets.host import WARNINGS
from tools import require_or_skip

EXAMPLES = Path(__file__).parents[1] / "examples" / "keywords"
SMALL = AudioSettings(8000, 100, 64, 8, 50.0, 4000.0)
KEYWORDS = read_audio_settings(EXAMPLES / "mfcc.toml")
LOG_MEL = read_audio_settings(EXAMPLES / "log_mel.toml")
CASES = {
    "keywords": (KEYWORDS, (9, 10, 1)),
    "log-mel": (LOG_MEL, (6, 64, 1)),
    "power, bands first": (
        AudioSettings(16000, 512, 512, 20, 0.0, 8000.0, spectrum="power", filters="htk", log="decibel", floor=1e-10),
        (20, 5, 1),
    ),
    "flat, peak of log-mel, odd window": (
        AudioSettings(8000, 99, 40, 12, 100.0, 3900.0, level="peak", log="log10", mean=-2.0, std=0.5),
        (36,),
    ),
    "one-dimensional": (AudioSettings(8000, 16, 16, 3, 0.0, 4000.0, coefficients=3), (1, 4, 3)),
}


def front_end(settings: AudioSettings, shape: tuple[int, ...]) -> FrontEnd:
    return FrontEnd(audio_plan(settings, Tensor("x", shape, Quantization(0.4, 12))))


def sounds(count: int) -> dict[str, NDArray[np.int16]]:
    """What microphones give, and what they never should."""
    rng, t = np.random.default_rng(0), np.arange(count) / 16000
    voice = np.sign(np.sin(2 * np.pi * 120 * t)) * np.exp(-(((t - t.mean()) / (t[-1] / 4)) ** 2)) * 8000
    found = {
        "noise": rng.standard_normal(count) * 3000,
        "quiet": rng.standard_normal(count) * 20,
        "voice": voice + rng.standard_normal(count) * 30,
        "silence": np.zeros(count),
        "loudest": np.where(np.sin(2 * np.pi * 1000 * t) > 0, 32767, -32768),
        "lowest": np.full(count, -32768),
    }
    return {name: np.clip(np.rint(values), -32768, 32767).astype(np.int16) for name, values in found.items()}


def by_definition(s: AudioSettings, sound: NDArray[np.int16]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(log-mel, features) in float64, as TensorFlow's and torchaudio's documentation define them."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(s.window) / s.window)
    frames = np.stack([sound[i : i + s.window] for i in range(0, len(sound) - s.window + 1, s.hop)]) / 32768 * window
    bins = np.abs(np.fft.rfft(frames, s.points)) ** (2 if s.spectrum == "power" else 1)
    position = np.arange(s.points // 2 + 1) * s.rate / s.points
    low, high = 1127 * np.log(1 + s.low / 700), 1127 * np.log(1 + s.high / 700)
    edges = np.linspace(low, high, s.bands + 2)
    if s.filters == "tensorflow":
        position = 1127 * np.log(1 + position / 700)
    else:
        edges = 700 * (np.exp(edges / 1127) - 1)
    triangles = [
        np.clip(np.minimum((position - a) / (b - a), (c - position) / (c - b)), 0, None)
        for a, b, c in zip(edges, edges[1:], edges[2:], strict=False)
    ]
    triangles = [np.where(np.arange(len(t)) == 0, 0, t) for t in triangles]
    logs = np.log(bins @ np.stack(triangles, 1) + s.floor)
    logs = logs * {"natural": 1, "log10": 1 / np.log(10), "decibel": 10 / np.log(10)}[s.log]
    if not s.coefficients:
        return logs, logs
    k, j = np.arange(s.coefficients)[:, None], np.arange(s.bands)
    return logs, logs @ (np.sqrt(2 / s.bands) * np.cos(np.pi * k * (j + 0.5) / s.bands)).T


@pytest.mark.parametrize("settings", [KEYWORDS, LOG_MEL, SMALL], ids=["keywords", "log-mel", "small"])
def test_the_integers_are_near_the_definition(settings: AudioSettings) -> None:
    end = front_end(settings, (8, settings.values, 1))
    for name in ("noise", "quiet", "voice", "silence"):
        sound = sounds(8000)[name]
        logs, features = by_definition(settings, sound)
        assert np.abs(end.log_mel(sound) / 65536 - logs).max() < 0.003, name
        assert np.abs(end.features(sound) / 2**end.plan.fraction - features).max() < 0.02, name


def test_peak_is_the_features_of_the_sound_at_full_level() -> None:
    end = front_end(KEYWORDS, (9, 10, 1))
    voice = sounds(end.samples)["voice"] // 4
    louder = (voice / (voice.max() / 32768)).clip(-32768, 32767)
    _, expected = by_definition(KEYWORDS, louder.astype(np.int16))
    assert np.abs(end.floats(voice) - expected).max() < 0.05
    hiss = sounds(end.samples)["quiet"] // 8  # below `quietest`: as if its peak were that
    _, expected = by_definition(KEYWORDS, hiss)
    moved = np.log(32768 / end.plan.quietest) * np.sqrt(2 / 40) * 40
    assert np.abs(end.floats(hiss)[:, 0] - expected[:, 0] - moved).max() < 0.05


def compiled(folder: Path, settings: AudioSettings, shape: tuple[int, ...], board: str = "stm32f746") -> Path:
    """A model with such an input, compiled with a front end; shape as on the device."""
    file = folder / "audio.toml"
    lines = [f"{k} = {v!r}" if isinstance(v, str) else f"{k} = {v}" for k, v in vars(settings).items()]
    file.write_text("\n".join(lines))
    if len(shape) == 1:
        builder = ModelBuilder((1, *shape))
        model = builder.build(builder.gemm(builder.input, shape[0], 4))
    else:
        height, width, channels = shape
        builder = ModelBuilder((1, channels, height, width))
        x = builder.node("GlobalAveragePool", builder.conv(builder.input, channels, 4, (1, 3)))
        model = builder.build(builder.gemm(builder.node("Flatten", x), 4, 4))
    onnx.save(model, folder / "ear.onnx")
    compile_model(folder / "ear.onnx", board, folder / "ear", audio=file)
    return folder / "ear"


@pytest.mark.parametrize("case", CASES)
def test_the_c_makes_the_same_bytes(case: str, tmp_path: Path) -> None:
    """Pushed in pieces of any size; sanitizers watch."""
    require_or_skip("cc")
    settings, shape = CASES[case]
    folder = compiled(tmp_path, settings, shape)
    shim = tmp_path / "shim.c"
    shim.write_text('#include "ear_audio.h"\nconst unsigned long bytes = sizeof(ear_audio);\n')
    sources = [folder / "ear_audio.c", folder / "runtime" / "tt_audio.c", shim]
    command = ["cc", "-std=c11", "-O1", "-fsanitize=undefined", "-fno-sanitize-recover", *WARNINGS, "-fPIC", "-shared"]
    library = tmp_path / "ear.so"
    subprocess.run(
        [*command, f"-I{folder}", f"-I{folder / 'runtime'}", *map(str, sources), "-o", str(library)], check=True
    )
    c = ctypes.CDLL(str(library))
    graph = load_compiled(folder).graph
    end = FrontEnd(audio_plan(settings, graph.tensors[graph.input]))
    state = ctypes.create_string_buffer(ctypes.c_ulong.in_dll(c, "bytes").value)
    rng = np.random.default_rng(1)
    for name, sound in sounds(end.samples + 3 * settings.hop).items():
        c.ear_audio_init(state)
        found = np.zeros(graph.tensors[graph.input].bytes, np.int8)
        assert c.ear_audio_input(state, ctypes.c_void_p(found.ctypes.data)) == -8, "TT_ERR_EMPTY"
        frames, at = 0, 0
        while at < len(sound):
            piece = np.ascontiguousarray(sound[at : at + int(rng.integers(1, 3 * settings.window))])
            frames += c.ear_audio_push(state, ctypes.c_void_p(piece.ctypes.data), len(piece))
            at += len(piece)
        assert frames == end.plan.frames + 3
        assert c.ear_audio_input(state, ctypes.c_void_p(found.ctypes.data)) == 0
        assert (found == end.input(sound)).all(), name


@pytest.mark.parametrize("board", ["stm32f746", "nrf52840dk", "mps2_an385", "rp2040"])
def test_every_core_makes_the_same_bytes(board: str, tmp_path: Path) -> None:
    """The self-test's sound; and the report's bounds hold what the linker made of the front end."""
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm")
    folder = compiled(tmp_path, *CASES["keywords"], board)
    machine = emulation_board(load_board(board))
    banks = emulation_banks(machine, load_compiled(folder).region_banks)
    firmware = build_firmware(folder, "ear", machine, banks, "selftest", tmp_path / "build")
    inference, audio = _lines(firmware, machine.machines["qemu"], 2)
    assert "ear self-test ok crc" in inference
    assert "ear audio self-test ok crc" in audio
    report = json.loads((folder / "report.json").read_text())
    sizes = firmware.objects["ear_audio.c"], firmware.objects["runtime/tt_audio.c"]
    assert sum(size.code + size.constants for size in sizes) <= report["memory"]["flash"]["audio_bytes"]
    assert firmware.flash_bytes <= report["memory"]["flash"]["total_bytes"]


def test_without_data_the_model_is_calibrated_on_sounds_that_went_through_the_front_end(tmp_path: Path) -> None:
    """Noise made for images has values of -1 .. 1, cepstra reach far further."""
    folder = compiled(tmp_path, *CASES["keywords"])
    model = load_compiled(folder)
    scale = model.graph.tensors[model.graph.input].quantization.scale
    voice = front_end(*CASES["keywords"]).floats(sounds(10000)["voice"])
    assert 0.8 * np.abs(voice).max() < 255 * scale < 5 * np.ptp(voice)
    assert json.loads((folder / "report.json").read_text())["quantization"]["calibration"]["source"] is None
    trains = compile_model(tmp_path / "ear.onnx", "stm32f746", audio=tmp_path / "audio.toml", policy="bias").files
    assert b"ear_train(" in trains["ear.h"]
    assert b"ear_augment(" not in trains["ear.h"], "it is for images"
    assert b"ear_pixel(" not in trains["ear.h"]


def test_generated_features_have_the_inputs_order_and_are_always_the_same() -> None:
    settings = CASES["power, bands first"][0]
    rows, columns = noise_features(settings, (1, 5, 20), count=3), noise_features(settings, (1, 20, 5), count=3)
    assert rows.shape == (3, 1, 5, 20)
    assert (rows[:, 0] == columns[:, 0].transpose(0, 2, 1)).all()
    assert np.abs(rows[0] - rows[1]).max() > 1
    with pytest.raises(UsageError, match="frames of 20 values do not fit"):
        noise_features(settings, (3, 7, 7))


def test_the_folder_keeps_its_settings_and_is_made_again(tmp_path: Path) -> None:
    folder = compiled(tmp_path, SMALL, (4, 8, 1))
    assert (folder / "audio.toml").read_bytes() == (tmp_path / "audio.toml").read_bytes()
    assert not replay(folder, tmp_path / "ear.onnx", tmp_path / "again", None).different
    silent = compile_model(tmp_path / "ear.onnx", "stm32f746", name="ear").report["memory"]
    memory = json.loads((folder / "report.json").read_text())["memory"]
    assert silent["sram"]["audio_bytes"] == silent["flash"]["audio_bytes"] == 0
    assert memory["sram"]["total_bytes"] == silent["sram"]["total_bytes"] + memory["sram"]["audio_bytes"]
    assert memory["flash"]["total_bytes"] == silent["flash"]["total_bytes"] + memory["flash"]["audio_bytes"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rate = ", "cannot be read as TOML"),
        ("rate = 16000", "window, hop, bands, low, high missing"),
        ("wndow = 3", "unknown key 'wndow', did you mean window"),
        ("rate = 1.5", "rate must be a whole number, not 1.5"),
        ("hop = 200", "hop is 200 samples; it must lie between 1 and the window, 100"),
        ("high = 5000", "must rise, up to rate / 2"),
        ("fft = 100", "fft is 100; a power of two"),
        ("coefficients = 9", r"coefficients is 9; 0 \(log-mel\) to bands, 8"),
        ("log = 'ln'", "log is 'ln'; choose one of natural"),
        ("floor = 0", "floor is 0"),
        ("std = 0", "std must be above 0"),
    ],
)
def test_wrong_settings_are_named(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "audio.toml"
    key = text.split(" = ")[0]
    good = {"rate": 8000, "window": 100, "hop": 64, "bands": 8, "low": 50, "high": 4000}
    rest = (
        [] if text.startswith("rate = ") and "1.5" not in text else [f"{k} = {v}" for k, v in good.items() if k != key]
    )
    file.write_text("\n".join([*rest, text]))
    with pytest.raises(UsageError, match=said):
        read_audio_settings(file)


def test_an_input_of_other_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"frames of 8 values do not fit the model's input \(5, 7, 1\); bands must be"):
        audio_plan(SMALL, Tensor("x", (5, 7, 1), Quantization(1.0, 0)))
    with pytest.raises(UsageError, match="no such file of audio settings"):
        read_audio_settings(tmp_path / "none.toml")
