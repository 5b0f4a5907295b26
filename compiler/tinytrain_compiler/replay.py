"""A compiled folder made again, byte for byte, from its manifest and the files that went in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .compile import Artifacts, compile_model
from .compiled import BOARD_FILE
from .errors import UsageError
from .graph import Graph
from .model_name import model_name
from .options import CompileOptions, compile_options
from .output_folder import MANIFEST, check_output, write_files
from .provenance import OPTION_FILES, Input
from .quantize.calibration import data_digest


@dataclass(frozen=True)
class Replayed:
    """What was made again, and what of it is not as it was: another compiler or other packages made the folder."""

    artifacts: Artifacts
    different: list[str]  # files
    made_by: str  # compiler and packages of the folder


def replay(
    folder: Path,
    model: Path,
    output: Path | None,
    calibration: Path | None,
    progress: Callable[[str], None] = lambda stage: None,
    observe: Callable[[str, Graph], None] = lambda name, graph: None,
) -> Replayed:
    """Compile a model as `folder` was compiled. output: None for the model's own prefix. calibration: the data, where
    the folder was calibrated on some.

    Errors: UsageError for a folder without manifest, and for a model or data that are not the folder's.
    """
    manifest = _manifest(folder)
    options = _options(folder, manifest["options"], calibration)
    _same("model", Input(model.name, manifest["model"]["sha256"]), manifest["model"], folder)
    target = output or Path(model_name(model, options.name))
    check_output(target)
    artifacts = compile_model(model, folder / BOARD_FILE, None, options, progress=progress, observe=observe)
    _same("model", Input(model.name, artifacts.report["model"]["sha256"]), manifest["model"], folder)
    before = {path: entry["sha256"] for path, entry in manifest["files"].items()}
    after = {path: hashlib.sha256(data).hexdigest() for path, data in artifacts.files.items() if path != MANIFEST}
    different = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    progress("writing files")
    write_files(target, artifacts.files)
    versions = {manifest["tool"]["name"]: manifest["tool"]["version"]} | manifest["packages"]
    made_by = ", ".join(f"{name} {version}" for name, version in versions.items())
    return Replayed(replace(artifacts, directory=target), different, made_by)


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        _ = manifest["model"]["sha256"], manifest["options"]["mean"], manifest["packages"], manifest["tool"]["version"]
    except FileNotFoundError:
        raise UsageError(f"{folder}: no {MANIFEST}; give --replay the folder that tinytrain-compile -o wrote") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder / MANIFEST}: cannot be replayed ({error}); compile the model again") from error
    return manifest


def _options(folder: Path, recorded: dict[str, Any], calibration: Path | None) -> CompileOptions:
    files: dict[str, Path | None] = {
        name: folder / path for name, path in OPTION_FILES.items() if recorded.get(name) is not None
    }
    data = recorded["calibration"]
    if (data is None) != (calibration is None):
        raise UsageError(
            f"--replay: {folder} was calibrated on generated noise; leave --calibration out" if data is None
            else f"--replay: {folder} was calibrated on {data['file']}; give it with --calibration"
        )  # fmt: skip
    if calibration is not None:
        if not calibration.exists():
            raise UsageError(f"calibration data {calibration} does not exist; pass the data of {folder}")
        _same("calibration", Input(calibration.name, data_digest(calibration)), data, folder)
    return compile_options(recorded | files | {"calibration": calibration})


def _same(what: str, found: Input, wanted: dict[str, str], folder: Path) -> None:
    """UsageError where a file is not the one that went into the folder: names go into the output too."""
    if found.name != wanted["file"]:
        raise UsageError(
            f"--replay: {folder} was made from {wanted['file']}, not {found.name}; names go into the output"
        )
    if found.sha256 != wanted["sha256"]:
        raise UsageError(
            f"--replay: this {found.name} is not the {what} that {folder} was made from (SHA-256 {found.sha256}, "
            f"not {wanted['sha256']})"
        )
