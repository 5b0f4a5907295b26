"""The whole pipeline on one page: a model file in, a folder of C out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .audio import audio_plan, read_audio_settings
from .boards import Board, load_board
from .codegen.emit import ModelInfo
from .compiled import BOARD_FILE, model_files
from .errors import UsageError
from .fit.outline import check_outline
from .fit.policy_fit import plan_that_fits
from .fit.storage import check_storage, require_slots
from .frontends import Description, ImportedModel, describe, read
from .graph import Graph
from .lowering import emit, lower
from .memory import MemoryPlan
from .model_name import model_name
from .options import CompileOptions, compile_options
from .oracle import Oracle, check_agreement
from .output_folder import MANIFEST, check_output, json_bytes, manifest_of, write_files
from .passes import run_passes
from .provenance import Input, Provenance, board_input, kept_files, option_files
from .quantize.calibration import Calibration, CalibrationData
from .quantize.input_bytes import pixel_map, quantize_samples
from .quantize.normalization import normalization
from .report.build import build_report
from .training.formats import formats as formats_of
from .training.options import LearningOptions, learning_options
from .training.trainable import scheme_of

CALIBRATION_SAMPLES = 256
TEST_INPUTS = 24
COMPARED_INPUTS = 4  # with the oracle, operator by operator
MAX_FEATURES = 16384  # the head's 64-bit sums hold this many

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Artifacts:
    """What a compile made. `directory` is None where nothing was asked to be written."""

    directory: Path | None
    name: str
    board: Board
    graph: Graph
    plan: MemoryPlan
    report: dict[str, Any]  # report.json; report/schema.py says what each key means
    files: dict[str, bytes]  # every emitted file, by path relative to the directory
    notes: tuple[str, ...]  # what was taken otherwise than it was given, for the user to know


def compile_model(
    model: str | Path,
    board: str | Path,
    output: str | Path | None = None,
    options: CompileOptions | None = None,
    *,
    progress: Progress = lambda stage: None,
    observe: Callable[[str, Graph], None] = lambda name, graph: None,
    **given: Any,
) -> Artifacts:
    """Compile a model file for a board and, if `output` is given, write the folder.

    board: a name, or a board file. options: all that shapes the output (options.py); instead of a record, the options
    may be given as keywords by the names they have on the command line, such as policy="bias" or classes=5.
    progress is told each stage as it begins, observe the graph after the import and after each pass.

    Errors: UsageError, UnsupportedModelError (exit code 2), DoesNotFitError (3). Nothing is written
    unless everything succeeds.
    """
    if options is not None and given:
        raise TypeError(f"give options as a record or as keywords ({', '.join(given)}), not both")
    options = compile_options(given) if options is None else options
    path, target = Path(model), load_board(board)
    prefix = model_name(path, options.name)
    learning = _learning(options, target)
    settings = None if options.audio is None else read_audio_settings(options.audio)
    if output is not None:
        check_output(Path(output))

    said = describe(path)
    options, notes = _normalized(options, said)
    data = CalibrationData(options.calibration, options.mean, options.std, CALIBRATION_SAMPLES, settings)
    imported = read(path, data, progress, lambda layers: check_outline(layers, target, options.sram_bytes))
    observe("import", imported.graph)
    graph = run_passes(imported.graph, observe)
    test_inputs = _test_inputs(imported.samples, graph)
    _check_graph(path, graph, imported.oracle, test_inputs, progress)

    progress("planning memory")
    graph = options.policy.prepare(graph)
    audio = None if settings is None else audio_plan(settings, graph.tensors[graph.input])
    scheme = scheme_of(options.policy, graph, options.head)
    lowered, inference = plan_that_fits(
        options.policy.name, scheme, learning,
        lambda smaller, by: lower(
            graph, target, prefix, options.classes, smaller, options.sram_bytes, by, options.storage, audio
        ),
    )  # fmt: skip
    require_slots(options.storage, lowered.slots, target.name)

    progress("generating C")
    model_file, board_file = Input(path.name, imported.sha256), board_input(target, BOARD_FILE)
    origin = Provenance(model_file, board_file, options, option_files(options))
    report = build_report(
        lowered, inference.plan, name=prefix, source=model_file, calibration=imported.samples,
        top1_agreement=imported.top1_agreement, policy=options.policy.name, labels=said.labels,
    ).as_json()  # fmt: skip
    is_image = not imported.samples.are_floats and audio is None
    pixels = None if not is_image else pixel_map(graph.tensors[graph.input], options.mean, options.std)
    info = ModelInfo(prefix, origin.inputs, origin.command, options.classes, pixels, options.head.name)
    files = {name: text.encode() for name, text in emit(lowered, info).items()}
    files["report.json"] = json_bytes(report)
    files |= model_files(prefix, graph, target, imported.oracle, test_inputs)
    files |= kept_files(options)
    files[MANIFEST] = manifest_of(files, prefix, origin.as_json())
    directory = None
    if output is not None:
        progress("writing files")
        directory = Path(output)
        write_files(directory, files)
    return Artifacts(
        directory, prefix, target, graph, lowered.plan, report, files, (*notes, *_notes(imported, options))
    )


def _learning(options: CompileOptions, board: Board) -> LearningOptions:
    """How the model trains; UsageError, before the long part, for what the board or the compiler does not know."""
    formats = formats_of(options.gradients, options.rounding)
    formats.gradients.check(board)
    check_storage(options.storage)
    if options.sram_bytes is not None and options.sram_bytes > board.ram_bytes:
        raise UsageError(f"--sram {options.sram}: {board.name} has {board.ram_bytes // 1024} KiB; give at most that")
    return learning_options(options.policy, options.head, formats)


def _normalized(options: CompileOptions, said: Description) -> tuple[CompileOptions, tuple[str, ...]]:
    """The options with the normalisation of a model file that says one, and notes for the user."""
    if said.normalization is None:  # the options as the command and the manifest have them
        return replace(options, own_normalization=False), said.notes
    resolved = options.normalized_as(*said.normalization)
    if (resolved.mean, resolved.std) == (options.mean, options.std):
        return resolved, said.notes
    given = resolved.given()
    note = f"--mean {given['mean']} --std {given['std']} are taken from the file's metadata"
    return resolved, (*said.notes, note)


def _check_graph(
    path: Path, graph: Graph, oracle: Oracle | None, test_inputs: NDArray[np.int8], progress: Progress
) -> None:
    """What is wrong in a graph that was imported: it is empty, disagrees with its oracle, or its embedding is large."""
    if not graph.nodes:
        raise UsageError(f"{path}: nothing is computed between its input and its output; give it a layer")
    if oracle is not None:
        progress(f"checking the graph against {oracle.name}")
        check_agreement(graph, oracle, test_inputs[:COMPARED_INPUTS])
    if graph.tensors[graph.features].bytes > MAX_FEATURES:
        raise UsageError(f"{path}: its embedding has more than {MAX_FEATURES} values; end the network in a pool")


def _notes(imported: ImportedModel, options: CompileOptions) -> tuple[str, ...]:
    note = normalization(options.mean, options.std).note
    return imported.notes if note is None or imported.samples.are_floats else (*imported.notes, note)


def _test_inputs(samples: Calibration, graph: Graph) -> NDArray[np.int8]:
    """Evenly spaced calibration samples as input bytes (n, bytes), for verify and emulate."""
    n = len(samples.samples)
    chosen = np.linspace(0, n - 1, min(TEST_INPUTS, n)).astype(int)
    return quantize_samples(samples.samples[chosen], graph.tensors[graph.input], graph.sample_layout)
