"""The schedule: every step finds what it reads, and the planner gives each buffer exactly the memory that steps use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import test_selection
import test_training
from graphs import GraphBuilder, random_inputs
from networks import NETWORKS
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.codegen import kernel_table
from tinytrain_compiler.codegen.emit import ModelInfo, emit_sources
from tinytrain_compiler.codegen.forward_steps import FORWARD
from tinytrain_compiler.codegen.step_text import Statement, StepText
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.lowering import emit, lower
from tinytrain_compiler.memory import buffers_of, plan_memory
from tinytrain_compiler.ops import weights_of
from tinytrain_compiler.output_folder import write_files
from tinytrain_compiler.reference.trainer import ReferenceTrainer
from tinytrain_compiler.schedule import (
    Activation,
    BufferSpec,
    EffectiveParameters,
    Forward,
    Moment,
    Place,
    Schedule,
    Step,
    UpdateBias,
    align,
    inference_schedule,
    renamed,
)
from tinytrain_compiler.targets.host import HostLayout, HostModel
from tinytrain_compiler.training.formats import formats
from tinytrain_compiler.training.heads import HEADS
from tinytrain_compiler.training.options import LearningOptions
from tinytrain_compiler.training.plan import plan_training
from tinytrain_compiler.training.scheme import Scheme, TrainedLayer
from tinytrain_compiler.training.trainable import embedding_layers
from tinytrain_compiler.training.visits import TrainOptions

CLASSES = 4


def branches() -> Graph:
    """Tensors that three others read, by an operator that copies its gradient, one that shares it and kernels; an
    addition of a tensor to itself."""
    b = GraphBuilder((6, 6, 4), seed=9)
    x = b.conv2d(b.input, 8, name="stem")
    y, z = b.conv2d(x, 8, name="left", zero=-128), b.conv2d(x, 8, name="right")
    t = b.add(y, z, name="sum")
    t = b.add(t, t, name="twice")
    u = b.add(b.lookup(t, name="look"), b.conv2d(x, 8, name="third"), name="skip")
    v = b.max_pool(u, (2, 2), stride=(2, 2), name="pool")
    w = b.reshape(b.reshape(b.conv2d(v, 12, groups=4, name="grouped"), name="flat"), (3, 3, 12), name="back")
    w = b.add(w, b.conv2d(v, 12, name="beside"), name="join")
    features = b.reshape(b.avg_pool(w, name="global"))
    return b.build(b.fully_connected(features, 5, name="classifier"), features)


def whole(graph: Graph) -> Scheme:
    layers = embedding_layers(graph)
    return Scheme({n.name: TrainedLayer(tuple(range(weights_of(n).layout(n).channels))) for n in layers})


def candidates(graph: Graph, names: set[str] | None = None) -> Scheme:
    """All layers, or those of these names, with channels that the device chooses."""
    layers = [n for n in embedding_layers(graph) if names is None or n.name in names]
    return Scheme({n.name: TrainedLayer(limit=weights_of(n).layout(n).channels // 4 * 4) for n in layers})


def schedules() -> Iterator[tuple[str, Schedule]]:
    for name, make in {**NETWORKS, "branches": branches}.items():
        graph = make()
        yield f"{name} inference", inference_schedule(graph)
        if not embedding_layers(graph):
            continue
        schemes = {"full": whole(graph), "head": Scheme({}), "candidates": candidates(graph)}
        for kind, scheme in schemes.items():
            head = "linear" if kind == "head" else "prototype"
            for gradients in ("int16", "float32"):
                options = LearningOptions(HEADS[head], formats(gradients, "nearest"))
                if kind != "candidates" or scheme.candidates:
                    yield f"{name} {kind} {gradients}", plan_training(graph, scheme, CLASSES, options).schedule
    for module in (test_training, test_selection):
        graph, scheme = module.network()
        yield module.__name__, plan_training(graph, scheme, CLASSES).schedule


SCHEDULES = dict(schedules())


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return SCHEDULES[request.param]


def test_what_a_step_reads_was_written_before(schedule: Schedule) -> None:
    written: set[Place] = {Activation(schedule.graph.input)}
    written |= {buffer for buffer in schedule.buffers if buffer.persistent}
    for moment in schedule.moments:
        for step in moment.steps:
            missing = set(step.reads) - written
            assert not missing, f"{moment.name}: {type(step).__name__} reads {missing}"
            written |= set(step.writes)
            written -= set(step.scratch)


def test_what_is_written_is_read(schedule: Schedule) -> None:
    """No buffer is kept for nobody, but for the loss's gradient where the head alone trains."""
    read = {place for step in schedule.steps() for place in step.reads}
    if any(schedule.of("backward")):
        assert {p for step in schedule.steps() for p in step.writes if isinstance(p, BufferSpec)} <= read


def test_an_output_never_overwrites_what_its_moment_still_reads(schedule: Schedule) -> None:
    """Steps behind a forward step, such as one that saves the argmax indices of a pool, still find its input."""
    owner = {tensor: i for i, buffer in enumerate(buffers_of(schedule)) for tensor in buffer.tensors}
    root = renamed(schedule.graph)
    for moment in schedule.of("forward"):
        overwritten: set[str] = set()
        for step in moment.steps:
            assert not {place.name for place in step.reads if isinstance(place, Activation)} & overwritten
            if isinstance(step, Forward):
                shared = [x for x in step.node.inputs if root[x] != root[step.node.output]]
                overwritten = {x for x in shared if owner[x] == owner[step.node.output]}


def test_the_planner_places_what_steps_need_while_they_need_it(schedule: Schedule) -> None:
    plan = plan_memory(schedule, load_board("stm32f746").banks, 0)
    used = {place for step in schedule.steps() for place in (*step.reads, *step.writes, *step.scratch)}
    specs = {place.name: place for place in used if isinstance(place, BufferSpec)}
    assert len(specs) == len({place for place in used if isinstance(place, BufferSpec)}), "names are unique"
    assert set(plan.scratch) == set(specs), "neither more nor less"
    for name, spec in specs.items():
        buffer = plan.scratch[name].buffer
        assert (buffer.bytes, buffer.purpose) == (align(spec.bytes), spec.purpose)
    for number, moment in enumerate(schedule.moments):
        for step in moment.steps:
            for place in (*step.reads, *step.writes, *step.scratch):
                placed = plan.tensors if isinstance(place, Activation) else plan.scratch
                size = schedule.graph.tensors[place.name].bytes if isinstance(place, Activation) else place.bytes
                assert placed[place.name].buffer.bytes_at(number) >= size, f"{place.name} at {moment.name}"


def test_a_model_that_does_not_train_has_forward_steps_only() -> None:
    for make in NETWORKS.values():
        schedule = inference_schedule(make())
        assert [moment.node for moment in schedule.moments] == schedule.graph.nodes
        assert {type(step) for step in schedule.steps()} == {Forward}
        assert not schedule.buffers


def test_a_buffer_of_training_says_what_it_is_for() -> None:
    schedule = inference_schedule(NETWORKS["mobile"]())
    with pytest.raises(ValueError, match="without a purpose: novelty"):
        replace(schedule, buffers=(BufferSpec("novelty", 16, "inference"),))


def test_frozen_layers_are_those_of_no_backward_moment() -> None:
    graph, scheme = test_training.network()
    plan = plan_training(graph, Scheme({"vector": scheme.layers["vector"]}), CLASSES)
    backward = [moment.node.name for moment in plan.schedule.of("backward") if moment.node is not None]
    assert backward == ["vector"]
    assert "vector" not in plan.boundary.frozen
    assert "stem" in plan.boundary.frozen
    trained = {step.node.name for step in plan.schedule.steps() if isinstance(step, EffectiveParameters | UpdateBias)}
    assert not trained & set(plan.boundary.frozen)


# -- names of buffers --------------------------------------------------------------------------


def train_both(graph: Graph, scheme: Scheme, directory: Path) -> tuple[list[int], list[int]]:
    """Embeddings after a short training, of the generated C on this machine and of the NumPy reference."""
    lowered = lower(graph, load_board("stm32f746"), "net", CLASSES, scheme)
    sources = emit(lowered, ModelInfo("net", (), (), CLASSES, None))
    write_files(directory, {path: text.encode() for path, text in sources.items()})
    sizes = (graph.tensors[tensor].bytes for tensor in (graph.input, graph.output, graph.features))
    host = HostModel(directory, HostLayout("net", lowered.plan.region_bytes, *sizes))
    samples, labels = random_inputs(graph, 5), [i % CLASSES for i in range(8)]
    options = TrainOptions(epochs=3, rate=0.2, seed=3)
    host.train(lambda i, epoch: samples[i], labels, options.epochs, options.rate, options.seed)
    reference = ReferenceTrainer(graph, scheme, CLASSES)
    reference.train(lambda i, epoch: samples[i], labels, options)
    before = ReferenceTrainer(graph, scheme, CLASSES).features(samples[0]).tolist()
    assert reference.features(samples[0]).tolist() != before, "something was learnt"
    return host.infer(samples[0]).features.tolist(), reference.features(samples[0]).tolist()


def test_three_gradients_of_one_tensor_each_have_their_buffer(tmp_path: Path) -> None:
    """The second and the third had one name, and the compiler stopped with a KeyError."""
    graph = branches()
    host, reference = train_both(graph, whole(graph), tmp_path / "net")
    assert host == reference


def test_two_candidates_that_read_one_frozen_tensor_each_have_their_buffer() -> None:
    graph = branches()
    scheme = candidates(graph, {"left", "right", "third"})
    lowered = lower(graph, load_board("stm32f746"), "net", CLASSES, scheme)
    assert "net_train.c" in emit(lowered, ModelInfo("net", (), (), CLASSES, None))
    passing = [name for name in lowered.plan.scratch if name.startswith("second gradient of stem_out")]
    assert len(passing) == 3


def test_a_layer_may_be_called_like_a_buffer() -> None:
    """A layer's scratch memory went by the layer's name alone: beside the "training state", the compiler
    stopped with a KeyError."""
    b = GraphBuilder((6, 6, 4), seed=3)
    x = b.conv2d(b.input, 8, name="learns")
    names = ("training state", "loss terms", "of learns (backward)")
    for name in names:
        x = b.depthwise(x, (3, 3), pad_before=(1, 1), pad_after=(1, 1), name=name)
    features = b.reshape(b.avg_pool(x))
    graph = b.build(b.fully_connected(features, 5), features)
    lowered = lower(graph, load_board("stm32f746"), "net", CLASSES, Scheme({"learns": TrainedLayer((0, 1, 2, 3))}))
    assert {f"{name} (scratch)" for name in names} <= set(lowered.plan.scratch)
    arena = emit(lowered, ModelInfo("net", (), (), CLASSES, None))["net_arena.h"]
    macros = [line.split()[1] for line in arena.splitlines() if line.startswith("#define NET_")]
    assert len(macros) == len(set(macros)), "no offset hides another"


# -- a new kind of step ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class CountClipped(Step):
    """A toy: counts an activation's elements at the upper end of int8."""

    source: Activation
    counter: BufferSpec

    @property
    def reads(self) -> tuple[Place, ...]:
        return (self.source,)

    @property
    def writes(self) -> tuple[Place, ...]:
        return (self.counter,)


@FORWARD.writes(CountClipped)
def _count_clipped(c: StepText, step: CountClipped) -> list[Statement]:
    source, count = c.activation(step.source), c.count(step.source.name)
    return [Statement([f"count_clipped({c.cast('uint32_t', step.counter)}, {source}, {count});"])]


def test_a_new_kind_of_step_is_planned_and_written_without_touching_anything_else() -> None:
    graph = NETWORKS["mobile"]()
    plain = inference_schedule(graph)
    counter = BufferSpec("clipped", 20, "masks", persistent=True)
    step = CountClipped(source=Activation(graph.nodes[0].output), counter=counter)
    first = plain.moments[0]
    moments = (Moment("forward", first.node, (*first.steps, step)), *plain.moments[1:])
    schedule = replace(plain, moments=moments, buffers=(counter,))
    plan = plan_memory(schedule, load_board("stm32f746").banks, 0)
    place = plan.scratch["clipped"]
    assert [(s.first, s.last, s.bytes) for s in place.buffer.spans] == [(0, len(moments) - 1, 32)]
    text = emit_sources(plan, kernel_table(graph, "net"), ModelInfo("net", (), (), CLASSES, None))
    count = graph.tensors[graph.nodes[0].output].bytes
    assert re.search(rf"count_clipped\(.*NET_CLIPPED\), .+, {count}\);", text["net.c"])
    assert re.search(rf"#define NET_CLIPPED +{place.offset} .*\b32\b", text["net_arena.h"])


def test_a_step_without_c_is_named() -> None:
    class Unwritten(Step):
        pass

    with pytest.raises(NotImplementedError, match="no C is written for Unwritten"):
        FORWARD.of(Unwritten)


def test_updates_of_a_model_are_those_of_its_scheme() -> None:
    graph, scheme = test_training.network()
    schedule = plan_training(graph, scheme, CLASSES).schedule
    assert {step.node.name for step in schedule.steps("backward") if isinstance(step, UpdateBias)} == set(scheme.layers)
