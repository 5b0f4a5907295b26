"""Statistics, policies through episodes, tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from rich.console import Console
from tinytrain_compiler import Artifacts, compile_model
from tinytrain_compiler.compiled import CompiledModel, load_compiled
from tinytrain_compiler.errors import TinyTrainError, UnsupportedModelError, UsageError
from tinytrain_compiler.evaluate import (
    Episode,
    HostLearner,
    LearnerOptions,
    Pack,
    TrainStats,
    evaluate,
    host_learner,
    instructions,
    markdown,
    policies_named,
    print_results,
    run_episodes,
    sample_episodes,
)  # fmt: skip
from tinytrain_compiler.evaluate.learner import Factory
from tinytrain_compiler.evaluate.policies import evaluated_names
from tinytrain_compiler.evaluate.statistics import average, estimate, paired_difference, t_quantile
from tinytrain_compiler.evaluate.tables import differences
from tinytrain_compiler.ops import Int8
from tinytrain_compiler.reference import run
from tinytrain_compiler.reference.head import PrototypeHead
from tinytrain_compiler.runtime_abi import CLEAN
from tinytrain_compiler.targets.host import HostLayout, Trained
from tinytrain_compiler.training.heads import HEADS
from tinytrain_compiler.training.policies import POLICIES, NoPolicy
from tinytrain_compiler.training.selectors import SELECTORS
from tools import require_or_skip

# -- statistics ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("degrees", "known"),  # printed tables of Student's t, two-sided 95 %
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (19, 2.0930), (49, 2.0096), (999, 1.9623)],
)
def test_t_quantile_is_that_of_the_tables(degrees: int, known: float) -> None:
    assert t_quantile(degrees) == pytest.approx(known, abs=5e-5)


def test_t_quantile_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for degrees in (*range(1, 60), 200, 1001):
        for confidence in (0.5, 0.95, 0.999):
            assert t_quantile(degrees, confidence) == pytest.approx(stats.t.ppf((1 + confidence) / 2, degrees))


def test_estimates_by_hand() -> None:
    e = estimate([1.0, 2.0, 3.0, 4.0])  # deviation sqrt(5 / 3), t(3) = 3.1824
    assert e.mean == 2.5
    assert e.half_width == pytest.approx(3.18245 * (5 / 3 / 4) ** 0.5, abs=1e-4)
    assert estimate([7.0]).half_width is None
    assert not estimate([7.0]).excludes_zero
    assert estimate([7.0, 7.0]).half_width == 0.0


def test_pairing_removes_what_episodes_have_in_common() -> None:
    a, b = [12.0, 52.0, 92.0], [10.0, 51.0, 89.0]
    paired = paired_difference(a, b)
    assert paired.mean == 2.0
    assert paired.half_width == pytest.approx(4.30265 / 3**0.5, abs=1e-4)
    assert estimate(a).half_width > 40  # type: ignore[operator]
    with pytest.raises(ValueError, match="shorter"):
        paired_difference(a, b[:2])


def test_average_over_packs() -> None:
    one = [1.0, 2.0, 3.0]
    same = average([one, [v + 50 for v in one]])  # equal variances and counts: the degrees add up
    assert same.mean == 27.0
    assert same.half_width == pytest.approx(t_quantile(4) * (2 / 3) ** 0.5 / 2)
    assert average([one, [5.0]]).half_width is None
    assert average([[1.0, 1.0], [2.0, 2.0]]).half_width == 0.0
    assert average([one]) == estimate(one)


# -- policies through episodes -------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(compiled_small: Artifacts) -> CompiledModel:
    assert compiled_small.directory is not None
    return load_compiled(compiled_small.directory)


@pytest.fixture(scope="module")
def pack() -> Pack:
    """Four classes of noisy stripes, 12 x 12."""
    rng = np.random.default_rng(0)
    labels = np.arange(80, dtype=np.int64) % 4
    rows, columns = np.mgrid[:12, :12]
    patterns = np.stack([rows % 2, columns % 2, (rows + columns) % 3, rows // 6])[..., None] * [90, 60, 30]
    images = (patterns[labels] + rng.integers(0, 90, (80, 12, 12, 3))).astype(np.uint8)
    return Pack("stripes", images, labels, tuple("abcd"), "stripes.npz (images)")


@pytest.fixture(scope="module")
def episodes(pack: Pack) -> list[Episode]:
    return sample_episodes(pack, way=3, shot=2, queries=4, count=3, seed=1)


class Recorder(HostLearner):
    """Prototypes, and a record of everything it was shown. Enrols its augmented images, so they matter."""

    log: list[Any] = []  # noqa: RUF012  (shared on purpose)

    def __init__(self, model: CompiledModel, options: LearnerOptions) -> None:
        super().__init__(model, options, NoPolicy())

    def enroll(self, x: Int8, label: int) -> None:
        self.log.append(("enroll", x.tobytes(), label))
        super().enroll(x, label)

    def train(self, sample: Any, labels: Sequence[int], epochs: int, seed: int, progress: Any) -> TrainStats:
        for epoch in (CLEAN, *range(epochs)):
            for i, label in enumerate(labels):
                x = sample(i, epoch)
                self.log.append(("train", epoch, x.tobytes(), label, seed))
                super().enroll(x, label)
            progress(epoch, epochs)
        return TrainStats(losses=(1.0,) * epochs, saturations=seed % 7)

    def infer(self, x: Int8) -> int:
        self.log.append(("infer", x.tobytes()))
        return super().infer(x)


class Other(Recorder):
    pass


class Broken(HostLearner):
    """Fails with an error that cannot be sent between processes as it is."""

    def __init__(self, model: CompiledModel, options: LearnerOptions) -> None:
        raise UnsupportedModelError([])


@pytest.fixture(autouse=True)
def no_log() -> None:
    Recorder.log = []
    Other.log = []


def learners(*names: str) -> dict[str, Factory]:
    """Those above, and policies."""
    own: dict[str, Factory] = {"recorder": Recorder, "other": Other, "broken": Broken}
    return {n: own[n] if n in own else partial(HostLearner, policy=policies_named([n])[n]) for n in names}


def test_result_has_exactly_the_agreed_form(model: CompiledModel, pack: Pack, episodes: list[Episode]) -> None:
    seen: list[tuple[int, int]] = []
    found = evaluate(
        model,
        pack,
        episodes,
        policies_named(["none"]),
        count=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert set(found) == {"pack", "episodes", "policies"}
    assert found["pack"] == "stripes"
    assert found["episodes"] == 2
    none = found["policies"]["none"]
    keys = {
        "accuracy", "ci95", "episodes", "sram_bytes", "instructions_per_step", "instructions_forward",
        "instructions_backward", "per_episode",
    }  # fmt: skip
    assert set(none) == keys
    assert none["episodes"] == 2
    assert none["instructions_per_step"] is None
    assert none["accuracy"] == np.mean(none["per_episode"])
    assert len(none["per_episode"]) == 2
    assert none["sram_bytes"] == model.report["memory"]["sram"]["total_bytes"]
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_policy_none_is_the_reference_head(model: CompiledModel, pack: Pack, episodes: list[Episode]) -> None:
    from tinytrain_compiler.evaluate import to_inputs

    found = evaluate(model, pack, episodes, policies_named(["none"]))["policies"]["none"]["per_episode"]
    tensor = model.graph.tensors[model.graph.features]
    for episode, accuracy in zip(episodes, found, strict=True):
        head = PrototypeHead(3, tensor.bytes, tensor.quantization.zero_point)
        for label, index in episode.support:
            head.enroll(run(model.graph, to_inputs(pack, [index], model)[0].reshape(-1))[1], label)
        right = [
            head.classify(run(model.graph, to_inputs(pack, [index], model)[0].reshape(-1))[1])[0] == label
            for label, index in episode.query
        ]
        assert accuracy == pytest.approx(100 * np.mean(right))


def test_every_policy_sees_the_same(model: CompiledModel, pack: Pack, episodes: list[Episode]) -> None:
    found = run_episodes(model, pack, episodes, learners("recorder", "none", "other"), epochs=2, seed=3)
    assert Recorder.log == Other.log
    assert len(Recorder.log) == 3 * (6 + 3 * 6 + 12)
    assert [r.accuracy for r in found["recorder"]] == [r.accuracy for r in found["other"]]
    assert found["recorder"][0].stats.losses == (1.0, 1.0)
    enrolled = [entry[1] for entry in Recorder.log if entry[0] == "enroll"]
    clean = [entry[2] for entry in Recorder.log if entry[0] == "train" and entry[1] == CLEAN]
    augmented = [entry[2] for entry in Recorder.log if entry[0] == "train" and entry[1] >= 0]
    assert clean == enrolled
    assert len(set(augmented)) == len(augmented) == 36  # a new image for every sample, epoch and episode


def test_an_episode_does_not_depend_on_the_others(model: CompiledModel, pack: Pack, episodes: list[Episode]) -> None:
    run_episodes(model, pack, episodes[:1], learners("recorder"), epochs=1, seed=3)
    alone = list(Recorder.log)
    Recorder.log.clear()
    together = run_episodes(model, pack, episodes, learners("other", "recorder"), epochs=1, seed=3)
    assert Recorder.log[: len(alone)] == alone
    again = run_episodes(model, pack, episodes, learners("recorder"), epochs=1, seed=3)
    assert [r.accuracy for r in again["recorder"]] == [r.accuracy for r in together["recorder"]]
    Recorder.log.clear()
    run_episodes(model, pack, episodes[:1], learners("recorder"), epochs=1, seed=4)
    assert Recorder.log != alone


def test_workers_change_nothing(model: CompiledModel, pack: Pack, episodes: list[Episode]) -> None:
    seen: list[int] = []
    both = learners("none", "recorder")
    one = run_episodes(model, pack, episodes, both, epochs=2)
    two = run_episodes(model, pack, episodes, both, epochs=2, workers=2, progress=lambda done, _: seen.append(done))
    timeless = [{n: [replace(r, seconds=0) for r in results] for n, results in each.items()} for each in (one, two)]
    assert timeless[0] == timeless[1]
    assert seen == list(range(7))
    with pytest.raises(TinyTrainError, match="cannot be compiled") as caught:
        run_episodes(model, pack, episodes, learners("broken", "none"), workers=2)
    assert caught.value.exit_code == UnsupportedModelError.exit_code


def test_float_samples_are_not_augmented(model: CompiledModel, pack: Pack, episodes: list[Episode]) -> None:
    floats = replace(pack, values=pack.values.astype(np.float32) / 127.5 - 1)
    run_episodes(model, floats, episodes[:1], learners("recorder"), epochs=1)
    trained = [entry[2] for entry in Recorder.log if entry[0] == "train"]
    assert trained[:6] == trained[6:]


def test_a_linear_head_is_trained_even_where_no_layer_is(
    model: CompiledModel, pack: Pack, episodes: list[Episode]
) -> None:
    linear = LearnerOptions(head="linear")
    found = run_episodes(model, pack, episodes[:2], learners("none", "last-layer"), epochs=4, options=linear)
    assert all(len(result.stats.losses) == 4 for results in found.values() for result in results)
    plain = run_episodes(model, pack, episodes[:2], learners("none"), options=LearnerOptions(head="prototype"))["none"]
    assert [r.accuracy for r in plain] == [
        r.accuracy for r in run_episodes(model, pack, episodes[:2], learners("none"))["none"]
    ]
    assert plain[0].stats.losses == ()
    assert found["none"][0].sram_bytes > plain[0].sram_bytes
    with pytest.raises(UsageError, match="--head square: choose one of prototype, linear"):
        run_episodes(model, pack, episodes[:1], learners("none"), options=LearnerOptions(head="square"))


def test_the_networks_own_classes_are_asked_without_enrolling(model: CompiledModel, pack: Pack) -> None:
    from tinytrain_compiler.evaluate import to_inputs

    five = replace(pack, labels=pack.labels % 5, class_names=tuple("abcde"))
    episodes = sample_episodes(five, way=3, shot=2, queries=4, count=2, seed=1)
    found = evaluate(model, five, episodes, policies_named(["none"]), network=True)["policies"]
    assert list(found) == ["network", "none"]
    for episode, accuracy in zip(episodes, found["network"]["per_episode"], strict=True):
        outputs = [
            run(model.graph, to_inputs(five, [i], model)[0].reshape(-1))[0].reshape(-1) for _, i in episode.query
        ]
        answers = [int(output[list(episode.classes)].argmax()) for output in outputs]
        labels = [label for label, _ in episode.query]
        assert accuracy == pytest.approx(100 * np.mean(np.equal(answers, labels)))
    with pytest.raises(UsageError, match="has 4 classes, the network 5 outputs"):
        evaluate(model, pack, episodes, policies_named(["none"]), network=True)


class Declared:
    """In place of a built model: a call must be of a function that the model's header declares."""

    def __init__(self, directory: Path, layout: HostLayout) -> None:
        self._header, self._name = (directory / f"{layout.name}.h").read_text(), layout.name

    def _called(self, function: str) -> None:
        assert f" {self._name}_{function}(" in self._header

    def forget(self) -> None:
        self._called("forget")

    def unlearn(self) -> None:
        self._called("unlearn")

    def train(self, *arguments: object) -> Trained:
        self._called("train")
        return Trained((), 0)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("policy", "head"), [("none", "linear"), ("last-layer", "prototype")])
def test_every_policy_and_head_of_every_folder(
    small_model: Path, tmp_path: Path, policy: str, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that trains, evaluated with a policy that does not, called a function that is not there."""
    monkeypatch.setattr(host_learner, "HostModel", Declared)
    compile_model(small_model, "stm32f746", tmp_path / "net", classes=2, policy=policy, head=head)
    model = load_compiled(tmp_path / "net")
    (tmp_path / "scheme.toml").write_text("depth = 2\n[fractions]\n2 = 0.5\n")
    named = policies_named(evaluated_names(), {"scheme": tmp_path / "scheme.toml"})
    assert len(named) == len(POLICIES) + len(SELECTORS)
    for evaluated in named.values():
        for options in (LearnerOptions(head=name) for name in HEADS):
            learner = HostLearner(model, options, evaluated)
            learner.forget()
            learner.train(lambda index, epoch: np.zeros(0, np.int8), [0], 1, 1, lambda done, total: None)
            learner.close()


def test_a_folder_that_trains_serves_prototypes(
    small_model: Path, model: CompiledModel, pack: Pack, episodes: list[Episode], tmp_path: Path
) -> None:
    compile_model(small_model, "stm32f746", tmp_path / "net", classes=4, policy="last-layer", head="linear")
    trains, options = load_compiled(tmp_path / "net"), LearnerOptions(head="prototype")
    found = run_episodes(trains, pack, episodes, learners("none"), options=options)["none"]
    expected = run_episodes(model, pack, episodes, learners("none"))["none"]
    assert [(r.accuracy, r.sram_bytes) for r in found] == [(r.accuracy, r.sram_bytes) for r in expected]


def test_wrong_requests(model: CompiledModel, pack: Pack, episodes: list[Episode]) -> None:
    with pytest.raises(UsageError, match="policy 'nome' does not exist, did you mean none"):
        policies_named(["nome"])
    with pytest.raises(UsageError, match="named twice"):
        policies_named(["none", "none"])
    with pytest.raises(UsageError, match="no policy given"):
        policies_named([])
    with pytest.raises(UsageError, match="4 episodes are asked for, 3 are there"):
        evaluate(model, pack, episodes, policies_named(["none"]), count=4)
    with pytest.raises(UsageError, match="no episodes"):
        evaluate(model, pack, [], policies_named(["none"]))
    wide = replace(pack, labels=np.arange(80, dtype=np.int64) % 8, class_names=tuple("abcdefgh"))
    with pytest.raises(UsageError, match="compile the model with --classes 5"):
        evaluate(model, wide, sample_episodes(wide, 5, 1, 1, 1), policies_named(["none"]))


# -- instructions of a step ----------------------------------------------------------------------


def test_a_step_is_measured_once_a_policy(
    model: CompiledModel, pack: Pack, episodes: list[Episode], monkeypatch: pytest.MonkeyPatch
) -> None:
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm", "cc")
    runs = []
    original = instructions.measure_training

    def spy(*arguments: Any, **options: Any) -> Any:
        runs.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(instructions, "measure_training", spy)
    notes: list[str] = []
    found = evaluate(
        model,
        pack,
        episodes,
        policies_named(["none", "bias", "last-layer"]),
        epochs=1,
        emulation=True,
        note=notes.append,
    )["policies"]
    assert len(runs) == 2, "once each, whatever the number of episodes; none takes no steps"
    assert notes == []
    assert found["none"]["instructions_per_step"] is found["none"]["instructions_forward"] is None
    for policy in ("bias", "last-layer"):
        step = found[policy]
        loss = step["instructions_per_step"] - step["instructions_forward"] - step["instructions_backward"]
        assert min(loss, step["instructions_forward"], step["instructions_backward"]) > 500
    assert found["bias"]["instructions_backward"] != found["last-layer"]["instructions_backward"]


def test_a_step_that_cannot_be_measured_is_noted_in_one_line(
    model: CompiledModel, pack: Pack, episodes: list[Episode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instructions, "COMPILER", "gcc-that-is-not-there")
    notes: list[str] = []
    found = evaluate(
        model, pack, episodes, policies_named(["none", "bias"]), epochs=1, emulation=True, note=notes.append
    )["policies"]
    assert found["bias"]["instructions_per_step"] is None
    (note,) = notes
    assert "\n" not in note
    assert "a step of bias were not measured: 'gcc-that-is-not-there' is not installed" in note


def test_no_emulation_unless_asked_for(
    model: CompiledModel, pack: Pack, episodes: list[Episode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(instructions, "measure_training")
    found = evaluate(model, pack, episodes[:1], policies_named(["bias"]), epochs=1)["policies"]["bias"]
    assert found["instructions_per_step"] is None


@pytest.mark.parametrize("option", [[], ["--no-emulation"]])
def test_command_measures_unless_told_not_to(
    run_cli: Cli, model: CompiledModel, pack: Pack, tmp_path: Path, option: list[str]
) -> None:
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm", "cc")
    np.savez(tmp_path / "stripes.npz", images=pack.values, labels=pack.labels)
    ran = run_cli(
        "tinytrain", "evaluate", model.directory, "--pack", tmp_path / "stripes.npz", "--way", "2", "--shot", "1",
        "--count", "1", "--epochs", "1", "--policy", "bias", "--json", *option,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)["policies"]["bias"]
    assert (found["instructions_per_step"] is None) == bool(option)


# -- tables --------------------------------------------------------------------------------------


def result(pack: str, **policies: list[float]) -> dict[str, Any]:
    entries = {}
    for name, values in policies.items():
        e = estimate(values)
        steps = None if name == "none" else 1_000_000
        entries[name] = {
            "accuracy": e.mean, "ci95": e.half_width, "episodes": len(values), "sram_bytes": 5000,
            "instructions_per_step": steps, "per_episode": values,
        }  # fmt: skip
    return {"pack": pack, "episodes": len(values), "policies": entries}


RESULTS = [
    result("signs", none=[10.0, 50.0, 90.0], bias=[12.0, 51.0, 93.0], full=[15.0, 54.0, 96.0]),
    result("letters", none=[60.0, 60.0, 60.0], bias=[60.0, 59.0, 61.0], full=[66.0, 65.0, 67.0]),
]


def test_differences_are_paired_and_averaged() -> None:
    found = differences(RESULTS)
    assert list(found) == [("bias", "none"), ("full", "none"), ("full", "bias")]
    assert [e.mean for e in found["bias", "none"]] == [2.0, 0.0, 1.0]
    assert [e.excludes_zero for e in found["full", "none"]] == [True, True, True]
    assert [e.excludes_zero for e in found["bias", "none"]] == [False, False, False]


def test_tables_on_terminal_and_in_documents() -> None:
    console = Console(width=140, file=StringIO())
    print_results(RESULTS, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    document = markdown(RESULTS)
    for shown in (text, document):
        assert "50.0 ± 99.4" in shown
        assert "1,000,000" in shown
        assert "full - none" in shown
        assert "+5.5 ± " in shown
    assert "| bias - none | +2.0 ± 2.5 | +0.0 ± 2.5 |" in document
    assert "| none | 50.0 ± 99.4 | 60.0 ± 0.0 |" in document


def test_table_of_one_policy_and_one_episode() -> None:
    document = markdown([result("signs", none=[50.0])])
    assert "accuracy in %, 1 episode a pack" in document
    assert "| none | 50.0 | 5,000 | - |" in document
    assert "paired:" not in document
