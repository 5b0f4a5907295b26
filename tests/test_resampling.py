"""Channels drawn anew in every epoch, and the selector and the MACs that a model is compiled with."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli
from test_selection import TRAINING, Case
from test_training import CLASSES, LABELS
from tinytrain_compiler.errors import DoesNotFitError, UsageError
from tinytrain_compiler.evaluate import policies_named
from tinytrain_compiler.memory.lifetimes import align
from tinytrain_compiler.reference.draws import Draws, mix
from tinytrain_compiler.reference.selection import clamp_scores, redrawn
from tinytrain_compiler.reference.trainer import ReferenceTrainer
from tinytrain_compiler.targets.flash import SimulatedFlash
from tinytrain_compiler.targets.host import HostModel
from tinytrain_compiler.training.options import LearningOptions
from tinytrain_compiler.training.policies import TinyTrain, make_policy
from tinytrain_compiler.training.pool import PoolSizes, check_pool
from tinytrain_compiler.training.selectors import FISHER, FISHER_RESAMPLE, L2
from tinytrain_compiler.training.visits import SelectOptions

POOL = 2624  # room for all limits, but not with the table of scores kept
MACS = 4 * 360 + 12 * 160 + 4 * 2340  # of `last` four channels, not its limit of eight


# -- drawing -----------------------------------------------------------------------------------


def drawn_first(scores: list[float], draws: int = 4000) -> np.ndarray:
    """How often each channel is the one that is drawn, of `draws`."""
    weights = clamp_scores(np.array(scores, np.float32))
    return np.bincount([redrawn((0,), weights, Draws(mix(7, i)))[0] for i in range(draws)], minlength=len(scores))


def test_channels_are_drawn_in_proportion_to_their_scores() -> None:
    counts = drawn_first([1, 0, 4, 2, 1])
    assert counts[1] == 0
    assert counts == pytest.approx(np.array([500, 0, 2000, 1000, 500]), abs=5 * np.sqrt(1000))


@pytest.mark.parametrize("score", [0.0, np.inf, 2.0**127])
def test_equal_scores_are_equally_likely_however_small_or_large(score: float) -> None:
    assert drawn_first([score] * 5, 2000) == pytest.approx(np.full(5, 400), abs=5 * 18)


def test_channels_that_stay_keep_their_places() -> None:
    scores = clamp_scores(np.array([3, 1, 4, 1, 5, 9, 2, 6], np.float32))
    before, seen = (6, 0, 5, 3), set()
    for epoch in range(50):
        after = redrawn(before, scores, Draws(mix(1, epoch)))
        assert len(set(after)) == 4
        entered = [b for a, b in zip(before, after, strict=True) if a != b]
        assert entered == sorted(entered)
        assert not set(entered) & set(before)
        seen |= set(after)
    assert seen == set(range(8))
    assert redrawn(tuple(range(8)), scores, Draws(mix(1))) == tuple(range(8)), "all of them: nothing to draw"


def test_what_leaves_goes_back_to_factory_weights_and_what_enters_begins_there(case: Case) -> None:
    trainer = ReferenceTrainer(case.graph, case.scheme, CLASSES, case.options)
    trainer.select(case.sample, LABELS, SelectOptions(FISHER_RESAMPLE), case.budget(FISHER_RESAMPLE))
    trainer.train(case.sample, LABELS, replace(TRAINING, epochs=1))
    before, running = case.selected_by(trainer), {name: t.running for name, t in trainer.weights.items()}
    deltas = {name: t.deltas for name, t in trainer.weights.items()}
    trainer._redraw(TRAINING.seed, 1)
    after = case.selected_by(trainer)
    assert before != after
    effective = {node.name: node for node in trainer.effective().nodes}
    for c in case.selection.candidates:
        for i, (old, new) in enumerate(zip(before[c.node.name], after[c.node.name], strict=True)):
            expected = deltas[c.node.name][..., i] if old == new else 0
            assert (trainer.weights[c.node.name].deltas[..., i] == expected).all()
        changed = (effective[c.node.name].constants["weights"] != c.node.constants["weights"]).any((0, 1, 2))
        stayed = set(before[c.node.name]) & set(after[c.node.name])
        assert set(np.flatnonzero(changed)) <= stayed
        assert trainer.weights[c.node.name].running is running[c.node.name]


# -- the device --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Compiled to draw anew, with a budget of MACs."""
    return Case(tmp_path_factory.mktemp("resampling"), LearningOptions(pool=POOL, selector=FISHER_RESAMPLE, macs=MACS))


def train(case: Case, host: HostModel, epochs: int = TRAINING.epochs, seed: int = TRAINING.seed) -> np.ndarray:
    host.train(case.sample, LABELS, epochs, TRAINING.rate, seed)
    return case.training_state(host)


def test_the_compiled_selector_and_macs_are_what_training_uses(case: Case, host: HostModel) -> None:
    """A pool that is used up to where the kept scores begin, and a budget of MACs."""
    reference = ReferenceTrainer(case.graph, case.scheme, CLASSES, case.options)
    reference.select(case.sample, LABELS, SelectOptions(FISHER_RESAMPLE), case.budget(FISHER_RESAMPLE))
    reference.train(case.sample, LABELS, TRAINING)
    train(case, host)
    case.check(host, reference)
    assert {name: len(channels) for name, channels in case.selected(host).items()} == {
        "expand": 4, "project": 12, "last": 4,
    }  # fmt: skip
    host.select(case.sample, LABELS, FISHER)
    assert len(case.selected(host)["last"]) == 4, "all of the pool, but as many MACs as compiled"
    host.select(case.sample, LABELS, FISHER, macs=2**32 - 1)
    assert len(case.selected(host)["last"]) == 8, "all of the pool, and any number of MACs"
    host.select(case.sample, LABELS, L2, macs=4 * 360 + 4 * 160)
    assert {name: len(channels) for name, channels in case.selected(host).items()} == {
        "expand": 4, "project": 4, "last": 0,
    }  # fmt: skip


def test_the_first_epoch_has_the_channels_with_the_most_fisher_information(case: Case, host: HostModel) -> None:
    budget = case.budget(FISHER_RESAMPLE)
    host.select(case.sample, LABELS, FISHER, pool_bytes=budget.pool)
    best = case.selected(host)
    host.unlearn()
    train(case, host, epochs=1)
    assert case.selected(host) == best
    train(case, host, epochs=2)
    again = case.selected(host)
    assert again != best
    assert {n: len(c) for n, c in again.items()} == {n: len(c) for n, c in best.items()}


def test_seeds_change_the_draw_and_the_same_seed_repeats_it(case: Case, host: HostModel) -> None:
    def chosen(seed: int) -> tuple[dict[str, list[int]], bytes]:
        host.unlearn()
        state = train(case, host, seed=seed)
        return case.selected(host), state.tobytes()

    first = chosen(1)
    assert chosen(1) == first
    assert len({str(chosen(seed)[0]) for seed in range(1, 5)}) > 1


def test_a_state_that_was_saved_goes_on_being_drawn_anew(case: Case, host: HostModel) -> None:
    flash = SimulatedFlash(host.state_bytes)
    train(case, host, epochs=2)
    host.save(flash)
    saved = case.selected(host)
    straight = train(case, host).tobytes()
    assert case.selected(host) != saved
    host.unlearn()
    host.load(flash)
    assert case.selected(host) == saved
    assert train(case, host).tobytes() == straight


# -- the command line --------------------------------------------------------------------------


def compile_small(run_cli: Cli, model: Path, out: Path, *options: str) -> tuple[int, str, str]:
    return run_cli("tinytrain-compile", model, "--board", "stm32f746", "--json", "-o", out, *options)


def test_the_report_shows_selector_and_macs(run_cli: Cli, small_model: Path, tmp_path: Path) -> None:
    tinytrain = ("--policy", "tinytrain")
    code, _, err = compile_small(run_cli, small_model, tmp_path / "net", *tinytrain, "--macs", "1")
    assert code == 3
    assert "--macs 1 is too small" in err
    least = int(re.findall(r"give --macs (\d+) or more", err)[0])
    assert compile_small(run_cli, small_model, tmp_path / "net", *tinytrain, "--macs", str(least - 1))[0] == 3
    options = (*tinytrain, "--macs", str(least), "--selection", "random", "--name", "net")
    code, out, _ = compile_small(run_cli, small_model, tmp_path / "net", *options)
    assert code == 0
    selection = json.loads(out)["training"]["selection"]
    assert (selection["selector"], selection["macs"]) == ("random", least)
    assert json.loads(out)["training"]["fisher_passes"] == 0
    assert f"--selection random --macs {least}" in (tmp_path / "net" / "net.h").read_text()
    code, out, _ = compile_small(run_cli, small_model, tmp_path / "net", *tinytrain)
    selection = json.loads(out)["training"]["selection"]
    assert (selection["selector"], selection["macs"]) == ("fisher", None)


@pytest.mark.parametrize("option", [("--selection", "random"), ("--macs", "100000"), ("--pool", "32")], ids="=".join)
@pytest.mark.parametrize("policy", ["none", "bias"])
def test_options_of_another_policy_are_refused(
    run_cli: Cli, small_model: Path, tmp_path: Path, policy: str, option: tuple[str, str]
) -> None:
    code, out, err = compile_small(run_cli, small_model, tmp_path / "net", "--policy", policy, *option)
    assert (code, json.loads(out)["error"]["kind"]) == (2, "usage")
    assert err == f"error: {option[0]} belongs to --policy tinytrain, not to {policy}\n"


def test_wrong_values_are_refused(run_cli: Cli, small_model: Path, tmp_path: Path) -> None:
    tinytrain = ("--policy", "tinytrain")
    code, _, err = compile_small(run_cli, small_model, tmp_path / "net", *tinytrain, "--selection", "best")
    assert code == 2
    assert "--selection best: choose one of fisher, random, l2, layer-score, fisher-resample" in err
    assert compile_small(run_cli, small_model, tmp_path / "net", *tinytrain, "--macs", "0")[0] == 2
    with pytest.raises(UsageError, match="--macs 0: give a number from 1 to 4294967295"):
        make_policy("tinytrain", {"macs": 0})
    assert not (tmp_path / "net").exists()


def test_a_pool_that_leaves_no_room_for_four_channels_says_how_large_it_must_be(case: Case) -> None:
    candidates = case.selection.candidates
    cheapest = min(4 * (2 + c.delta_bytes) for c in candidates)
    sizes = PoolSizes(candidates, 2048, FISHER_RESAMPLE)
    smallest = 2048 + cheapest + sizes.table  # the scores stay
    assert smallest > sizes.choosing
    check_pool(sizes, align(smallest))
    with pytest.raises(DoesNotFitError, match=r"is too small.*give --pool 3 or more"):
        check_pool(sizes, smallest - 1)


def test_evaluate_refuses_macs_that_no_policy_uses(run_cli: Cli, small_model: Path, tmp_path: Path) -> None:
    ran = run_cli("tinytrain", "evaluate", tmp_path, "--pack", "none.npz", "--policy", "none,bias", "--macs", "5")
    assert ran.code == 2
    known = "tinytrain, fisher, random, l2, layer-score, fisher-resample"
    assert f"--macs belongs to policies {known}, not to none,bias" in ran.err


def test_policies_reach_worker_processes() -> None:
    names = ["none", "bias", "sparse-update", "tinytrain", "fisher-resample"]
    policies = policies_named(names, {"scheme": "a.toml", "pool": 3})
    assert pickle.loads(pickle.dumps(policies)) == policies
    assert policies["fisher-resample"] == TinyTrain(Path("a.toml"), 3, FISHER_RESAMPLE)
