"""The generated C as a shared library on this machine, called through ctypes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codegen.render import render
from ..errors import TinyTrainError, ToolMissingError
from ..ops import Int8
from ..projects.description import WARNING_FLAGS, host_kernels, model_sources
from ..runtime_abi import ALIGNMENT, FROM_HEAD, status_name
from ..training.selectors import Selector
from .flash import SimulatedFlash

WARNINGS = (*WARNING_FLAGS, "-Werror")
HOST_KERNELS = ("-DTT_HOST_KERNELS",)
OPTIMISE = ("-O3", "-march=native", "-ffp-contract=off")
PROCESSES = 2  # compilers at a time
GUARD = 64  # bytes on both sides of each region
GUARD_BYTE = 0xA5


class Result(ctypes.Structure):
    """tt_result."""

    _fields_ = (
        ("label", ctypes.c_int32),
        ("score", ctypes.c_int32),
        ("source", ctypes.c_int),
        ("output", ctypes.POINTER(ctypes.c_int8)),
        ("features", ctypes.POINTER(ctypes.c_int8)),
    )


_SLOT = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, ctypes.POINTER(ctypes.c_int8), ctypes.c_uint32
)  # fmt: skip


class _Cache(ctypes.Structure):
    _fields_ = (("store", _SLOT), ("load", _SLOT), ("user", ctypes.c_void_p), ("copies", ctypes.c_uint32))


class _Options(ctypes.Structure):
    _fields_ = (
        ("epochs", ctypes.c_uint32), ("rate", ctypes.c_float), ("seed", ctypes.c_uint32),
        ("cache", ctypes.POINTER(_Cache)),
    )  # fmt: skip


class _SelectOptions(ctypes.Structure):
    _fields_ = tuple((n, ctypes.c_uint32) for n in ("selector", "samples", "seed", "pool_bytes", "macs"))


_GET = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int32, ctypes.POINTER(ctypes.c_int8),
    ctypes.POINTER(ctypes.c_int32),
)  # fmt: skip


class _Samples(ctypes.Structure):
    _fields_ = (("count", ctypes.c_uint32), ("get", _GET), ("user", ctypes.c_void_p))


class _ProgressAt(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("epoch", "epochs", "sample", "samples", "saturated", "error"))


_PROGRESS = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_ProgressAt))


@dataclass(frozen=True)
class Trained:
    """What a training run reported: mean of 1 - p[label] per epoch, and updates that saturated."""

    errors: tuple[float, ...]
    saturated: int


@dataclass(frozen=True)
class Inference:
    """What one call of <name>_infer returned."""

    label: int
    score: int  # cosine or probability, 15 fraction bits; of the network's own classes the output byte
    output: Int8
    features: Int8
    from_head: bool  # whether label counts enrolled classes, not the network's own


@dataclass(frozen=True)
class HostLayout:
    """Sizes in bytes, as the report states them."""

    name: str
    region_bytes: Sequence[int]
    input_bytes: int
    output_bytes: int
    features: int


class _Guarded:
    """Caller-owned memory with guard bytes around it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.raw = np.full(size + 2 * GUARD + ALIGNMENT, GUARD_BYTE, np.uint8)
        self.start = GUARD + -(self.raw.ctypes.data + GUARD) % ALIGNMENT
        self.address = self.raw.ctypes.data + self.start

    def intact(self) -> bool:
        outside = (self.raw[: self.start], self.raw[self.start + self.size :])
        return all(bool((part == GUARD_BYTE).all()) for part in outside)


class HostModel:
    """A session of the compiled model. Raises TinyTrainError if a call fails or writes outside its memory."""

    def __init__(self, directory: Path, layout: HostLayout, compiler: str = "cc") -> None:
        self._layout = layout
        self._build = tempfile.TemporaryDirectory(prefix="tinytrain-host-")
        library = build_library(directory, layout, Path(self._build.name), compiler)
        self._library = ctypes.CDLL(str(library))
        size = self._library.host_session_bytes
        self._library.host_state_bytes.restype = size.restype = ctypes.c_size_t
        self._session = _Guarded(size())
        self._regions = [_Guarded(n) for n in layout.region_bytes]
        count = len(self._regions)
        memory = (ctypes.c_void_p * count)(*(region.address for region in self._regions))
        sizes = (ctypes.c_size_t * count)(*(region.size for region in self._regions))
        self._check("init", self._library.host_init(ctypes.c_void_p(self._session.address), memory, sizes))

    @property
    def session_bytes(self) -> int:
        return self._session.size

    def infer(self, x: Int8) -> Inference:
        """x: int8, the input's bytes in memory order."""
        result = Result()
        self._call("infer", self._bytes(x), ctypes.byref(result))
        n = self._layout
        return Inference(
            result.label,
            result.score,
            np.ctypeslib.as_array(result.output, (n.output_bytes,)).copy(),
            np.ctypeslib.as_array(result.features, (n.features,)).copy(),
            result.source == FROM_HEAD,
        )

    def enroll(self, x: Int8, label: int) -> None:
        self._call("enroll", self._bytes(x), ctypes.c_int32(label))

    def forget(self) -> None:
        self._call("forget")

    def unlearn(self) -> None:
        self._call("unlearn")

    def select(
        self, sample: Callable[[int, int], Int8], labels: Sequence[int], selector: Selector | None = None,
        samples: int = 0, seed: int = 1, pool_bytes: int = 0, macs: int = 0,
    ) -> None:  # fmt: skip
        """Choose what learns; selector None: as compiled. Other arguments as in tt_select_options."""
        code = 0 if selector is None else selector.code
        options = _SelectOptions(code, samples, seed, pool_bytes, macs)
        self._call("select", ctypes.byref(options), ctypes.byref(self._samples(sample, labels)))

    def _samples(self, sample: Callable[[int, int], Int8], labels: Sequence[int]) -> _Samples:
        def get(user: int, index: int, epoch: int, target: Any, label: Any) -> int:
            if target:
                flat = np.ascontiguousarray(sample(index, epoch), np.int8).reshape(-1)
                ctypes.memmove(target, flat.ctypes.data, self._layout.input_bytes)
            label[0] = labels[index]
            return 0

        return _Samples(len(labels), _GET(get), None)

    def train(
        self, sample: Callable[[int, int], Int8], labels: Sequence[int], epochs: int, rate: float, seed: int = 1,
        copies: int = 0,
    ) -> Trained:  # fmt: skip
        """Learn a support set. sample(index, epoch): an input's bytes; epoch -1 asks for the clean one.

        copies: augmented copies of a sample whose features are kept, so that frozen layers run once; 0: none.
        """
        errors = [0.0] * epochs
        saturated = 0
        kept: dict[int, bytes] = {}

        def store(user: int, slot: int, features: Any, size: int) -> int:
            kept[slot] = ctypes.string_at(features, size)
            return 0

        def load(user: int, slot: int, features: Any, size: int) -> int:
            ctypes.memmove(features, kept[slot], size)
            return 0

        def progress(user: int, at: Any) -> int:
            nonlocal saturated
            errors[at[0].epoch], saturated = at[0].error / 2**15, at[0].saturated
            return 0

        cache = _Cache(_SLOT(store), _SLOT(load), None, copies)
        options = _Options(epochs, rate, seed, ctypes.pointer(cache) if copies else None)
        samples = self._samples(sample, labels)
        self._call("train", ctypes.byref(options), ctypes.byref(samples), _PROGRESS(progress), None)
        return Trained(tuple(errors), saturated)

    def training_state(self, report: Mapping[str, Any]) -> bytes:
        """The training state: the layers', the head's and the selection's. report: report.json's, of this model."""
        place = next(buffer for buffer in report["buffers"] if buffer["purpose"] == "training_state")
        size = report["training"]["training_state_bytes"]
        return self.region(place["region"])[place["offset"] : place["offset"] + size].tobytes()

    @property
    def state_bytes(self) -> int:
        """What a slot of storage needs."""
        return int(self._library.host_state_bytes())

    def save(self, flash: SimulatedFlash) -> None:
        self._call("save", ctypes.byref(flash.storage))
        flash.check()

    def load(self, flash: SimulatedFlash) -> None:
        self._call("load", ctypes.byref(flash.storage))
        flash.check()

    def region(self, index: int = 0) -> NDArray[np.uint8]:
        """A copy of a region's bytes, for tests."""
        guarded = self._regions[index]
        return guarded.raw[guarded.start : guarded.start + guarded.size].copy()

    def close(self) -> None:
        self._build.cleanup()

    def __enter__(self) -> HostModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _bytes(self, x: Int8) -> ctypes.c_void_p:
        flat: NDArray[np.int8] = np.ascontiguousarray(x, np.int8).reshape(-1)
        if flat.size != self._layout.input_bytes:
            raise ValueError(f"an input has {self._layout.input_bytes} bytes, not {flat.size}")
        self._held = flat  # keeps the memory alive during the call
        return ctypes.c_void_p(flat.ctypes.data)

    def _function(self, name: str) -> ctypes._NamedFuncPointer:
        return getattr(self._library, f"{self._layout.name}_{name}")  # type: ignore[no-any-return]

    def _call(self, name: str, *arguments: object) -> None:
        self._check(name, self._function(name)(ctypes.c_void_p(self._session.address), *arguments))

    def _check(self, name: str, status: int) -> None:
        if status != 0:
            raise TinyTrainError(f"{self._layout.name}_{name}() returned status {status}, {status_name(status)}")
        if not all(guarded.intact() for guarded in (self._session, *self._regions)):
            raise TinyTrainError(f"{self._layout.name}_{name}() wrote outside the memory it was given")


def build_library(
    directory: Path, layout: HostLayout, build: Path, compiler: str = "cc", flags: Sequence[str] = OPTIMISE
) -> Path:
    """Compile a model directory into a shared library, warnings as errors."""
    if shutil.which(compiler) is None:
        raise ToolMissingError(f"no C compiler '{compiler}' on PATH: install one, e.g. 'apt-get install gcc'")
    name, shim = layout.name, build / "shim.c"
    shim.write_text(render("host/shim.c.j2", name=name, regions=len(layout.region_bytes)))
    library = build / f"lib{name}.so"
    trains = (directory / f"{name}_train.c").exists()
    audio = (directory / f"{name}_audio.c").exists()
    own = [directory / source for source in (*model_sources(name, trains, audio), host_kernels(name))]
    sources = (*own, *sorted((directory / "runtime").glob("*.c")), shim)
    common = (
        compiler,
        "-std=c11",
        *WARNINGS,
        *HOST_KERNELS,
        *flags,
        "-fPIC",
        f"-I{directory}",
        f"-I{directory / 'runtime'}",
    )
    objects = [str(build / f"{i}.o") for i in range(len(sources))]
    with ThreadPoolExecutor(PROCESSES) as pool:
        list(pool.map(lambda s, o: _compile([*common, "-c", str(s), "-o", o]), sources, objects))
    _compile([*common, "-shared", *objects, "-o", str(library)])
    return library


def _compile(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TinyTrainError(f"the generated C did not compile:\n{done.stderr.strip()}")
