"""Models and policies that do not fit: exit code 3, what is too large, and a smaller policy that does fit."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Cli, Ran
from graphs import GraphBuilder
from test_memory_planner import two_bank_board
from test_training import network
from tinytrain_compiler.boards import Board, load_board
from tinytrain_compiler.errors import DoesNotFitError
from tinytrain_compiler.fit.policy_fit import Plan, plan_that_fits
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.lowering import lower
from tinytrain_compiler.training.options import DEFAULT
from tinytrain_compiler.training.scheme import Scheme, TrainedLayer, as_candidates
from tinytrain_compiler.training.scheme_file import read_scheme, scheme_lines
from tinytrain_compiler.training.smaller import smaller_schemes
from tinytrain_compiler.training.trainable import embedding_layers, trainable_layers


def scheme_of(layers: dict[str, int]) -> Scheme:
    return Scheme({name: TrainedLayer(tuple(range(count))) for name, count in layers.items()})


def graph_and_names() -> tuple[Graph, list[str]]:
    graph, _ = network()
    return graph, [node.name for node in embedding_layers(graph)]


@pytest.mark.parametrize(
    "layers",
    [
        {"vector": 0},
        {"vector": 7},
        {"vector": 1, "project": 5, "depthwise": 0},
        {"expand": 3},  # not among the last layers
        {"stem": 1, "project": 17, "vector": 0},
    ],
)
def test_scheme_as_a_file_is_read_back_as_it_was(layers: dict[str, int], tmp_path: Path) -> None:
    graph, _ = network()
    path = tmp_path / "scheme.toml"
    trainable = trainable_layers(graph)
    path.write_text("\n".join(scheme_lines(trainable, scheme_of(layers))))
    assert read_scheme(trainable, path).layers == scheme_of(layers).layers


def test_smaller_schemes_are_the_largest_that_pass() -> None:
    graph, names = graph_and_names()
    full = scheme_of(dict.fromkeys(names, 0) | {"expand": 7, "project": 16, "vector": 7})

    def channels(scheme: Scheme) -> int:
        return sum(len(layer.channels) for layer in scheme.layers.values())

    found = list(smaller_schemes(graph, full, lambda scheme: channels(scheme) <= 20))
    assert found
    for scheme in found:
        assert channels(scheme) <= 20
        assert list(scheme.layers) == names[-len(scheme.layers) :], "layers are given up from the input on"
    assert max(map(channels, found)) > 10
    assert [len(s.layers) for s in found] == sorted(len(s.layers) for s in found), "fewer channels, more layers"
    assert list(smaller_schemes(graph, full, lambda scheme: False)) == []


def plan_of(graph: Graph, board: Board, classes: int, limit: int | None = None) -> Plan:
    return lambda scheme, options: lower(graph, board, "net", classes, scheme, limit, options)


def compile_small(run_cli: Cli, model: Path, out: Path, *options: str | Path) -> Ran:
    return run_cli("tinytrain-compile", model, "--board", "stm32f746", "--classes", "4", "-o", out, *options)


def needed(out: Path) -> int:
    """Bytes of SRAM that a compiled folder's firmware must find, the linker's alignment included."""
    sram = json.loads((out / "report.json").read_text())["memory"]["sram"]
    return int(sram["total_bytes"] + sram["stack_bytes"] + 64)


def test_sram_budget_holds_for_inference(run_cli: Cli, small_model: Path, tmp_path: Path) -> None:
    assert compile_small(run_cli, small_model, tmp_path / "a").code == 0
    kib = -(-needed(tmp_path / "a") // 1024)
    fits = compile_small(run_cli, small_model, tmp_path / "b", "--sram", str(kib))
    assert fits.code == 0
    sram = json.loads((tmp_path / "b" / "report.json").read_text())["memory"]["sram"]
    assert sram["budget_bytes"] == 1024 * kib
    assert sram["left_bytes"] == 1024 * kib - sram["total_bytes"] - sram["stack_bytes"]
    assert f"--sram {kib}" in json.loads((tmp_path / "b" / "manifest.json").read_text())["command"]
    ran = compile_small(run_cli, small_model, tmp_path / "c", "--sram", str(kib - 1))
    assert ran.code == 3
    assert f"--sram allows {1024 * (kib - 1):,}: {needed(tmp_path / 'a') - 1024 * (kib - 1):,} too many" in ran.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"], "nothing half-written"


def test_sram_budget_above_the_boards_is_a_mistake(run_cli: Cli, small_model: Path, tmp_path: Path) -> None:
    ran = compile_small(run_cli, small_model, tmp_path / "out", "--sram", "321")
    assert (ran.code, "--sram 321: stm32f746 has 320 KiB; give at most that" in ran.err) == (2, True)
    assert compile_small(run_cli, small_model, tmp_path / "out", "--sram", "320").code == 0


@pytest.mark.parametrize("policy", ["bias", "last-layer", "sparse-update"])
def test_policy_that_does_not_fit_names_one_that_does(
    run_cli: Cli, small_model: Path, tmp_path: Path, policy: str
) -> None:
    (tmp_path / "big.toml").write_text("depth = 4\n[fractions]\n0 = 1.0\n")
    extra = ["--scheme", tmp_path / "big.toml"] if policy == "sparse-update" else []
    assert compile_small(run_cli, small_model, tmp_path / "none").code == 0
    assert compile_small(run_cli, small_model, tmp_path / "all", "--policy", policy, *extra).code == 0
    inference, total = needed(tmp_path / "none"), needed(tmp_path / "all")
    assert inference < total
    kib = (total - 1) // 1024
    assert inference <= 1024 * kib, "the test wants a budget between the two"
    started = time.perf_counter()
    ran = compile_small(run_cli, small_model, tmp_path / "out", "--policy", policy, *extra, "--sram", str(kib))
    assert time.perf_counter() - started < 10
    assert ran.code == 3
    assert not (tmp_path / "out").exists()
    assert f"--policy {policy} does not fit stm32f746" in ran.err
    assert f"needs {total:,} bytes" in ran.err
    assert f"--sram allows {1024 * kib:,}: {total - 1024 * kib:,} too many" in ran.err
    assert f"inference alone needs {inference:,} bytes of SRAM" in ran.err
    report = json.loads((tmp_path / "all" / "report.json").read_text())
    for purpose, size in report["memory"]["sram"]["by_purpose"]["at_peak_bytes"].items():
        assert not size or f"{purpose.replace('_', ' ')} {size:,}" in ran.err
    offered = re.search(r"what would fit: .* ([\d,]+) bytes of SRAM; FILE:\n((?:    .*\n)+)", ran.err)
    assert offered, ran.err
    (tmp_path / "offered.toml").write_text(offered[2])
    options = ("--policy", "sparse-update", "--scheme", tmp_path / "offered.toml", "--sram", str(kib))
    assert compile_small(run_cli, small_model, tmp_path / "smaller", *options).code == 0
    assert needed(tmp_path / "smaller") == int(offered[1].replace(",", "")) <= 1024 * kib


def test_policy_none_is_named_where_no_smaller_one_fits() -> None:
    graph, scheme = network()
    board = load_board("stm32f746")
    limit = lower(graph, board, "net", 4).sram.needed
    lowered, inference = plan_that_fits("none", None, DEFAULT, plan_of(graph, board, 4, limit))
    assert lowered is inference
    with pytest.raises(DoesNotFitError, match="what would fit: --policy none"):
        plan_that_fits("sparse-update", scheme, DEFAULT, plan_of(graph, board, 4, limit))


def test_policy_that_no_bank_can_hold_is_explained_too(tmp_path: Path) -> None:
    """Two memories that do not touch: what training adds may be too large for both, though not for their sum."""
    graph, scheme = network()
    board = load_board(two_bank_board(tmp_path, fast=2816, slow=2048))
    with pytest.raises(DoesNotFitError) as caught:
        plan_that_fits("sparse-update", scheme, DEFAULT, plan_of(graph, board, 1, None))
    message = str(caught.value)
    assert message.startswith("--policy sparse-update does not fit small\n")
    assert "most bytes are live at" in message
    assert "what would fit" in message


def test_inference_that_does_not_fit_is_said_to_be_the_reason(run_cli: Cli, small_model: Path, tmp_path: Path) -> None:
    ran = compile_small(run_cli, small_model, tmp_path / "out", "--policy", "bias", "--sram", "5")
    assert ran.code == 3
    assert "the model does not fit stm32f746" in ran.err
    assert "what would fit" not in ran.err


def test_limit_reaches_the_plan() -> None:
    graph, scheme = network()
    board = load_board("stm32f746")
    assert lower(graph, board, "net", 4, scheme, 9999).sram.budget == 9999
    assert lower(graph, board, "net", 4, scheme).sram.budget == board.ram_bytes


# -- the pool: what is proposed was tried --------------------------------------------------------


def wide_network() -> tuple[Graph, Scheme]:
    """Candidates that could use 400 KiB, and a pass over their inputs that takes its share."""
    b = GraphBuilder((4, 4, 3), seed=4)
    x = b.conv2d(b.input, 192, name="stem")
    x = b.conv2d(b.conv2d(x, 512, name="expand"), 192, name="project")
    graph = b.build(b.reshape(b.avg_pool(x)))
    return graph, as_candidates(trainable_layers(graph), scheme_of({"expand": 192, "project": 512}))


def proposed(message: str, option: str) -> int:
    found = re.search(rf"(?:what would fit:|give) --{option} (\d+)", message)
    assert found, message
    return int(found[1])


@pytest.mark.parametrize("board", ["stm32f746", "nrf52840dk"])
def test_pool_that_is_proposed_fits_and_is_the_largest(board: str) -> None:
    graph, scheme = wide_network()
    plan = plan_of(graph, load_board(board), 10)
    refused = 0
    for asked in (380, 300, 200, 20):
        options = replace(DEFAULT, pool=1024 * asked)
        try:
            plan_that_fits("tinytrain", scheme, options, plan)
        except DoesNotFitError as error:
            refused += 1
            pool = proposed(str(error), "pool")
            assert pool < asked
            plan_that_fits("tinytrain", scheme, replace(options, pool=1024 * pool), plan)
            with pytest.raises(DoesNotFitError):
                plan_that_fits("tinytrain", scheme, replace(options, pool=1024 * (pool + 1)), plan)
    assert 2 <= refused < 4


def test_least_pool_is_proposed_only_where_it_fits() -> None:
    graph, scheme = wide_network()
    board = load_board("stm32f746")
    options = replace(DEFAULT, pool=1024)
    with pytest.raises(DoesNotFitError, match="the training pool of 1,024 bytes is too small") as caught:
        plan_that_fits("tinytrain", scheme, options, plan_of(graph, board, 10))
    least = proposed(str(caught.value), "pool")
    plan_that_fits("tinytrain", scheme, replace(options, pool=1024 * least), plan_of(graph, board, 10))
    limit = lower(graph, board, "net", 10).sram.needed + 1024 * least // 2
    with pytest.raises(DoesNotFitError) as caught:
        plan_that_fits("tinytrain", scheme, options, plan_of(graph, board, 10, limit))
    message = str(caught.value)
    assert f"--pool {least} does not fit the memory either" in message
    assert re.search("what would fit: --policy (sparse-update|none)", message)


def test_each_of_two_options_that_ask_for_too_little_is_named() -> None:
    graph, scheme = wide_network()
    plan = plan_of(graph, load_board("stm32f746"), 10)
    options = replace(DEFAULT, pool=1024, macs=1)
    with pytest.raises(DoesNotFitError, match=r"give --pool \d+ --macs \d+ or more") as caught:
        plan_that_fits("tinytrain", scheme, options, plan)
    pool, macs = (int(n) for n in re.findall(r"--(?:pool|macs) (\d+)", str(caught.value))[-2:])
    plan_that_fits("tinytrain", scheme, replace(options, pool=1024 * pool, macs=macs), plan)
