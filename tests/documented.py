"""Every command that the documentation shows, and the small stand-ins on which a test can run it."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx_models import ModelBuilder, small_cnn
from PIL import Image
from tflite_cases import file_of
from tinytrain_compiler import compile_model

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("tinytrain", "tinytrain-compile", "python", "make", "pytest", "pip")
NEED_ARGUMENTS = ("verify", "emulate", "stack", "evaluate", "compile")  # bare, these are mentioned, not shown


@dataclass(frozen=True)
class Shown:
    """A command as a page or a docstring shows it."""

    where: str  # file:line
    text: str

    @property
    def words(self) -> list[str]:
        """Brackets of optional parts taken off: what is optional is run too."""
        return shlex.split(re.sub(r"[\[\]]", " ", self.text))


def shown() -> list[Shown]:
    """In README and docs: shell blocks and code spans. In docstrings of scripts: indented lines that begin so."""
    found = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        found += list(_in_page(path))
    for folder in ("benchmarks", "examples", "scripts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            found += list(_in_docstring(path))
    return [command for command in found if _is_command(command.words)]


def _in_page(path: Path) -> Iterator[Shown]:
    block: str | None = None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        where = f"{path.relative_to(ROOT)}:{number}"
        if line.lstrip().startswith("```"):
            block = line.strip("` ") if block is None else None
        elif block is None:
            yield from (Shown(where, span) for span in re.findall(r"`([^`]+)`", line) if _begins(span))
        elif block in ("sh", "") and _begins(line):
            yield Shown(where, re.sub(r"\s+#.*", "", line))


def _in_docstring(path: Path) -> Iterator[Shown]:
    text = ast.get_docstring(ast.parse(path.read_text()), clean=False) or ""
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if line.startswith("    ") and _begins(line.strip()):
            more = lines[number].strip() if number < len(lines) and lines[number].startswith("        ") else ""
            yield Shown(f"{path.relative_to(ROOT)}:{number}", f"{re.split(r'  +', line.strip())[0]} {more}".strip())


def _begins(text: str) -> bool:
    return text.split(" ")[0] in PROGRAMS


def _is_command(words: list[str]) -> bool:
    """`tinytrain` and `tinytrain verify` in running text name a program; `tinytrain verify DIR` shows a command."""
    if len(words) == 1:
        return words[0] not in ("tinytrain-compile", "tinytrain", "python", "make", "pip")
    return not (words[0] == "tinytrain" and len(words) == 2 and words[1] in NEED_ARGUMENTS)


# --- Stand-ins -----------------------------------------------------------------------------------------


def deep_cnn() -> onnx.ModelProto:
    """As many convolutions as MCUNet's published scheme numbers, each of 32 channels on 4x4 pixels."""
    b = ModelBuilder((1, 3, 4, 4))
    x = b.conv(b.input, 3, 32, 1)
    for _ in range(33):
        x = b.node("Relu", b.conv(x, 32, 32, 1))
    return b.build(b.gemm(b.node("Flatten", b.node("GlobalAveragePool", x)), 32, 10))


def write_stand_ins(folder: Path) -> None:
    """Everything that documented commands name, little: in `folder`, from which they run."""
    onnx.save(small_cnn(), folder / "model.onnx")
    (folder / "model.tflite").write_bytes(file_of("network", "int8"))
    models, data = folder / "MODELS", folder / "DATA"
    models.mkdir()
    data.mkdir()
    for size in (96, 128):
        onnx.save(deep_cnn(), models / f"mcunet_5fps_{size}.onnx")
    rng = np.random.default_rng(0)
    names = ("omniglot", "cifar10", "gtsrb", "dtd10", "fashion_mnist", "tinyimagenet64", "imagenet_check250")
    for name in (*names, "pack"):
        labels = np.repeat(np.arange(5 if name == "pack" else 20), 30)  # as many classes as DIR's network has outputs
        images = rng.integers(0, 256, (len(labels), 12, 12, 3), np.uint8)
        np.savez(data / f"{name}.npz", images=images, labels=labels, speaker=np.arange(len(labels)) % 3)
    rows = np.arange(600).reshape(20, 30)
    episode = {"classes": list(range(5)), "support": rows[:5, :2].tolist(), "query": rows[:5, 2:4].tolist()}
    entry = {"way": 5, "shot": 2, "episodes": [episode] * 2}
    (data / "episodes.json").write_text(json.dumps(dict.fromkeys((*names, "pack"), entry)))
    (folder / "images").mkdir()
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(folder / "images" / f"{i}.png")
    ear = ModelBuilder((1, 1, 49, 10))
    x = ear.conv(ear.node("Relu", ear.conv(ear.input, 1, 8, strides=[4, 4])), 8, 16, 1)
    x = ear.node("Flatten", ear.node("GlobalAveragePool", ear.node("Relu", x)))
    onnx.save(ear.build(ear.gemm(x, 16, 12)), folder / "dscnn.onnx")
    (folder / "mfcc.toml").write_text((ROOT / "examples" / "keywords" / "mfcc.toml").read_text())
    mfcc = rng.standard_normal((120, 49, 10)).astype(np.float32)
    speaker, labels = np.arange(120) // 60, np.arange(120) % 12
    np.savez(data / "words.npz", mfcc=mfcc, labels=labels, speaker=speaker)
    subject, labels = np.arange(120) // 60, np.arange(120) % 6
    signals = rng.standard_normal((120, 9, 128)).astype(np.float32)
    np.savez(data / "moves.npz", signals=signals, labels=labels, subject=subject)
    (folder / "NETWORKS").mkdir()
    moves = ModelBuilder((1, 9, 1, 128))
    x = moves.node(
        "Flatten", moves.node("GlobalAveragePool", moves.node("Relu", moves.conv(moves.input, 9, 8, (1, 5))))
    )
    network = moves.build(moves.gemm(x, 8, 6))
    for person in (0, 1):
        onnx.save(network, folder / "NETWORKS" / f"{person}.onnx")
    (folder / "ZOO").mkdir()  # where a network is exported already, PyTorch is not needed
    onnx.save(small_cnn(), folder / "ZOO" / "conv_autoencoder.torchscript.onnx")
    np.save(folder / "ZOO" / "conv_autoencoder.npy", rng.standard_normal((40, 3, 12, 12)).astype(np.float32))
    board = (ROOT / "boards" / "stm32f746.toml").read_text()
    (folder / "myboard.toml").write_text(board.replace('name = "stm32f746"', 'name = "myboard"', 1))
    (folder / "scheme.toml").write_text("depth = 2\n[fractions]\n2 = 0.5\n")
    compile_model(folder / "model.onnx", "stm32f746", folder / "DIR", classes=5, policy="bias", name="net")
    compile_model(folder / "dscnn.onnx", "stm32f746", folder / "EAR", calibration=data / "words.npz", policy="bias")
