"""benchmarks/optimizers.py on the example network and images made here. Only this needs PyTorch."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tinytrain_compiler.frontends.onnx.canonicalize import canonicalize
from tinytrain_compiler.frontends.onnx.file import load_model
from tinytrain_compiler.frontends.onnx.float_passes.runtime import new_session
from tinytrain_compiler.reference.steps import Running, step_length
from tinytrain_compiler.training.norms import BIAS_RATE_MULTIPLIER
from tinytrain_compiler.training.scheme import Scheme, TrainedLayer

ROOT = Path(__file__).resolve().parents[1]
BACKBONE = ROOT / "examples" / "backbone" / "backbone64.onnx"

pytestmark = pytest.mark.slow  # the default suite installs no PyTorch


@pytest.fixture(scope="module")
def benchmark() -> Iterator[SimpleNamespace]:
    """PyTorch and the benchmark's two modules."""
    torch = pytest.importorskip(
        "torch", reason="no PyTorch: pip install torch --index-url https://download.pytorch.org/whl/cpu"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield SimpleNamespace(torch=torch, **{n: import_module(n) for n in ("optimizers", "float_training")})


def test_the_float_network_computes_what_onnxruntime_does(benchmark: SimpleNamespace) -> None:
    proto = canonicalize(load_model(BACKBONE).proto)
    layers = [node for node in proto.graph.node if node.op_type == "Conv"]
    features = next(node.input[0] for node in proto.graph.node if node.op_type == "Gemm")
    scheme = Scheme({layers[-4].name: TrainedLayer(), layers[-3].name: TrainedLayer((0, 1, 2))})
    network = benchmark.float_training.Network(proto, features, scheme)
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)
    proto.graph.output.append(next(info for info in proto.graph.value_info if info.name == features))
    (expected,) = new_session(proto).run([features], {proto.graph.input[0].name: x})
    found = network.embed(network.frozen(benchmark.torch.tensor(x)), network.pretrained).numpy()
    np.testing.assert_allclose(found, expected.reshape(1, -1), atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "multiplier"), [((3, 1), 1), ((3,), BIAS_RATE_MULTIPLIER)], ids=["weights", "biases"]
)
def test_a_normalised_step_is_as_long_as_the_devices(
    benchmark: SimpleNamespace, shape: tuple[int, ...], multiplier: int
) -> None:
    torch = benchmark.torch
    pretrained, rng = np.float32([3, 0, -4]).reshape(shape), np.random.default_rng(1)
    weight, running = torch.tensor(pretrained, requires_grad=True), Running()
    optimizer = benchmark.float_training.Normalized([weight], lr=0.25)
    expected = pretrained.astype(np.float64)
    for gradient in rng.normal(size=(6, *shape)).astype(np.float32):
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        expected -= step_length(0.25, 1, np.float32(5 * multiplier), running.mean) * gradient
        running.update(np.float32((gradient**2).sum()))
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-5)


def test_the_command_tunes_compares_and_resumes(
    benchmark: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(3), 4)
    images = rng.integers(0, 256, (3, 1, 8, 8, 3)) * 3 // 4 + rng.integers(0, 64, (3, 4, 8, 8, 3))
    np.savez(tmp_path / "made.npz", images=images.reshape(12, 8, 8, 3).astype(np.uint8), labels=labels)
    rows = np.arange(12).reshape(3, 4).tolist()
    episode = {"classes": [0, 1, 2], "support": [row[:2] for row in rows], "query": [row[2:] for row in rows]}
    episodes = {"made": {"way": 3, "shot": 2, "episodes": [episode] * 3}}
    (tmp_path / "episodes.json").write_text(json.dumps(episodes))
    (tmp_path / "scheme.toml").write_text("depth = 2\n")
    command = ["optimizers.py", BACKBONE, tmp_path / "made.npz", "--episodes-file", tmp_path / "episodes.json"]
    command += ["--results", tmp_path / "results.json", "--scheme", tmp_path / "scheme.toml"]
    command += ["--episodes", "2", "--tuning-episodes", "1", "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    benchmark.optimizers.main()
    first = capsys.readouterr()
    benchmark.optimizers.main()
    again = capsys.readouterr()
    assert again.out == first.out
    assert "episode" in first.err
    assert "episode" not in again.err
    cells = [line.split(" | ") for line in first.out.splitlines() if line.startswith("| ")]
    assert [row[0] for row in cells[2:]] == [
        "| SGD",
        "| momentum 0.9",
        "| Adam",
        "| Adam, rate E / sqrt(N)",
        "| normalised",
    ]
