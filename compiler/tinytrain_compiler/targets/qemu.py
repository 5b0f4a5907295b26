"""Run firmware on QEMU, an emulated core with the same instruction set, and count its instructions exactly.

QEMU has no clock model: what is reported are instructions, never cycles.
"""

from __future__ import annotations

import bisect
import hashlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from ..boards import Board
from ..errors import TinyTrainError
from .firmware import read_symbols
from .runner import Job, Progress, Run
from .tools import require_tool

QEMU = "qemu-system-arm"
PLUGIN_SOURCE = Path(__file__).with_name("count_instructions.c")
_POLL_S = 0.1
_OWN_FILES = ("console.txt", "instructions.txt", "profile.txt")


class QemuRunner:
    """QEMU's machines with semihosting; a plugin counts between the marks."""

    name = "qemu"
    tools = (QEMU,)

    def run(self, job: Job) -> Run:
        """See Runner.run."""
        qemu = require_tool(QEMU)
        plugin = build_plugin(job.elf.parent / "qemu-plugin", qemu)
        job.workdir.mkdir(parents=True, exist_ok=True)
        for name in (*_OWN_FILES, *job.wanted):
            (job.workdir / name).unlink(missing_ok=True)
        for name, data in job.files.items():
            (job.workdir / name).write_bytes(data)
        profile = ",profile=profile.txt" if job.profile else ""
        command = [
            *(qemu, "-M", job.board.machines[self.name], "-display", "none", "-monitor", "none", "-serial", "null"),
            *("-chardev", "file,id=console,path=console.txt"),
            *("-semihosting-config", "enable=on,target=native,chardev=console"),
            *("-kernel", str(job.elf.resolve())),
            *("-plugin", f"file={_escaped(plugin)},out=instructions.txt{profile}"),
        ]
        code, messages = _wait(command, job.workdir, job.timeout_s, job.total, job.progress)
        console = _text(job.workdir / "console.txt")
        if code:
            raise TinyTrainError(_failure(code, console, messages, job.elf, job.board))
        counts = [int(line) for line in _text(job.workdir / "instructions.txt").split()]
        functions = read_profile(job.workdir / "profile.txt", job.elf) if job.profile else None
        if functions is not None and sum(functions.values()) != sum(counts):
            raise TinyTrainError(f"the profile adds up to {sum(functions.values())}, the count is {sum(counts)}")
        return Run(console, messages, counts, functions, {name: _bytes(job.workdir / name) for name in job.wanted})


def plugin_api(qemu: str) -> int:
    """Version of the plugin interface that this QEMU program speaks."""
    result = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"version (\d+)\.(\d+)", result.stdout)
    if result.returncode or version is None:
        raise TinyTrainError(f"'{qemu} --version' does not say its version: {result.stdout}{result.stderr}")
    release = (int(version[1]), int(version[2]))
    return 1 if release < (9, 0) else 2 if release < (9, 1) else 3


def build_plugin(cache: Path, qemu: str) -> Path:
    """Compile the counting plugin for this machine and QEMU; a changed source gets a file of its own."""
    api = plugin_api(qemu)
    digest = hashlib.sha256(PLUGIN_SOURCE.read_bytes()).hexdigest()[:16]
    library = (cache / f"count_instructions-api{api}-{digest}.so").resolve()
    if library.exists():
        return library
    compiler = require_tool("cc")
    cache.mkdir(parents=True, exist_ok=True)
    partial = library.with_suffix(f".{os.getpid()}")  # two runs may build at once
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fPIC", "-shared", f"-DTT_PLUGIN_API={api}"]
    command = [compiler, *flags, str(PLUGIN_SOURCE), "-o", str(partial)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise TinyTrainError(f"{' '.join(command)}\nfailed:\n{result.stderr.strip()}")
    partial.replace(library)
    return library


def read_profile(path: Path, elf: Path) -> dict[str, int]:
    """Counts by address, as the plugin writes them, summed by function, largest first."""
    lookup = _FunctionLookup(elf)
    functions: dict[str, int] = {}
    for line in path.read_text().splitlines():
        address, count = map(int, line.split())
        name = lookup.name(address)
        functions[name] = functions.get(name, 0) + count
    return dict(sorted(functions.items(), key=lambda item: (-item[1], item[0])))


class _FunctionLookup:
    """Function names by code address."""

    def __init__(self, elf: Path) -> None:
        self._functions = [symbol for symbol in read_symbols(elf) if symbol.is_function]
        self._starts = [function.address for function in self._functions]

    def name(self, address: int) -> str:
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0:
            return "(no function)"
        function = self._functions[index]
        inside = function.size == 0 or address < function.address + function.size
        return function.name if inside else "(no function)"


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")  # how QEMU's option syntax spells a comma


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _wait(
    command: Sequence[str], workdir: Path, timeout_s: float, total: int, progress: Progress | None
) -> tuple[int, str]:
    """Run QEMU to its end: exit code and messages. TinyTrainError where it takes longer than timeout_s."""
    deadline = time.monotonic() + timeout_s
    with (
        (workdir / "qemu.txt").open("w+", encoding="utf-8", errors="replace") as messages,
        subprocess.Popen(command, cwd=workdir, stdin=subprocess.DEVNULL, stdout=messages, stderr=messages) as process,
    ):
        try:
            while process.poll() is None:
                done = _text(workdir / "instructions.txt").count("\n")
                if progress:
                    progress(done, total)
                if time.monotonic() > deadline:
                    raise TinyTrainError(
                        f"the emulation was stopped after {timeout_s:g} s with {done} of {total} records done. "
                        f"Raise the time limit or use fewer inputs; if none is done, the firmware hangs: "
                        f"see {workdir / 'console.txt'}"
                    )
                try:
                    process.wait(_POLL_S)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                process.kill()
        messages.seek(0)
        said = messages.read().strip()
    if progress and not process.returncode:
        progress(total, total)
    return process.returncode, said


def _failure(code: int, console: str, messages: str, elf: Path, board: Board) -> str:
    """Why a run ended with an exit code other than 0, in the user's words."""
    said = [line for line in console.splitlines() if line.startswith("tinytrain: error:")]
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    message = f"the emulated firmware failed ({how}): {said[-1] if said else 'it said nothing'}"
    fault = re.search(r"fault at pc 0x([0-9a-f]+)", console)
    if fault:
        message += f" in {_FunctionLookup(elf).name(int(fault[1], 16))}"
    if "stack overflow" in console or "Lockup" in messages:
        message += f"; the stack has {board.stack_bytes} bytes (stack_bytes in the board's file)"
    return message + (f"\nQEMU: {messages}" if messages else "")
