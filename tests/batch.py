"""Many small models in one shared library: a compiler call a model would make the operator tests slow."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from graphs import describe, gaps, model_sources, random_inputs, write_model
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.memory import MemoryPlan
from tinytrain_compiler.reference import run
from tinytrain_compiler.targets.host import HOST_KERNELS, OPTIMISE, WARNINGS, Result

GUARD = 64
JUNK = 0x5A
PROCESSES = 2

Example = TypeVar("Example")


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


def write_batch(graphs: Sequence[Graph], directory: Path) -> list[MemoryPlan]:
    """All graphs as models m0, m1, ... in one folder, their buffers spaced out."""
    return [write_model(graph, f"m{i}", directory, spaced=True).plan for i, graph in enumerate(graphs)]


def compile_batch(
    count: int, directory: Path, extra: str, output: str, compiler: str, flags: Sequence[str], link: Sequence[str]
) -> Path:
    """Models m0 .. m<count> and a C file of the test's own into a library or program, warnings as errors."""
    (directory / "extra.c").write_text(extra)
    sources = {directory / "extra.c"}
    for i in range(count):
        sources.update(model_sources(directory, f"m{i}"))
    common = [compiler, "-std=c11", *WARNINGS, *HOST_KERNELS, *flags, f"-I{directory}", f"-I{directory / 'runtime'}"]
    ordered = sorted(sources)
    parts = [[*common, "-c", *map(str, ordered[i::PROCESSES])] for i in range(PROCESSES)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        for done in pool.map(lambda part: subprocess.run(part, cwd=directory, capture_output=True, text=True), parts):
            assert done.returncode == 0, done.stderr
    objects = map(str, sorted(directory.glob("*.o")))
    subprocess.run([compiler, *flags, *link, *objects, "-o", str(directory / output)], check=True)
    return directory / output


def mismatches(
    graphs: Sequence[Graph], directory: Path, compiler: str = "gcc", flags: Sequence[str] = OPTIMISE
) -> list[str]:
    """Run all graphs on a few inputs; a text for each that differs from the reference or leaves its memory."""
    plans = write_batch(graphs, directory)
    shim = "".join(
        f'#include "m{i}.h"\nsize_t m{i}_session_bytes(void);\n'
        f"size_t m{i}_session_bytes(void) {{ return sizeof(m{i}_session); }}\n"
        f"tt_status m{i}_start(m{i}_session *s, void *region, size_t bytes);\n"  # init is inline
        f"tt_status m{i}_start(m{i}_session *s, void *region, size_t bytes) {{ return m{i}_init(s, region, bytes); }}\n"
        for i in range(len(graphs))
    )
    path = compile_batch(len(graphs), directory, shim, "batch.so", compiler, [*flags, "-fPIC"], ["-shared"])
    library = ctypes.CDLL(str(path))
    return [
        f"m{i}: {wrong}\n{describe(graph)}"
        for i, (graph, plan) in enumerate(zip(graphs, plans, strict=True))
        for wrong in [_check(library, f"m{i}", graph, plan)]
        if wrong
    ]


def _check(library: ctypes.CDLL, name: str, graph: Graph, plan: MemoryPlan) -> str:
    """What went wrong first with one model; empty if nothing did."""
    size = getattr(library, f"{name}_session_bytes")
    size.restype = ctypes.c_size_t
    session, region = Memory(size()), Memory(plan.region_bytes[0])
    here = ctypes.c_void_p(session.address)
    assert getattr(library, f"{name}_start")(here, ctypes.c_void_p(region.address), ctypes.c_size_t(region.size)) == 0
    between = gaps(plan)
    for x in random_inputs(graph, 3):
        result = Result()
        status = getattr(library, f"{name}_infer")(here, ctypes.c_void_p(x.ctypes.data), ctypes.byref(result))
        output, features = run(graph, x)
        wrong = int((np.ctypeslib.as_array(result.output, output.shape) != output).sum())
        wrong += int((np.ctypeslib.as_array(result.features, features.shape) != features).sum())
        intact = session.intact() and region.intact() and bool((region.bytes[between] == JUNK).all())
        if status or wrong or not intact:
            return f"status {status}, {wrong} bytes differ, guard bytes {'intact' if intact else 'overwritten'}"
    return ""
