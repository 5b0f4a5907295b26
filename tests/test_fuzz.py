"""A few hundred fuzzed files of the usual 10^5 (`make fuzz`), the corpus, and every file that was a finding once."""

from __future__ import annotations

from pathlib import Path

import fuzz_driver
import pytest
from fuzz_driver import fuzz
from fuzz_files import fuzzed
from fuzz_target import outcome

FUZZ = Path(__file__).parent / "fuzz"
USUAL, ALL = 300, 100_000
KEPT = sorted(path for folder in ("corpus", "regression") for path in (FUZZ / folder).rglob("*.*") if path.is_file())


@pytest.mark.parametrize("path", KEPT, ids=[path.name for path in KEPT])
def test_kept_files(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    assert outcome(copy)


def check(first: int, count: int, jobs: int) -> None:
    results = fuzz(first, count, jobs)
    assert sum(results.outcomes.values()) == count
    assert not results.findings, "\n".join(f"{number}: {what}" for number, what in results.findings.items())
    assert results.outcomes["compiled"] > 0.02 * count, (
        "nearly nothing compiles: what is behind the reader is not fuzzed"
    )


def test_fuzzed_files() -> None:
    check(0, USUAL, 1)


@pytest.mark.slow
def test_all_fuzzed_files() -> None:
    check(USUAL, ALL - USUAL, 2)


def test_file_numbers_are_files() -> None:
    assert fuzzed(5) == fuzzed(5)
    assert len({fuzzed(i)[1] for i in range(100)}) > 90


def test_what_takes_too_long_or_too_much_or_dies_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The driver sees what no exception tells: a worker that is ended by its time, its memory or a fault."""
    program = tmp_path / "driver.py"
    limits = "import fuzz_driver as run, sys, json, os, signal; run.SECONDS = 1; run.limit_this_process()\n"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(FUZZ)!r})\n{limits}"
        "print(json.dumps({'begin': int(sys.argv[2])}), flush=True)\n"
        "signal.setitimer(signal.ITIMER_PROF, 0.2)\n"
        "if sys.argv[2] == '0':\n    while True: pass\n"
        "if sys.argv[2] == '1': os.kill(os.getpid(), signal.SIGSEGV)\n"
        "if sys.argv[2] == '2': bytearray(run.BYTES)\n"
        "print(json.dumps({'end': int(sys.argv[2]), 'outcome': 'refused', 'seconds': 0.1, 'bytes': 5}))\n"
    )
    monkeypatch.setattr(fuzz_driver, "__file__", str(program))
    found = fuzz(0, 4, 4)
    assert {number: what.split(":")[0] for number, what in found.findings.items()} == {
        0: "more than 10 s", 1: "SIGSEGV", 2: "exit code 1",
    }  # fmt: skip
    assert found.outcomes == {"finding": 3, "refused": 1}
