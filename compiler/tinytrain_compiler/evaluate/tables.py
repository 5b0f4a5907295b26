"""Results of several packs side by side: accuracy of each policy, and the differences between policies."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from rich.console import Console
from rich.table import Table

from .statistics import Estimate, average, estimate, paired_difference

Result = dict[str, Any]  # what evaluate() returned for one pack
_NOTE = (
    "95 % intervals over episodes (Student's t). Differences are paired, episode by episode; "
    "* marks those whose interval excludes 0."
)


def _policies(results: Sequence[Result]) -> list[str]:
    """Those that every pack has, in the first one's order."""
    return [name for name in results[0]["policies"] if all(name in r["policies"] for r in results)]


def _packs(results: Sequence[Result]) -> list[str]:
    return [r["pack"] for r in results] + (["mean"] if len(results) > 1 else [])


def _with_average(groups: Sequence[Sequence[float]]) -> list[Estimate]:
    each = [estimate(group) for group in groups]
    return [*each, average(groups)] if len(groups) > 1 else each


def accuracies(results: Sequence[Result]) -> dict[str, list[Estimate]]:
    """% by policy: one estimate a pack, then the mean over packs where there are several."""
    return {name: _with_average([r["policies"][name]["per_episode"] for r in results]) for name in _policies(results)}


def differences(results: Sequence[Result]) -> dict[tuple[str, str], list[Estimate]]:
    """Points by pair of policies (listed later, listed earlier): the first minus the second, paired by episode."""
    pairs = {}
    for earlier, later in combinations(_policies(results), 2):
        values = [(r["policies"][later]["per_episode"], r["policies"][earlier]["per_episode"]) for r in results]
        estimates = [paired_difference(a, b) for a, b in values]
        if len(values) > 1:
            estimates.append(average([[x - y for x, y in zip(a, b, strict=True)] for a, b in values]))
        pairs[later, earlier] = estimates
    return pairs


def print_results(results: Sequence[Result], console: Console) -> None:
    """Tables on a terminal. results: one of evaluate() for each pack, at least one."""
    table = Table(title=_title(results), title_justify="left")
    for i, column in enumerate(_accuracy_header(results)):
        table.add_column(column, justify="right" if i else "left")
    for row in _accuracy_rows(results):
        table.add_row(*row)
    console.print(table)
    pairs = differences(results)
    if pairs:
        table = Table(title="differences in points, paired", title_justify="left")
        for i, column in enumerate(("policies", *_packs(results))):
            table.add_column(column, justify="right" if i else "left")
        for (later, earlier), estimates in pairs.items():
            style = [f"[bold]{_signed(e)}[/]" if e.excludes_zero else _signed(e) for e in estimates]
            table.add_row(f"{later} - {earlier}", *style)
        console.print(table)
    console.print(_NOTE, style="dim", highlight=False)


def markdown(results: Sequence[Result]) -> str:
    """The same tables for a document."""
    parts = [f"{_title(results)}:", _markdown_table(_accuracy_header(results), _accuracy_rows(results))]
    pairs = differences(results)
    if pairs:
        rows = [[f"{later} - {earlier}", *map(_signed, es)] for (later, earlier), es in pairs.items()]
        parts += ["Differences in points, paired:", _markdown_table(["policies", *_packs(results)], rows)]
    return "\n\n".join([*parts, _NOTE.replace("*", "\\*")]) + "\n"


def _title(results: Sequence[Result]) -> str:
    counts = [r["episodes"] for r in results]
    text = str(counts[0]) if len(set(counts)) == 1 else " / ".join(map(str, counts))
    return f"accuracy in %, {text} episode{'' if counts == [1] else 's'} a pack"


def _accuracy_header(results: Sequence[Result]) -> list[str]:
    return ["policy", *_packs(results), "largest SRAM" if len(results) > 1 else "SRAM", "instructions a step"]


def _accuracy_rows(results: Sequence[Result]) -> list[list[str]]:
    rows = []
    for name, estimates in accuracies(results).items():
        entries = [r["policies"][name] for r in results]
        steps = [e["instructions_per_step"] for e in entries if e["instructions_per_step"] is not None]
        sram = max(e["sram_bytes"] for e in entries)  # packs may need models for more or fewer classes
        rows.append([name, *map(format, estimates), f"{sram:,}", f"{max(steps):,}" if steps else "-"])
    return rows


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _signed(e: Estimate) -> str:
    return f"{e:+}" + " *" * e.excludes_zero
