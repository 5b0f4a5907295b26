"""ONNX's own tests of some operators; benchmarks/node_tests.py runs all of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx_node_tests
import pytest
from onnx_node_tests import RIGHT, WRONG, cases, operator_of, outcomes

# Modules of onnx.backend.test.case.node: their operator, and how many of its tests are right at least.
MODULES = {
    "averagepool": ("AveragePool", 10), "batch_normalization": ("BatchNormalization", 2), "conv": ("Conv", 6),
    "flatten": ("Flatten", 3), "gemm": ("Gemm", 9), "maxpool": ("MaxPool", 8), "reshape": ("Reshape", 9),
    "softmax": ("Softmax", 2),
}  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_no_answer_is_wrong(module: str, tmp_path: Path) -> None:
    op, least = MODULES[module]
    found = [each for case in cases([module]) if operator_of(case) == op for each in outcomes(case, tmp_path)]
    assert [each for each in found if each.verdict == WRONG] == []
    assert Counter(each.verdict for each in found)[RIGHT] >= least


def test_a_wrong_answer_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One value of the output two steps off."""
    original = onnx_node_tests.run

    def off(graph, x):  # type: ignore[no-untyped-def]
        y, features = original(graph, x)
        y = y.copy()
        y.flat[-1] += -2 if y.flat[-1] > 0 else 2
        return y, features

    case = next(case for case in cases(["maxpool"]) if case.name == "test_maxpool_2d_default")
    assert [each.verdict for each in outcomes(case, tmp_path)] == [RIGHT]
    monkeypatch.setattr(onnx_node_tests, "run", off)
    assert [each.verdict for each in outcomes(case, tmp_path)] == [WRONG]
