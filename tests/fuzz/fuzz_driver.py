"""Fuzz the compiler: changed model files, each within 10 s and 2 GB, none of which may end in a traceback.

    python tests/fuzz/fuzz_driver.py [--count 100000] [--first 0] [--jobs 2] [--findings FOLDER]

File number i is always the same one. Workers are processes with limits on time and memory; what kills one, or raises
anything but a clear refusal, is kept in FOLDER and named at the end. Findings, made small, belong in regression/.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

SECONDS, BYTES = 10, 2 * 1024**3
_FILES_A_WORKER = 2000  # then a fresh one, so that what is left behind does not add up


@dataclass
class Results:
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: dict[int, str] = field(default_factory=dict)
    slowest: tuple[float, int] = (0.0, -1)  # seconds of CPU, file
    largest: tuple[int, int] = (0, -1)  # bytes, file


# -- the worker --------------------------------------------------------------------------------------


def limit_this_process() -> None:
    """From here on more than BYTES of memory cannot be had, and SIGPROF ends what takes more than SECONDS of CPU."""
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)


def work(first: int, last: int, folder: Path) -> None:
    """Compile the files first to last - 1, and print one JSON line before and one after each."""
    from fuzz_files import fuzzed
    from fuzz_target import COMPILED, outcome

    limit_this_process()
    for number in range(first, last):
        print(json.dumps({"begin": number}), flush=True)
        suffix, data = fuzzed(number)
        path = folder / f"model{suffix}"
        path.write_bytes(data)
        begin = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        found: dict[str, Any] = {"end": number}
        try:
            found["outcome"] = "compiled" if outcome(path) == COMPILED else "refused"
        except MemoryError:
            found["finding"] = f"more than {BYTES >> 20} MiB"
        except BaseException as error:
            found["finding"] = f"{type(error).__name__}: {str(error)[:300]}"
        signal.setitimer(signal.ITIMER_PROF, 0)
        path.unlink()
        found["seconds"] = time.process_time() - begin
        found["bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(found), flush=True)


# -- the driver --------------------------------------------------------------------------------------


def drive(numbers: list[range], results: Results, lock: threading.Lock) -> None:
    """Take ranges off the list and have workers do them, until none is left."""
    while True:
        with lock:
            if not numbers:
                return
            todo = numbers.pop(0)
        with tempfile.TemporaryDirectory(prefix="tinytrain-fuzz-") as folder:
            command = [sys.executable, str(Path(__file__)), "--worker", str(todo.start), str(todo.stop), folder]
            worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            assert worker.stdout is not None
            assert worker.stderr is not None
            errors: list[str] = []
            reader = threading.Thread(target=_drain, args=(worker.stderr, errors))
            reader.start()
            begun = _collect(worker.stdout, results, lock)
            code = worker.wait()
            reader.join()
        if begun is None and code == 0:
            continue
        with lock:
            at = todo.start if begun is None else begun
            results.findings[at] = _of_exit(code, "".join(errors))
            results.outcomes["finding"] += 1
            if at + 1 < todo.stop:
                numbers.insert(0, range(at + 1, todo.stop))


def _drain(stream: IO[str], into: list[str]) -> None:
    into.extend(stream)


def _collect(lines: IO[str], results: Results, lock: threading.Lock) -> int | None:
    """Read a worker's lines; returns the file that it did not survive."""
    begun = None
    for line in lines:
        found = json.loads(line)
        if "begin" in found:
            begun = found["begin"]
            continue
        number, begun = found["end"], None
        with lock:
            if "finding" in found:
                results.findings[number] = found["finding"]
            results.outcomes[found.get("outcome", "finding")] += 1
            results.slowest = max(results.slowest, (found["seconds"], number))
            results.largest = max(results.largest, (found["bytes"], number))
    return begun


def _of_exit(code: int, errors: str) -> str:
    if code == -signal.SIGPROF:
        return f"more than {SECONDS} s"
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"{name}: {errors.strip()[-300:]}"


def fuzz(first: int, count: int, jobs: int, progress: Any = None) -> Results:
    """Compile the files first to first + count - 1 in `jobs` processes. progress: called with the results so far."""
    chunk = min(_FILES_A_WORKER, -(-count // jobs))
    numbers = [range(at, min(at + chunk, first + count)) for at in range(first, first + count, chunk)]
    results, lock = Results(), threading.Lock()
    threads = [threading.Thread(target=drive, args=(numbers, results, lock)) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        threads[0].join(1) if threads[0].is_alive() else time.sleep(1)
        if progress:
            progress(results)
    return results


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        work(int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz"))
    args = parser.parse_args()
    shown, named = [time.monotonic()], set[int]()

    def progress(results: Results) -> None:
        for number in sorted(set(results.findings) - named):
            named.add(number)
            print(f"file {number}: {results.findings[number]}", file=sys.stderr, flush=True)
        if time.monotonic() - shown[0] > 10:
            shown[0] = time.monotonic()
            done = sum(results.outcomes.values())
            print(f"{done:,} of {args.count:,} files, {len(results.findings)} findings", file=sys.stderr, flush=True)

    begin = time.monotonic()
    results = fuzz(args.first, args.count, args.jobs, progress)
    print(
        f"{sum(results.outcomes.values()):,} files in {time.monotonic() - begin:,.0f} s: "
        f"{results.outcomes['compiled']:,} compiled, {results.outcomes['refused']:,} refused, "
        f"{results.outcomes['finding']} findings; slowest {results.slowest[0]:.1f} s of CPU "
        f"(file {results.slowest[1]}), largest process {results.largest[0] >> 20} MiB"
    )
    if results.findings:
        from fuzz_files import fuzzed

        shutil.rmtree(args.findings, ignore_errors=True)
        args.findings.mkdir(parents=True)
        for number, what in sorted(results.findings.items()):
            suffix, data = fuzzed(number)
            (args.findings / f"{number}{suffix}").write_bytes(data)
            print(f"file {number}: {what}")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
