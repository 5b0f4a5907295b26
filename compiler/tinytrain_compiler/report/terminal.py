"""The report as tables on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..fit.storage import why_not, would_fit
from ..memory import NoSlots
from ..memory.slots import DECLINED
from ..schedule import moment_name


def _shape(shape: list[int]) -> str:
    return "x".join(str(d) for d in shape)


def _count(value: int) -> str:
    return f"{value:,}" if value else ""


PURPOSE_COLOURS = {
    "inference": "blue", "masks": "cyan", "saved_inputs": "yellow", "gradients": "magenta", "scratch": "bright_black",
    "parameters": "green", "training_state": "red", "loss": "white",
}  # fmt: skip
FIT_PARTS = {  # of each memory, label: key
    "SRAM": {
        "arena": "arena_bytes",
        "session": "session_bytes",
        "audio front end": "audio_bytes",
        "stack": "stack_bytes",
    },
    "flash": {
        "weights": "weights_bytes",
        "code, at most": "code_bound_bytes",
        "audio front end": "audio_bytes",
        "slots of saved states": "slots_bytes",
    },
}
BAR = 40  # characters for the lower bound
MAP_ROWS = 16
MAP_COLOURS = ("blue", "green", "yellow", "magenta", "cyan", "red")


def print_memory_map(report: dict[str, Any], console: Console) -> None:
    """The arena as a picture: steps from left to right, addresses upwards, a letter and colour per buffer."""
    steps = report["steps"]
    backward = ", then the loss and the backward pass" if steps > len(report["layers"]) else ""
    for index, region in enumerate(report["memory"]["sram"]["regions"]):
        buffers = [b for b in report["buffers"] if b["region"] == index]
        row_bytes = -(-region["bytes"] // MAP_ROWS)
        console.print(
            f"[italic]memory map: {region['bytes']:,} bytes in {region['bank']}, columns are layers{backward}, "
            f"one row is {row_bytes:,} bytes; all offsets are in {report['model']['name']}_arena.h"
        )
        for row in reversed(range(MAP_ROWS)):
            line = Text(f"{row * row_bytes:>9,} ", style="dim")
            for step in range(steps):
                line.append(*_cell(buffers, step, row * row_bytes, (row + 1) * row_bytes))
            console.print(line)


def _cell(buffers: list[dict[str, Any]], step: int, start: int, end: int) -> tuple[str, str]:
    """Letter and style of what fills most of the addresses start .. end during a layer."""

    def overlap(b: dict[str, Any]) -> int:
        if not b["first_step"] <= step <= b["last_step"]:
            return 0
        return max(0, min(end, int(b["offset"] + b["bytes"])) - max(start, int(b["offset"])))

    best = max(range(len(buffers)), key=lambda i: overlap(buffers[i]))
    if 2 * sum(overlap(b) for b in buffers) < end - start:
        return "·", "dim"
    return chr(ord("a") + best % 26), MAP_COLOURS[best % len(MAP_COLOURS)]


def print_purposes(sram: dict[str, Any], console: Console) -> None:
    """The arena by purpose, for a model that trains: at the step that needs most, and each purpose's own most."""
    use = sram["by_purpose"]
    peak = use["peak"]
    table = Table(title="arena by purpose", title_justify="left")
    table.add_column("purpose")
    table.add_column(f"bytes at {moment_name(peak['phase'], peak['layer'])}", justify="right", overflow="fold")
    table.add_column(f"of {sram['lower_bound_bytes']:,}", width=BAR)
    table.add_column("most at any step", justify="right")
    begin = 0
    for purpose, size in use["at_peak_bytes"].items():
        end = begin + size
        left, right = (round(BAR * edge / sram["lower_bound_bytes"]) for edge in (begin, end))
        bar = Text(" " * left + "█" * (right - left), style=PURPOSE_COLOURS[purpose])
        table.add_row(purpose.replace("_", " "), _count(size), bar, _count(use["largest_bytes"][purpose]))
        begin = end
    table.add_section()
    table.add_row("together (lower bound)", f"{begin:,}", "", "")
    table.add_row("arena", f"{sram['arena_bytes']:,}", "", "")
    console.print(table)
    added = sram["arena_bytes"] - sram["inference_arena_bytes"]
    console.print(
        f"training adds {added:,} bytes to the inference arena of {sram['inference_arena_bytes']:,}; most at any step "
        f"do not add up: purposes share bytes over time"
    )


def print_report(report: dict[str, Any], console: Console) -> None:
    """Layers, memory map, and required / available / left."""
    sram, training, quantization = report["memory"]["sram"], report["training"], report["quantization"]
    _print_layers(report, console)
    print_memory_map(report, console)
    if training is not None:
        print_purposes(sram, console)
    _print_fit(sram, report["memory"]["flash"], console)
    if training is not None:
        _print_training(report, training, console)
    _print_storage(report["storage"], console)
    console.print(
        f"{report['model']['macs']:,} MACs, {report['model']['parameters']:,} parameters; "
        f"arena {sram['arena_bytes']:,} bytes = {sram['arena_to_lower_bound']:.3f} x the lower bound"
    )
    console.print(f"calibrated on {_calibration(quantization['calibration'])}")
    if quantization["top1_agreement"] is not None:
        console.print(f"top-1 agreement of int8 with float on these samples: {quantization['top1_agreement']:.1%}")


def _print_layers(report: dict[str, Any], console: Console) -> None:
    prefix = report["model"]["name"] + "_"
    layers = Table(title=f"{report['model']['name']} for {report['board']['name']}", title_justify="left")
    for column in ("layer", "operator", "input", "output"):
        layers.add_column(column, overflow="fold")
    for column in ("MACs", "weights B"):
        layers.add_column(column, justify="right")
    layers.add_column("kernel", overflow="fold")
    for layer in report["layers"]:
        layers.add_row(
            layer["name"], layer["op"], _shape(layer["input_shape"]), _shape(layer["output_shape"]),
            _count(layer["macs"]), _count(layer["weight_bytes"]),
            (layer["kernel"] or "none (same bytes)").removeprefix(prefix),
        )  # fmt: skip
    console.print(layers)


def _print_fit(sram: dict[str, Any], flash: dict[str, Any], console: Console) -> None:
    fit = Table(title="does it fit", title_justify="left")
    fit.add_column("memory")
    for column in ("required", "available", "left"):
        fit.add_column(column, justify="right")
    for name, required, memory in (
        ("SRAM", sram["total_bytes"] + sram["stack_bytes"], sram),
        ("flash", flash["total_bytes"] + flash["slots_bytes"], flash),
    ):
        fit.add_row(name, f"{required:,}", f"{memory['budget_bytes']:,}", f"{memory['left_bytes']:,}")
        for label, key in FIT_PARTS[name].items():
            if memory[key]:
                fit.add_row(f"  {label}", f"{memory[key]:,}", "", "")
    console.print(fit)


def _print_training(report: dict[str, Any], training: dict[str, Any], console: Console) -> None:
    weights = f"{training['weights']:,} weights"
    if training["selection"] is not None:
        _print_selection(training["selection"], training["fisher_passes"], console)
        weights = f"up to {training['selectable_weights']:,} weights that the device chooses"
    console.print(
        f"policy {report['policy']}, {report['head']} head: {weights} and {training['biases']:,} biases "
        f"of {len(training['layers'])} layers are trained; the training state takes "
        f"{training['training_state_bytes']:,} bytes of the arena"
    )
    for group in training["frozen"]:
        count = len(group["names"])
        names, reason = escape(", ".join(group["names"])), escape(group["reason"])
        console.print(f"frozen: {count} layer{'s' * (count > 1)}, {names}: {reason}")


def _print_storage(storage: dict[str, Any], console: Console) -> None:
    """Where saved states lie, or a warning that they have no place."""
    if storage["slots"]:
        slots = storage["slots"]
        console.print(
            f"a saved state takes up to {storage['state_bytes']:,} bytes; two slots of {slots['slot_bytes']:,} lie at "
            f"{slots['origin']:#010x}, erased {slots['erase_bytes']:,} at once, and the linker script keeps them free"
        )
        return
    none = NoSlots(**storage["no_slots"])
    style = "" if none.why == DECLINED else "bold yellow"
    console.print(f"no room to save the training state: {why_not(none)}", style=style)
    for line in would_fit(none):
        console.print(f"  {line}")


def _calibration(facts: dict[str, Any]) -> str:
    if facts["source"] is None:
        return f"{facts['samples']} generated 1/f-noise samples, so accuracy is unverified"
    array = f" ({facts['array']})" if facts["array"] else ""
    return f"{facts['samples']} of {facts['available']} samples of {facts['source']}{array}"


def _print_selection(selection: dict[str, Any], passes: int, console: Console) -> None:
    """Layers whose channels the device chooses; all others learn their biases or nothing."""
    table = Table(title="candidate layers, and the cost of one input channel of each", title_justify="left")
    table.add_column("layer")
    for column in ("channels", "at most", "deltas", "saved input", "MACs a step"):
        table.add_column(column, justify="right")
    for c in selection["candidates"]:
        cells = (c["channels"], c["limit"], c["delta_bytes"], c["saved_bytes"], c["macs"])
        table.add_row(c["name"], *(f"{value:,}" for value in cells))
    console.print(table)
    macs = selection["macs"]
    console.print(
        f"a pool of {selection['pool_bytes']:,} of the {selection['usable_bytes']:,} bytes that all of these could "
        f"use: {selection['fixed_bytes']:,} for biases, the rest for deltas of chosen channels"
    )
    console.print(
        f"selector {selection['selector']}, "
        + (f"{passes} {'pass' if passes == 1 else 'passes'} over the samples, " if passes else "")
        + ("no MAC limit" if macs is None else f"at most {macs:,} MACs of weight gradients a step")
    )
