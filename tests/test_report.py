"""The report: its numbers are the plan's and the graph's own, and the printed tables hold them."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from graphs import GraphBuilder
from jsonschema import Draft202012Validator, ValidationError
from networks import NETWORKS
from rich.console import Console
from test_training import network
from tinytrain_compiler import Artifacts
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.footprint.use import session_bytes
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.lowering import lower
from tinytrain_compiler.provenance import Input
from tinytrain_compiler.quantize.calibration import Calibration
from tinytrain_compiler.report.build import build_report
from tinytrain_compiler.report.schema import json_schema
from tinytrain_compiler.report.terminal import BAR, print_report
from tinytrain_compiler.runtime_abi import SESSION_STRUCT
from tinytrain_compiler.training.scheme import Scheme

NO_DATA = Calibration(np.zeros((4, 3, 8, 8), np.float32), None, 4)


def report_of(
    graph: Graph, board: str = "stm32f746", agreement: float | None = 0.875, scheme: Scheme | None = None
) -> dict[str, Any]:
    target = load_board(board)
    inference, lowered = lower(graph, target, "net", 10), lower(graph, target, "net", 10, scheme)
    return build_report(
        lowered, inference.plan, name="net", source=Input("net.onnx", "0" * 64), calibration=NO_DATA,
        top1_agreement=agreement, policy="none" if scheme is None else "sparse-update",
    ).as_json()  # fmt: skip


def text_of(report: dict[str, Any]) -> str:
    console = Console(width=140, record=True, file=io.StringIO())
    print_report(report, console)
    return console.export_text()


def test_macs_and_bytes_are_counted_per_layer() -> None:
    b = GraphBuilder((8, 6, 3))
    x = b.conv2d(b.input, 8, (3, 3), stride=(2, 2), pad_before=(1, 1), pad_after=(1, 1), name="conv")
    x = b.depthwise(x, (3, 3), pad_before=(1, 1), pad_after=(1, 1), name="depthwise")
    x = b.conv2d(x, 6, (1, 1), groups=2, name="grouped")
    x = b.reshape(b.avg_pool(x, name="pool"), name="flatten")
    b.fully_connected(x, 5, name="classifier")
    report = report_of(b.build())
    layers = {layer["name"]: layer for layer in report["layers"]}
    macs = {"conv": 4 * 3 * 8 * 27, "depthwise": 4 * 3 * 8 * 9, "grouped": 4 * 3 * 6 * 4, "pool": 0, "flatten": 0,
            "classifier": 30}  # fmt: skip
    assert {name: layer["macs"] for name, layer in layers.items()} == macs
    assert report["model"]["macs"] == sum(macs.values())
    assert report["model"]["parameters"] == (8 * 27 + 8) + (8 * 9 + 8) + (6 * 4 + 6) + (5 * 6 + 5)
    assert layers["conv"]["weight_bytes"] == 8 * 28 + 8 * 8, "rows padded to words, bias and multiplier each int32"
    assert layers["flatten"]["kernel"] is None
    assert layers["grouped"]["kernel"] == "net_conv2d_1x1_4x3x8_6_g2"
    assert (layers["conv"]["input_shape"], layers["conv"]["output_shape"]) == ([8, 6, 3], [4, 3, 8])


@pytest.mark.parametrize("name", NETWORKS)
def test_memory_adds_up(name: str) -> None:
    report = report_of(NETWORKS[name]())
    sram, flash = report["memory"]["sram"], report["memory"]["flash"]
    assert sram["arena_bytes"] == sum(region["bytes"] for region in sram["regions"])
    assert sram["total_bytes"] == sram["arena_bytes"] + sram["session_bytes"] + sram["static_bytes"]
    assert sram["left_bytes"] == sram["budget_bytes"] - sram["total_bytes"] - sram["stack_bytes"]
    assert flash["total_bytes"] == flash["weights_bytes"] + flash["code_bound_bytes"]
    assert flash["left_bytes"] == flash["budget_bytes"] - flash["total_bytes"] - flash["slots_bytes"]
    assert flash["weights_bytes"] >= sum(layer["weight_bytes"] for layer in report["layers"])
    assert sram["arena_bytes"] == max(b["offset"] + b["bytes"] for b in report["buffers"])
    live = [
        sum(b["bytes"] for b in report["buffers"] if b["first_step"] <= step <= b["last_step"])
        for step in range(len(report["layers"]))
    ]
    assert sram["lower_bound_bytes"] <= max(live)


@pytest.mark.parametrize(("classes", "features", "expected"), [(1, 1, 44), (10, 64, 1340), (3, 7, 88), (2, 3, 56)])
def test_session_is_the_struct_and_two_tables(classes: int, features: int, expected: int) -> None:
    assert session_bytes(classes, features, trains=False) == expected
    assert session_bytes(classes, features, trains=True) == 2 * expected - SESSION_STRUCT


def test_report_is_json_and_written_as_it_is_printed(compiled_small: Artifacts) -> None:
    assert json.loads(compiled_small.files["report.json"]) == compiled_small.report
    manifest = json.loads(compiled_small.files["manifest.json"])
    assert set(manifest["files"]) == set(compiled_small.files) - {"manifest.json"}


def test_tables_say_what_the_report_says(compiled_small: Artifacts) -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    print_report(compiled_small.report, console)
    text = console.export_text()
    report = compiled_small.report
    for layer in report["layers"]:
        assert layer["name"] in text
        assert "x".join(map(str, layer["output_shape"])) in text
    sram, flash = report["memory"]["sram"], report["memory"]["flash"]
    flash_bytes = flash["total_bytes"] + flash["slots_bytes"]
    for number in (sram["arena_bytes"], sram["budget_bytes"], sram["left_bytes"], flash_bytes, flash["left_bytes"],
                   report["model"]["macs"], report["model"]["parameters"]):  # fmt: skip
        assert f"{number:,}" in text
    assert "accuracy is unverified" in text
    assert "top-1 agreement" not in text


def test_agreement_is_printed_where_it_was_measured() -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    print_report(report_of(NETWORKS["mobile"]()), console)
    assert "top-1 agreement of int8 with float on these samples: 87.5%" in console.export_text()


# -- training ------------------------------------------------------------------------------------


def test_purposes_at_the_peak_add_up_to_the_lower_bound() -> None:
    graph, scheme = network()
    report = report_of(graph, scheme=scheme)
    sram, buffers = report["memory"]["sram"], report["buffers"]
    use = sram["by_purpose"]
    assert sum(use["at_peak_bytes"].values()) == sram["lower_bound_bytes"]
    step = use["peak"]["step"]
    for purpose, size in use["at_peak_bytes"].items():
        live = [b for b in buffers if b["purpose"] == purpose and b["first_step"] <= step <= b["last_step"]]
        # A buffer that an operator takes over may shrink, so for inference its largest size is only a bound.
        assert size <= sum(b["bytes"] for b in live)
        assert purpose == "inference" or size == sum(b["bytes"] for b in live)
        assert use["largest_bytes"][purpose] >= size
    assert all(use["largest_bytes"].values()), "this network's training has buffers of every purpose"
    assert use["largest_bytes"]["loss"] == 160, "two int64 a class"
    assert use["largest_bytes"]["training_state"] == -(-report["training"]["training_state_bytes"] // 16) * 16
    assert report["steps"] == 1 + max(b["last_step"] for b in buffers)


def test_every_buffer_has_the_purpose_of_its_name() -> None:
    graph, scheme = network()
    words = {
        "mask of": "masks", "argmax indices of": "masks", "inputs of": "saved_inputs",
        "gradient of": "gradients", "second gradient": "gradients", "scratch of": "scratch",
        "parameters of": "parameters", "training state": "training_state", "loss terms": "loss",
    }  # fmt: skip
    for buffer in report_of(graph, scheme=scheme)["buffers"]:
        expected = [purpose for word, purpose in words.items() if buffer["name"].startswith(word)]
        assert buffer["purpose"] == (expected[0] if expected else "inference"), buffer["name"]
        assert (buffer["purpose"] == "inference") == bool(buffer["tensors"] or buffer["name"].endswith("(scratch)"))


def test_training_adds_what_the_two_plans_differ_by() -> None:
    graph, scheme = network()
    plain, trained = report_of(graph), report_of(graph, scheme=scheme)
    sram = trained["memory"]["sram"]
    assert sram["inference_arena_bytes"] == plain["memory"]["sram"]["arena_bytes"] < sram["arena_bytes"]
    assert plain["memory"]["sram"]["inference_arena_bytes"] == plain["memory"]["sram"]["arena_bytes"]
    added = sram["arena_bytes"] - sram["inference_arena_bytes"]
    text = " ".join(text_of(trained).split())
    assert f"training adds {added:,} bytes to the inference arena of {sram['inference_arena_bytes']:,}" in text
    assert f"{sram['lower_bound_bytes']:,}" in text
    for purpose, size in sram["by_purpose"]["largest_bytes"].items():
        assert purpose.replace("_", " ") in text
        assert f"{size:,}" in text
    assert "arena by purpose" not in text_of(plain)


def test_bars_of_the_purposes_follow_each_other_to_the_whole() -> None:
    graph, scheme = network()
    report = report_of(graph, scheme=scheme)
    rows = [line for line in text_of(report).splitlines() if "█" in line]
    assert sum(line.count("█") for line in rows) == BAR
    columns = [i for line in rows for i, c in enumerate(line) if c == "█"]
    assert columns == list(range(columns[0], columns[0] + BAR))


def test_training_section_says_what_learns() -> None:
    graph, scheme = network()
    report = report_of(graph, scheme=scheme)
    training = report["training"]
    assert (report["policy"], report["head"]) == ("sparse-update", "prototype")
    layers = {layer["name"]: layer for layer in training["layers"]}
    assert set(layers) == set(scheme.layers)
    assert layers["expand"] == {"name": "expand", "channels": 4, "limit": 4, "weights": 18 * 4, "biases": 18}
    assert layers["wide"]["weights"] == 15 * 9 * 3
    assert layers["frozen weights"] == {"name": "frozen weights", "channels": 0, "limit": 0, "weights": 0, "biases": 13}
    assert training["weights"] == sum(layer["weights"] for layer in training["layers"])
    assert training["biases"] == sum(layer["biases"] for layer in training["layers"])
    assert training["saturation"]["weight_delta"] == 32767 / 256
    assert report_of(graph)["training"] is None


# -- the contract --------------------------------------------------------------------------------


def test_schema_is_printed_and_says_what_every_key_means(run_cli: Cli) -> None:
    ran = run_cli("tinytrain", "report-schema")
    assert ran.code == 0
    schema = json.loads(ran.out)
    assert schema == json_schema()
    Draft202012Validator.check_schema(schema)
    assert all(record["description"] for record in schema["$defs"].values())
    assert schema["$defs"]["Storage"]["properties"]["state_bytes"]["description"].startswith("<NAME>_STATE_BYTES")


@pytest.mark.parametrize("change", ["missing", "unknown", "type"])
def test_schema_refuses_what_is_no_report(compiled_small: Artifacts, change: str) -> None:
    report = json.loads(compiled_small.files["report.json"])
    if change == "missing":
        del report["memory"]["sram"]["arena_bytes"]
    elif change == "unknown":
        report["memory"]["sram"]["arena_bites"] = 1
    else:
        report["storage"]["slots"] = "two"
    with pytest.raises(ValidationError):
        Draft202012Validator(json_schema()).validate(report)


def sentences(value: Any) -> list[str]:
    """Strings of a report with a space in them."""
    if isinstance(value, dict):
        return [text for inner in value.values() for text in sentences(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in sentences(inner)]
    return [value] if isinstance(value, str) and " " in value else []


def test_no_sentence_stands_in_a_field(compiled_small: Artifacts) -> None:
    """The board's own description and the names of buffers that no tensor names are all the prose there is."""
    report = json.loads(compiled_small.files["report.json"])
    allowed = {report["board"]["description"], *(b["name"] for b in report["buffers"] if not b["tensors"])}
    assert set(sentences(report)) <= allowed
