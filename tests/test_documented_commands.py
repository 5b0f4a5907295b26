"""Every command that README, docs and docstrings show is run, on small input, or is what CI itself runs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import documented
import pytest
from conftest import Cli
from documented import ROOT, Shown, shown
from tools import require_or_skip

COMMANDS = shown()
TINYTRAIN = [c for c in COMMANDS if c.words[0].startswith("tinytrain")]
SCRIPTS = [c for c in COMMANDS if c.words[0] == "python"]

# What stands for the words of a command of ours: (word, or what its option takes) -> a stand-in.
FILES = {
    "model.onnx": "model.onnx", "MODEL.onnx": "model.onnx", "MODEL": "model.onnx",
    "model.tflite": "model.tflite",
    "mynet": "DIR", "DIR": "DIR", "ear": "EAR", "images/": "images", "PACK.npz": "DATA/pack.npz",
    "pack.npz": "DATA/pack.npz", "FILE.npz": "DATA/pack.npz", "FILE.json": "DATA/episodes.json",
    "my_board.toml": "myboard.toml", "myboard.toml": "myboard.toml", "scheme.toml": "scheme.toml",
    "dscnn.onnx": "dscnn.onnx", "mfcc.toml": "mfcc.toml", "words.npz": "DATA/words.npz", "moves.npz": "DATA/moves.npz",
    "FILE": "scheme.toml", "FILE.toml": "scheme.toml", "R": "0.01", "N": "1", "KIB": "4",
}  # fmt: skip
SMALLER = {  # of a subcommand: options that come last, and win
    "evaluate": ["--count", "1", "--epochs", "1", "--way", "3", "--shot", "2", "--queries", "2", "--no-emulation"],
    "verify": ["--inputs", "2"],
    "emulate": ["--inputs", "1"],
    "compile": ["-o", "out"],
}
# Scripts with all options that their docstrings show, in little.
RECIPES = {
    "benchmarks/accuracy.py": "MODELS DATA --results results.json --policies none --backbones mcunet_5fps_128 "
    "--packs cifar10 --episodes 1",
    "benchmarks/architectures.py": "conv_autoencoder --exporter torchscript --count --markdown table.md -o ZOO",
    "benchmarks/audio.py": "mfcc.toml",
    "benchmarks/kernels.py": "fully",
    "benchmarks/networks.py": "MODELS DATA mcunet_5fps_96 --cores",
    "benchmarks/node_tests.py": "Relu --all --show refused",
    "benchmarks/personalisation.py": "DIR --samples 2 --epochs 1 --copies 1 --support 5 --whole 2",
    "benchmarks/power_cuts.py": "--cycles 2 --program-bytes 32 --policy none --compiler cc",
    "benchmarks/quantizers.py": "--only Contrib --samples 4",
    "benchmarks/training.py": "DIR --samples 2 --epochs 2 --profile",
    "benchmarks/training_memory.py": "MODELS DATA/cifar10.npz mcunet --pool 8 --limit 160",
    "examples/activity/leave_one_out.py": "DATA/moves.npz NETWORKS --policies none --shot 1 --queries 2 --epochs 1",
    "examples/activity/synthetic.py": "made.npz",
    "scripts/house.py": "",
    "scripts/reference.py": "--check",
}
NEED_TORCH = (
    "benchmarks/optimizers.py",
    "examples/backbone/train.py",
    "examples/activity/train.py",
)  # tests/test_optimizer_benchmark.py, and below
NEED_LITERT = ("benchmarks/tflite.py",)  # tests/test_tflite.py


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documented")
    documented.write_stand_ins(folder)
    return folder


def argv_of(command: Shown) -> list[str]:
    """The command's words with stand-ins in place of names, and options that make it small."""
    words = command.words
    if words[0] == "tinytrain-compile":
        words = ["tinytrain", "compile", *words[1:]]
    if "..." in words:
        base = {"evaluate": ["DIR", "--pack", "pack.npz"], "compile": ["model.onnx", "--board", "stm32f746"]}[words[1]]
        words[words.index("...") : words.index("...") + 1] = base
    arguments = [FILES.get(word, word) for word in words[2:]]
    needed = {"compile": ["model.onnx", "--board", "stm32f746"], "evaluate": ["DIR", "--pack", "DATA/pack.npz"]}
    if words[1] in needed and not any(
        word.endswith((".onnx", ".tflite")) or word in ("DIR", "EAR") for word in arguments
    ):
        arguments = [*needed[words[1]], *arguments]  # a code span that shows options alone
    help_only = bool({"-h", "--help"} & set(arguments))
    return [words[1], *arguments, *([] if help_only else SMALLER.get(words[1], []))]


DISTINCT = sorted({tuple(argv_of(command)) for command in TINYTRAIN})


@pytest.mark.parametrize("argv", DISTINCT, ids=" ".join)
def test_commands_of_ours_run(
    argv: tuple[str, ...], stand_ins: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_or_skip("cc", "arm-none-eabi-gcc", "qemu-system-arm")
    monkeypatch.chdir(stand_ins)
    ran = run_cli("tinytrain", *argv)
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("script", RECIPES)
def test_scripts_run(script: str, stand_ins: Path) -> None:
    require_or_skip("cc", "arm-none-eabi-gcc", "qemu-system-arm")
    command = [sys.executable, str(ROOT / script), *RECIPES[script].split()]
    ran = subprocess.run(command, cwd=stand_ins, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("command", SCRIPTS, ids=lambda c: f"{c.where} {c.text}")
def test_scripts_are_run_with_every_option_that_is_shown(command: Shown) -> None:
    script = command.words[1]
    if script in (*NEED_TORCH, *NEED_LITERT):
        return
    assert script in RECIPES, "give it a recipe"
    options = {word for word in command.words if word.startswith("--")}
    recipe = set(RECIPES[script].split())
    assert options <= recipe, "the recipe leaves options out that this shows"


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.words[0] == "make"], ids=lambda c: f"{c.where} {c.text}")
def test_make_targets_exist(command: Shown) -> None:
    """`make demo` and `make test` are what .ci/run runs, in a fresh root."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(command.words[1:]) <= set(targets)
    assert "scripts/fresh" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c.words[0] in ("pip", "pytest")], ids=lambda c: f"{c.where} {c.text}"
)
def test_packages_and_tests_that_are_named_exist(command: Shown) -> None:
    if command.words[0] == "pytest":
        assert all((ROOT / word).exists() for word in command.words if word.endswith(".py"))
        return
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert all(name in extras for word in command.words for name in re.findall(r"\.\[(.+)\]", word))


def test_commands_are_found() -> None:
    """The tests above are worth what they find."""
    texts = [command.text for command in COMMANDS]
    assert "tinytrain verify mynet" in texts
    assert "make demo" in texts
    assert any(text.startswith("python benchmarks/training.py DIR") and "--profile" in text for text in texts)


@pytest.mark.slow
def test_backbone_example_trains(tmp_path: Path) -> None:
    """examples/backbone/train.py PACK.npz -o FILE."""
    pytest.importorskip("torch", reason="needs PyTorch: pip install '.[train]'")
    import io

    import numpy as np
    from PIL import Image

    files = []
    for i in range(64):
        stream = io.BytesIO()
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(stream, "JPEG")
        files.append(np.frombuffer(stream.getvalue(), np.uint8))
    offsets = np.cumsum([0, *map(len, files)])
    pack = tmp_path / "pack.npz"
    np.savez(pack, jpeg=np.concatenate(files), offsets=offsets, labels=np.arange(64) % 4)
    command = [sys.executable, str(ROOT / "examples/backbone/train.py"), str(pack), "-o", str(tmp_path / "net.onnx")]
    subprocess.run([*command, "--epochs", "1", "--batch", "16"], check=True)
    assert (tmp_path / "net.onnx").stat().st_size > 100_000
