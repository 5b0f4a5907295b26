"""ONNX's own tests of its operators through the compiler: right, refused, wrong.

    python benchmarks/node_tests.py [OPERATOR ...] [--all] [--show VERDICT]

Tests of operators that `tinytrain ops` lists, and of what their definitions expand to. What counts as right is written
in tests/onnx_node_tests.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tinytrain_compiler.frontends.onnx.support import support_table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from onnx_node_tests import NOT_TRIED, REFUSED, RIGHT, WRONG, Outcome, cases, operator_of, outcomes

VERDICTS = (RIGHT, REFUSED, WRONG, NOT_TRIED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operators", nargs="*", help="only tests of these")
    parser.add_argument("--all", action="store_true", help="operators that are not supported too: all must be refused")
    parser.add_argument(
        "--show", action="append", choices=VERDICTS, default=[], help="list these tests with the reason"
    )
    args = parser.parse_args()
    console = Console(width=160)
    supported = {op for op, _ in support_table()}
    wanted = [
        case for case in cases()
        if (operator_of(case) in args.operators if args.operators else args.all or operator_of(case) in supported)
    ]  # fmt: skip
    found: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder, console.status("starting") as status:
        for i, case in enumerate(wanted):
            status.update(f"{i} of {len(wanted)}: {case.name}")
            try:
                found += outcomes(case, Path(folder))
            except Exception as error:
                found.append(Outcome(case.name, operator_of(case), WRONG, f"{type(error).__name__}: {error}"))
    for each in found:
        if each.verdict in (*args.show, WRONG):
            console.print(f"{each.verdict}: {each.op} {each.name}: {each.detail}", markup=False, soft_wrap=True)
    table = Table()
    for column in ("operator", *VERDICTS):
        table.add_column(column, justify="left" if column == "operator" else "right")
    counts = {op: Counter(each.verdict for each in found if each.op == op) for op in sorted({e.op for e in found})}
    for op, count in counts.items():
        table.add_row(op, *(str(count[verdict]) for verdict in VERDICTS))
    total = Counter(each.verdict for each in found)
    table.add_row("all", *(str(total[verdict]) for verdict in VERDICTS), style="bold")
    console.print(table)
    if total[WRONG]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
