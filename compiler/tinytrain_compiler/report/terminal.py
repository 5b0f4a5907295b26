"""The report as tables on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def _shape(shape: list[int]) -> str:
    return "x".join(str(d) for d in shape)


def _count(value: int) -> str:
    return f"{value:,}" if value else ""


def print_report(report: dict[str, Any], console: Console) -> None:
    """Layers, memory map, and required / available / left."""
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
            layer["kernel"].removeprefix(prefix),
        )  # fmt: skip
    console.print(layers)

    memory = Table(title="memory map of the arena", title_justify="left")
    for column, justify in (
        ("buffer", "left"),
        ("region", "left"),
        ("from", "right"),
        ("bytes", "right"),
        ("live in layers", "left"),
    ):
        memory.add_column(column, justify=justify)  # type: ignore[arg-type]
    sram, flash = report["memory"]["sram"], report["memory"]["flash"]
    for buffer in sorted(report["buffers"], key=lambda b: (b["region"], b["offset"], b["first_layer"])):
        span = f"{buffer['first_layer']} .. {buffer['last_layer']}"
        bank = sram["regions"][buffer["region"]]["bank"]
        memory.add_row(buffer["name"], bank, f"{buffer['offset']:,}", f"{buffer['bytes']:,}", span)
    console.print(memory)

    fit = Table(title="does it fit", title_justify="left")
    fit.add_column("memory")
    for column in ("required", "available", "left"):
        fit.add_column(column, justify="right")
    required = sram["total_bytes"] + sram["stack_bytes"]
    fit.add_row("SRAM", f"{required:,}", f"{sram['budget_bytes']:,}", f"{sram['left_bytes']:,}")
    for label, key in (("arena", "arena_bytes"), ("session", "session_bytes"), ("stack", "stack_bytes")):
        fit.add_row(f"  {label}", f"{sram[key]:,}", "", "")
    fit.add_row("flash", f"{flash['total_bytes']:,}", f"{flash['budget_bytes']:,}", f"{flash['left_bytes']:,}")
    fit.add_row("  weights", f"{flash['weights_bytes']:,}", "", "")
    fit.add_row("  code, at most", f"{flash['code_bound_bytes']:,}", "", "")
    console.print(fit)

    quantization = report["quantization"]
    agreement = quantization["top1_agreement"]
    console.print(
        f"{report['model']['macs']:,} MACs, {report['model']['parameters']:,} parameters; "
        f"arena {sram['arena_bytes']:,} bytes = {sram['arena_to_lower_bound']:.3f} x the lower bound"
    )
    console.print(f"calibrated on {quantization['calibration']}")
    if agreement is not None:
        console.print(f"top-1 agreement of int8 with float on these samples: {agreement:.1%}")
