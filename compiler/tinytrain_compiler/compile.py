"""The whole pipeline on one page: a model file in, a folder of C out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .boards import Board, load_board
from .codegen.emit import ModelInfo
from .compiled import model_files
from .errors import UsageError
from .fit.outline import check_outline
from .fit.policy_fit import plan_that_fits
from .fit.storage import AUTO, check_storage, require_slots
from .frontends import read
from .graph import Graph
from .lowering import DEFAULT_CLASSES, emit, lower
from .memory import MemoryPlan
from .oracle import check_agreement
from .output_folder import check_output, json_bytes, manifest_of, write_files
from .passes import run_passes
from .quantize.calibration import Calibration, CalibrationData
from .quantize.input_bytes import pixel_map, quantize_samples
from .quantize.normalization import normalization
from .report.build import build_report
from .training.formats import formats as formats_of
from .training.heads import PROTOTYPE, head_kind
from .training.options import learning_options
from .training.policies import make_policy
from .training.policy import Policy
from .training.trainable import scheme_of

DEFAULT_MEAN = DEFAULT_STD = (127.5,)
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
    *,
    calibration: str | Path | None = None,
    mean: Sequence[float] = DEFAULT_MEAN,
    std: Sequence[float] = DEFAULT_STD,
    name: str | None = None,
    classes: int = DEFAULT_CLASSES,
    policy: str | Policy = "none",
    scheme: str | Path | None = None,
    pool: int | None = None,
    selection: str | None = None,
    macs: int | None = None,
    sram: int | None = None,
    head: str = "prototype",
    gradients: str = "int16",
    rounding: str = "nearest",
    storage: str = AUTO,
    progress: Progress = lambda stage: None,
    observe: Callable[[str, Graph], None] = lambda name, graph: None,
) -> Artifacts:
    """Compile an ONNX file for a board and, if `output` is given, write the folder.

    model: float or QDQ ONNX. calibration: an .npz/.npy or a folder of pictures, None for generated
    noise. mean, std: how raw pixels become inputs, one number or one per channel. classes: room for
    few-shot classes. policy: what trains on the device, or its name (training/policies.py); scheme, pool (KiB),
    selection, macs: its options, where it is a name. sram: KiB that arena, session and stack may take, where the
    application needs the rest of the board's; None for all of it. head: what classifies
    (training/heads.py). gradients, rounding: training/formats.py. storage: where saved states go
    (fit/storage.py). progress is told each stage as it begins, observe the graph after the import and after each pass.

    Errors: UsageError, UnsupportedModelError (exit code 2), DoesNotFitError (3). Nothing is written
    unless everything succeeds.
    """
    target = load_board(board)
    formats = formats_of(gradients, rounding)
    formats.gradients.check(target)  # before the long part
    path = Path(model)
    prefix = _prefix(path.stem if name is None else name, explicit=name is not None)
    kind = head_kind(head)
    if classes < 1:
        raise UsageError(f"--classes {classes}: at least one class is needed")
    check_storage(storage)
    chosen = policy
    if isinstance(chosen, str):
        chosen = make_policy(chosen, {"scheme": scheme, "pool": pool, "selection": selection, "macs": macs})
    by = learning_options(chosen, kind, formats)
    if sram is not None and not 0 < 1024 * sram <= target.ram_bytes:
        raise UsageError(f"--sram {sram}: {target.name} has {target.ram_bytes // 1024} KiB; give at most that")
    if output is not None:
        check_output(Path(output))

    data = CalibrationData(None if calibration is None else Path(calibration), mean, std, CALIBRATION_SAMPLES)
    limit = None if sram is None else 1024 * sram
    imported = read(path, data, progress, lambda layers: check_outline(layers, target, limit))
    observe("import", imported.graph)
    graph = run_passes(imported.graph, observe)
    test_inputs = _test_inputs(imported.samples, graph)
    if imported.oracle is not None:
        progress(f"checking the graph against {imported.oracle.name}")
        check_agreement(graph, imported.oracle, test_inputs[:COMPARED_INPUTS])
    if graph.tensors[graph.features].bytes > MAX_FEATURES:
        raise UsageError(f"{path}: its embedding has more than {MAX_FEATURES} values; end the network in a pool")

    progress("planning memory")
    graph = chosen.prepare(graph)
    learning = scheme_of(chosen, graph, kind)
    lowered, inference = plan_that_fits(
        chosen.name, learning, lambda smaller: lower(graph, target, prefix, classes, smaller, limit, by, storage)
    )

    require_slots(storage, lowered.slots, target.name)

    progress("generating C")
    report = build_report(
        graph=graph, plan=lowered.plan, kernels=lowered.kernels, board=target, sram=lowered.sram, flash=lowered.flash,
        name=prefix, source=path.name, sha256=imported.sha256, calibration=imported.samples,
        top1_agreement=imported.top1_agreement, classes=classes, policy=chosen.name, head=head,
        training=lowered.training, inference=inference.plan, slots=lowered.slots,
    ).as_json()  # fmt: skip
    pixels = None if imported.samples.are_floats else pixel_map(graph.tensors[graph.input], mean, std)
    options = f" --board {target.name} --classes {classes} --mean {_numbers(mean)} --std {_numbers(std)}"
    if chosen.trains_layers:
        options += f" {shlex.join(chosen.words())}{formats.options}"
    if kind != PROTOTYPE:
        options += f" --head {head}"
    if sram is not None:
        options += f" --sram {sram}"
    if storage != AUTO:
        options += f" --storage {storage}"
    sources = emit(lowered, ModelInfo(prefix, imported.sha256, options, classes, pixels, head))
    files = {name: text.encode() for name, text in sources.items()}
    files["report.json"] = json_bytes(report)
    files |= model_files(prefix, graph, target, imported.oracle, test_inputs)
    files["manifest.json"] = manifest_of(files, prefix, target, imported.sha256, options)
    note = normalization(mean, std).note
    notes = imported.notes if note is None or imported.samples.are_floats else (*imported.notes, note)
    directory = None
    if output is not None:
        progress("writing files")
        directory = Path(output)
        write_files(directory, files)
    return Artifacts(directory, prefix, target, graph, lowered.plan, report, files, notes)


def default_name(model: str | Path) -> str:
    """The prefix, and folder, of a model that was given no name."""
    return _prefix(Path(model).stem, explicit=False)


# Words that C, C++ or CMake keep for themselves, and headers that <name>.h would hide: a model's name becomes a
# function, a header and a CMake target.
_RESERVED = frozenset(
    """
    auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while bool class
    delete new operator private protected public template this throw try using virtual namespace
    all clean test install help package edit_cache rebuild_cache main run model m tinytrain tt
    assert complex ctype errno fenv inttypes iso646 limits locale math setjmp signal stdalign stdarg stdatomic stdbool
    stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype
    startup uart text harness semihosting
    """.split()  # noqa: SIM905
)


def _prefix(name: str, *, explicit: bool) -> str:
    """A C identifier: an explicit name must be one, a file's name is made one."""
    if explicit:
        lower = name.lower()
        if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or lower.startswith("tt_") or lower in _RESERVED:
            raise UsageError(
                f"--name {name!r}: use letters, digits and _, beginning with a letter; not tt_... and no word that "
                f"C or CMake reserves. For example: --name mynet"
            )
        return name
    prefix = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower() or "model"
    return f"net_{prefix}" if not prefix[0].isalpha() or prefix in _RESERVED or prefix.startswith("tt_") else prefix


def _test_inputs(samples: Calibration, graph: Graph) -> NDArray[np.int8]:
    """Evenly spaced calibration samples as input bytes (n, bytes), for verify and emulate."""
    n = len(samples.samples)
    chosen = np.linspace(0, n - 1, min(TEST_INPUTS, n)).astype(int)
    return quantize_samples(samples.samples[chosen], graph.tensors[graph.input])


def _numbers(values: Sequence[float]) -> str:
    return ",".join(f"{v:g}" for v in values)
