"""The plan: no two live buffers share a byte, in-place work is legal, and the arena is as small as it claims."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder, describe, layout_of, random_inputs, write_model
from hypothesis import given, settings
from hypothesis import strategies as st
from tinytrain_compiler.boards import Bank, load_board
from tinytrain_compiler.errors import DoesNotFitError
from tinytrain_compiler.fit.check import check_fit
from tinytrain_compiler.fit.policy_fit import largest_buffers
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.lowering import lower
from tinytrain_compiler.memory import Buffer, MemoryPlan, Span, buffers_of, lower_bound, plan_memory
from tinytrain_compiler.memory.planner import extent, place
from tinytrain_compiler.ops import operator_of
from tinytrain_compiler.reference import run_all
from tinytrain_compiler.resources import BOARDS
from tinytrain_compiler.runtime_abi import MAX_REGIONS
from tinytrain_compiler.schedule import align, inference_schedule
from tinytrain_compiler.targets.host import HostModel
from tools import require_or_skip


def bank(name: str, size: int) -> Bank:
    return Bank(name, 0x20000000, size, ())


# -- placing any buffers -----------------------------------------------------------------------


@st.composite
def buffers(draw: st.DrawFn) -> list[Buffer]:
    """Lifetimes of a network of 12 steps; some buffers serve a chain of tensors that grow smaller."""
    made = []
    for i in range(draw(st.integers(1, 14))):
        first = draw(st.integers(0, 11))
        spans = [Span(first, draw(st.integers(first, 11)), align(draw(st.integers(1, 900))))]
        while spans[-1].last < 11 and draw(st.booleans()):
            first, most = spans[-1].last, spans[-1].bytes
            spans.append(Span(first, draw(st.integers(first, 11)), align(draw(st.integers(1, most)))))
        made.append(Buffer(f"b{i}", spans, [f"b{i}"]))
    return made


@given(buffers())
@settings(deadline=None)
def test_live_buffers_never_overlap_and_the_bound_holds(made: list[Buffer]) -> None:
    offsets = place(made, lower_bound(made), seed=0)
    assert all(offset % 16 == 0 and offset >= 0 for offset in offsets)
    for (a, at_a), (b, at_b) in itertools.combinations(zip(made, offsets, strict=True), 2):
        live_together = {s for s in range(12) if a.bytes_at(s)} & {s for s in range(12) if b.bytes_at(s)}
        assert not live_together or at_a + a.bytes <= at_b or at_b + b.bytes <= at_a
    assert lower_bound(made) == max(sum(b.bytes_at(step) for b in made) for step in range(12))
    assert lower_bound(made) <= extent(made, offsets) <= sum(b.bytes for b in made)


@given(buffers(), st.integers(0, 3))
@settings(deadline=None, max_examples=25)
def test_same_buffers_same_offsets(made: list[Buffer], seed: int) -> None:
    assert place(made, lower_bound(made), seed) == place(made, lower_bound(made), seed)


def test_search_reaches_a_bound_that_largest_first_misses() -> None:
    made = [
        Buffer(f"b{i}", [Span(first, last, 16 * units)], [f"b{i}"])
        for i, (first, last, units) in enumerate([(0, 2, 3), (1, 4, 2), (3, 6, 4), (5, 7, 3), (0, 0, 4), (6, 7, 1)])
    ]
    assert extent(made, place(made, lower_bound(made), seed=0)) == lower_bound(made)


# -- graphs: lifetimes, in-place work, names for the same bytes --------------------------------


@st.composite
def branching_graphs(draw: st.DrawFn) -> Graph:
    """Any tensor may be read again later; the last tensor is the output, any tensor the embedding."""
    b = GraphBuilder((4, 3, 3), seed=draw(st.integers(0, 99)))
    for _ in range(draw(st.integers(1, 10))):
        x = draw(st.sampled_from(list(b.tensors)))
        shape = b.tensors[x].shape
        alike = [t for t in b.tensors if b.tensors[t].shape == shape]
        moves = {
            "lookup": lambda x=x: b.lookup(x),
            "reshape": lambda x=x, s=shape: b.reshape(x, None if len(s) == 3 else (1, 1, s[0])),
            "add": lambda x=x, alike=alike: b.add(x, draw(st.sampled_from(alike))),
            "fully_connected": lambda x=x: b.fully_connected(x, 7),
        }
        if len(shape) == 3:
            moves |= {
                "depthwise": lambda x=x: b.depthwise(x, (2, 2), pad_after=(1, 1)),
                "depthwise_s2": lambda x=x: b.depthwise(x, (1, 1), stride=(2, 2)),
                "conv2d": lambda x=x: b.conv2d(x, 3),
                "max_pool": lambda x=x: b.max_pool(x, (1, 1), stride=(2, 1)),
            }
        moves[draw(st.sampled_from(sorted(moves)))]()
    return b.build(features=draw(st.sampled_from(list(b.tensors))))


def simulate(graph: Graph, plan: MemoryPlan, x: np.ndarray) -> dict[str, np.ndarray]:
    """Output and embedding of a network that keeps everything in the planned arena, dead bytes scrambled."""
    rng = np.random.default_rng(0)
    regions = [rng.integers(-128, 128, size, np.int8) for size in plan.region_bytes]

    def view(tensor: str) -> np.ndarray:
        place, t = plan.tensors[tensor], graph.tensors[tensor]
        return regions[place.region][place.offset : place.offset + t.bytes].reshape(t.shape)

    view(graph.input)[...] = x.reshape(graph.tensors[graph.input].shape)
    for number, (moment, node) in enumerate(zip(plan.schedule.moments, graph.nodes, strict=True)):
        for index, region in enumerate(regions):
            live = np.zeros(len(region), bool)
            for p in plan.placements:
                if p.region == index:
                    live[p.offset : p.offset + p.buffer.bytes_at(number)] = True
            region[~live] = rng.integers(-128, 128, int((~live).sum()), np.int8)
        for scratch in (buffer for step in moment.steps for buffer in step.scratch):
            p = plan.scratch[scratch.name]
            regions[p.region][p.offset : p.offset + p.buffer.bytes] = 77
        if operator_of(node).kernel(node, graph.tensors) is not None:
            y = operator_of(node).forward(node, graph.tensors, [view(name).copy() for name in node.inputs])
            view(node.output)[...] = y
    return {tensor: view(tensor).copy() for tensor in (graph.output, graph.features)}


@given(branching_graphs())
@settings(deadline=None, max_examples=300)
def test_network_run_inside_its_arena_computes_the_same(graph: Graph) -> None:
    plan = plan_memory(inference_schedule(graph), [bank("RAM", 1 << 20)], 0)
    x = random_inputs(graph, 1)[0]
    wanted = run_all(graph, x)
    for tensor, value in simulate(graph, plan, x).items():
        assert (value == wanted[tensor]).all(), f"{tensor} was overwritten\n{describe(graph)}\n{plan.placements}"


@given(branching_graphs(), st.integers(300, 1200))
@settings(deadline=None, max_examples=100)
def test_network_spread_over_banks_computes_the_same(graph: Graph, room: int) -> None:
    banks = [bank("A", room // 2), bank("B", room), bank("C", room)]
    try:
        plan = plan_memory(inference_schedule(graph), banks, 64)
    except DoesNotFitError:
        return
    x = random_inputs(graph, 1)[0]
    wanted = run_all(graph, x)
    for tensor, value in simulate(graph, plan, x).items():
        assert (value == wanted[tensor]).all(), f"{tensor} was overwritten\n{describe(graph)}\n{plan.placements}"
    if len(plan.region_bytes) > 1:
        for size, name in zip(plan.region_bytes, plan.region_banks, strict=True):
            assert size <= next(b.bytes for b in banks if b.name == name) - 64 * (name == "A")


def test_elementwise_and_depthwise_layers_work_in_place() -> None:
    b = GraphBuilder((8, 8, 4))
    x = b.conv2d(b.input, 6, (3, 3), name="conv")
    y = b.depthwise(x, (3, 3), stride=(2, 2), pad_before=(1, 1), name="depthwise")
    z = b.lookup(y, name="lookup")
    v = b.reshape(z, name="flatten")
    b.add(v, v, name="double")  # reads its input twice, so it must not overwrite it
    owner = {tensor: buffer for buffer in buffers_of(inference_schedule(b.build())) for tensor in buffer.tensors}
    assert owner[x] is owner[y] is owner[z] is owner[v]
    assert owner["double_out"] is not owner[v]
    assert [(s.first, s.last, s.bytes) for s in owner[x].spans] == [(0, 1, 224), (1, 2, 64), (2, 4, 64)]


def test_input_that_is_read_again_later_is_not_overwritten() -> None:
    b = GraphBuilder((4, 4, 4))
    x = b.conv2d(b.input, 4, name="conv")
    y = b.lookup(x, name="branch")
    b.add(x, y, name="join")
    owner = {tensor: buffer.name for buffer in buffers_of(inference_schedule(b.build())) for tensor in buffer.tensors}
    assert owner["branch_out"] != owner["conv_out"]
    assert owner["join_out"] == "conv_out"  # its last reader may


def test_two_names_for_the_same_bytes_live_as_long_as_either() -> None:
    b = GraphBuilder((2, 2, 4))
    x = b.conv2d(b.input, 4, name="conv")
    view = b.reshape(b.reshape(x, name="first"), (1, 1, 16), name="second")
    y = b.lookup(x, name="last_reader_of_conv")  # would overwrite what `second` still shows
    b.conv2d(view, 5, name="reader_of_view")
    graph = b.build(features=y)
    plan = plan_memory(inference_schedule(graph), [bank("RAM", 1 << 16)], 0)
    wanted = run_all(graph, random_inputs(graph, 1)[0])
    for tensor, value in simulate(graph, plan, random_inputs(graph, 1)[0]).items():
        assert (value == wanted[tensor]).all()


# -- several banks, and none that is large enough ----------------------------------------------


def two_bank_board(tmp_path: Path, fast: int, slow: int, stack: int = 1024) -> Path:
    """stm32f746 with two small memories that do not touch."""
    text = (BOARDS / "stm32f746.toml").read_text().replace("stack_bytes = 4096", f"stack_bytes = {stack}")
    text = text.replace('name = "stm32f746"', 'name = "small"').replace("bytes = 0x10000\n", f"bytes = {fast}\n")
    text = text.replace("origin = 0x20010000\nbytes = 0x3C000", f"origin = 0x30000000\nbytes = {slow}")
    head, tail = text.split('[[ram]]\nname = "SRAM2"')
    path = tmp_path / "small.toml"
    path.write_text(head + tail[tail.index("[uart]") :])
    return path


def branching_network() -> Graph:
    b = GraphBuilder((16, 16, 3), seed=5)
    x = b.conv2d(b.input, 8, (3, 3), stride=(2, 2), pad_before=(1, 1), pad_after=(1, 1))
    y = b.conv2d(b.depthwise(b.conv2d(x, 24), (3, 3), pad_before=(1, 1), pad_after=(1, 1)), 8)
    z = b.add(x, y)
    pooled = b.reshape(b.avg_pool(z))
    return b.build(b.fully_connected(pooled, 10), pooled)


def test_network_that_needs_two_banks_runs_on_the_host(tmp_path: Path) -> None:
    require_or_skip("gcc")
    graph = branching_network()
    board = two_bank_board(tmp_path, fast=2560, slow=2304)
    lowered = write_model(graph, "two", tmp_path / "model", board)
    assert lowered.plan.region_banks == ("DTCM", "SRAM1")
    check_fit(lowered.sram, lowered.flash, lowered.plan, lowered.board, {})
    with HostModel(tmp_path / "model", layout_of(graph, lowered, "two")) as host:
        for x in random_inputs(graph, 5):
            values, got = run_all(graph, x), host.infer(x)
            assert (got.output == values[graph.output].reshape(-1)).all()
            assert (got.features == values[graph.features].reshape(-1)).all()


def test_plan_has_no_more_regions_than_the_runtime() -> None:
    b = GraphBuilder((4, 4, 8))
    tensors = [b.input]
    for _ in range(MAX_REGIONS + 1):  # every tensor stays live to the end, each fills a bank
        tensors.append(b.conv2d(b.input, 8))
    x = tensors[1]
    for tensor in tensors[2:]:
        x = b.add(x, tensor)
    small = [bank(f"B{i}", 144) for i in range(MAX_REGIONS + 3)]
    with pytest.raises(DoesNotFitError, match="in one piece"):
        plan_memory(inference_schedule(b.build()), small, 0)


def test_whole_arena_goes_into_the_first_bank_with_room() -> None:
    graph = branching_network()
    need = plan_memory(inference_schedule(graph), [bank("RAM", 1 << 20)], 0).arena_bytes
    banks = [bank("FAST", need + 99), bank("SLOW", need)]
    assert plan_memory(inference_schedule(graph), banks, 99).region_banks == ("FAST",)
    assert plan_memory(inference_schedule(graph), banks, 100).region_banks == ("SLOW",)


def test_too_little_ram_says_how_much_is_needed_and_where(tmp_path: Path) -> None:
    lowered = lower(branching_network(), load_board(two_bank_board(tmp_path, fast=2048, slow=512)), "net")
    with pytest.raises(DoesNotFitError) as caught:
        check_fit(lowered.sram, lowered.flash, lowered.plan, lowered.board, largest_buffers(lowered.plan))
    sram = lowered.sram
    need = sram.arena + sram.session + 1024 + 64  # stack, and what the linker may lose to alignment
    message = str(caught.value)
    assert f"needs {need:,} bytes" in message
    assert "small has 2,560" in message
    assert f"{need - 2560:,} too many" in message
    assert "conv2d_1_out 1,536" in message, "the largest buffer at the worst step"
    assert caught.value.exit_code == 3


def test_buffer_larger_than_every_bank_is_named(tmp_path: Path) -> None:
    board = two_bank_board(tmp_path, fast=2560, slow=1500)
    with pytest.raises(DoesNotFitError, match=r"conv2d_1_out needs 1,536 bytes in one piece.*DTCM 2,560, SRAM1 1,500"):
        lower(branching_network(), load_board(board), "net")
