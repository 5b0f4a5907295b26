"""Fixtures of the whole suite: the command line in this process, one compiled network, the shared folder."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import pytest
from jsonschema import Draft202012Validator
from onnx_models import small_cnn
from tinytrain_compiler import Artifacts, cli, compile_model
from tinytrain_compiler.report.schema import Report, json_schema
from tinytrain_compiler.targets.host import HostModel


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Ran]


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """run_cli("tinytrain", "boards") -> exit code and everything that reached stdout and stderr, from C too."""

    def call(program: str, *arguments: str | Path) -> Ran:
        main = {"tinytrain": cli.main, "tinytrain-compile": cli.compile_main}[program]
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        capfd.readouterr()
        code, handler = 0, signal.getsignal(signal.SIGINT)
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
        finally:
            signal.signal(signal.SIGINT, handler)
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return call


@pytest.fixture(scope="session", autouse=True)
def _every_report_validates() -> Iterator[None]:
    """Whatever a test compiles, its report is what the schema says."""
    validator = Draft202012Validator(json_schema())
    original = Report.as_json

    def checked(self: Report) -> dict[str, Any]:
        report = original(self)
        validator.validate(report)
        return report

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Report, "as_json", checked)
        yield


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float ONNX file: a MobileNetV2 in little."""
    path = tmp_path_factory.mktemp("models") / "small.onnx"
    onnx.save(small_cnn(), path)
    return path


@pytest.fixture(scope="session")
def compiled_small(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """The small model compiled for stm32f746. Tests only read its folder."""
    return compile_model(small_model, "stm32f746", tmp_path_factory.mktemp("compiled") / "small", classes=4)


@pytest.fixture(scope="module")
def session(case: Any) -> Iterator[HostModel]:
    """The module's `case`, built for this machine."""
    with case.host() as host:
        yield host


@pytest.fixture
def host(session: HostModel) -> HostModel:
    """The same with factory weights: one build serves all tests of a module."""
    session.unlearn()
    return session


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and data that lies next to a developer's checkout; users don't have it."""
    folder = Path(__file__).parents[2] / "shared"
    if not (folder / "models").is_dir():
        reason = "needs the folder 'shared' with real models and data next to the checkout"
        if os.environ.get("CI") and not os.environ.get("TINYTRAIN_WITHOUT_DATA"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
