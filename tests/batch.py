"""Many small models in one shared library: a compiler call a model would make the operator tests slow."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from graphs import describe, random_inputs, write_model
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from numpy.typing import NDArray
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.memory import MemoryPlan
from tinytrain_compiler.reference import run
from tinytrain_compiler.targets.host import OPTIMISE, WARNINGS, model_sources

GUARD = 64
JUNK = 0x5A
PROCESSES = 2

Example = TypeVar("Example")


class Result(ctypes.Structure):
    """tt_result."""

    _fields_ = (
        ("label", ctypes.c_int32),
        ("score", ctypes.c_int32),
        ("output", ctypes.POINTER(ctypes.c_int8)),
        ("features", ctypes.POINTER(ctypes.c_int8)),
    )


class Memory:
    """Bytes the C side may write, aligned to 16 (plus `skew`), with guard bytes on both sides."""

    def __init__(self, size: int, skew: int = 0) -> None:
        self.size = size
        self._raw = np.full(size + 3 * GUARD, JUNK, np.uint8)
        self._start = GUARD + -(self._raw.ctypes.data + GUARD) % 16 + skew
        self.bytes = self._raw[self._start : self._start + size]
        self.address = self._raw.ctypes.data + self._start

    def intact(self) -> bool:
        outside = np.concatenate([self._raw[: self._start], self._raw[self._start + self.size :]])
        return bool((outside == JUNK).all())


def sample(strategy: SearchStrategy[Example], count: int) -> list[Example]:
    """`count` examples of a strategy, always the same ones, for tests that check them all at once.

    Whole lists are drawn, for hypothesis varies one example only a little to make the next. The first
    list is made of smallest examples: one of them is enough.
    """
    lists: list[list[Example]] = []

    @settings(
        max_examples=2, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.lists(strategy, min_size=count - 1, max_size=count - 1))
    def collect(examples: list[Example]) -> None:
        lists.append(examples)

    collect()
    return [lists[0][0], *lists[1]]


def build_batch(
    graphs: Sequence[Graph], directory: Path, compiler: str = "gcc", flags: Sequence[str] = OPTIMISE
) -> tuple[ctypes.CDLL, list[MemoryPlan]]:
    """All graphs as models m0, m1, ... in one library, warnings as errors."""
    plans = [write_model(graph, f"m{i}", directory).plan for i, graph in enumerate(graphs)]
    shim = "".join(
        f'#include "m{i}.h"\nsize_t m{i}_session_bytes(void);\n'
        f"size_t m{i}_session_bytes(void) {{ return sizeof(m{i}_session); }}\n"
        for i in range(len(graphs))
    )
    (directory / "shim.c").write_text(shim)
    sources = {directory / "shim.c"}
    for i in range(len(graphs)):
        sources.update(model_sources(directory, f"m{i}"))
    common = [compiler, "-std=c11", *WARNINGS, *flags, "-fPIC", f"-I{directory}", f"-I{directory / 'runtime'}"]
    ordered = sorted(sources)
    parts = [[*common, "-c", *map(str, ordered[i::PROCESSES])] for i in range(PROCESSES)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        for done in pool.map(lambda part: subprocess.run(part, cwd=directory, capture_output=True, text=True), parts):
            assert done.returncode == 0, done.stderr
    library = directory / "batch.so"
    objects = map(str, sorted(directory.glob("*.o")))
    subprocess.run([compiler, *flags, "-shared", *objects, "-o", str(library)], check=True)
    return ctypes.CDLL(str(library)), plans


def mismatches(
    graphs: Sequence[Graph],
    directory: Path,
    compiler: str = "gcc",
    flags: Sequence[str] = OPTIMISE,
    inputs: Callable[[Graph], NDArray[np.int8]] = lambda graph: random_inputs(graph, 3),
) -> list[str]:
    """Run all graphs on all their inputs; a text for each that differs from the reference or leaves its memory."""
    library, plans = build_batch(graphs, directory, compiler, flags)
    found = []
    for i, (graph, plan) in enumerate(zip(graphs, plans, strict=True)):
        session = Memory(_session_bytes(library, f"m{i}"))
        regions = [Memory(size) for size in plan.region_bytes]
        pieces: list[object] = [ctypes.c_void_p(session.address)]
        for region in regions:
            pieces += [ctypes.c_void_p(region.address), ctypes.c_size_t(region.size)]
        assert getattr(library, f"m{i}_init")(*pieces) == 0
        for x in inputs(graph):
            result = Result()
            status = getattr(library, f"m{i}_infer")(pieces[0], ctypes.c_void_p(x.ctypes.data), ctypes.byref(result))
            output, features = run(graph, x)
            wrong = int((np.ctypeslib.as_array(result.output, output.shape) != output).sum())
            wrong += int((np.ctypeslib.as_array(result.features, features.shape) != features).sum())
            whole = all(memory.intact() for memory in (session, *regions))
            if status or wrong or not whole:
                what = f"status {status}, {wrong} bytes differ, guard bytes {'intact' if whole else 'OVERWRITTEN'}"
                found.append(f"m{i}: {what}\n{describe(graph)}")
                break
    return found


def _session_bytes(library: ctypes.CDLL, name: str) -> int:
    function = getattr(library, f"{name}_session_bytes")
    function.restype = ctypes.c_size_t
    return int(function())
