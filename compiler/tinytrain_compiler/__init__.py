"""TinyTrain: compile pretrained networks (.onnx, .tflite) into C for microcontrollers."""

from __future__ import annotations

from .version import __version__

TYPE_CHECKING = False  # typing takes long to import, and Ctrl-C is understood after this

__all__ = ["Artifacts", "CompileOptions", "__version__", "compile_model"]

if TYPE_CHECKING:
    from typing import Any

    from .compile import Artifacts, compile_model
    from .options import CompileOptions


def __getattr__(name: str) -> Any:
    """Import the pipeline on first use, so that ``tinytrain --help`` does not wait for numpy and onnx."""
    if name == "CompileOptions":
        from .options import CompileOptions

        return CompileOptions
    if name in ("Artifacts", "compile_model"):
        from . import compile as pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
