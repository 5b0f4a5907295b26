"""What harness firmware and host say to each other: records in, answers out, and a verdict on the console.

Nothing is returned that was not checked: a run that did not reach its verdict, or whose results are suspicious,
raises TinyTrainError. harness_training.py and harness_personalisation.py say the same for the app that trains.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from elftools.elf.elffile import ELFFile

from ..boards import Board
from ..errors import TinyTrainError, UsageError
from .emulation import execute
from .firmware import Firmware, read_symbols
from .runner import Job, Progress, Run

INFER = -1  # label of a record that asks for an inference; others enrol under the label
_HEAD = struct.Struct("<iii")  # status, label, score


class Record(NamedTuple):
    """What the firmware answered to one record."""

    status: int  # 0, or a negative tt_status
    label: int
    score: int
    output: bytes  # zeros after an enrolment
    features: bytes


@dataclass(frozen=True)
class HarnessRun:
    """A run that reached its verdict."""

    console: str
    outputs: bytes  # output.bin as written; see `records`
    records: tuple[Record, ...]
    instructions: list[int]  # of each record's call, the markers not counted
    stack_bytes: int  # deepest use of the stack, over all records and initialisation
    profile: dict[str, int] | None  # function -> instructions over all records, largest first


def pack_records(records: Iterable[tuple[int, bytes]]) -> bytes:
    """input.bin for (label, input bytes) pairs; label INFER (-1) asks for an inference, others enrol."""
    packed = [struct.pack("<i", label) + bytes(data) for label, data in records]
    return struct.pack("<I", len(packed)) + b"".join(packed)


def run_records(
    firmware: Firmware,
    machine: Board,
    records: bytes | bytearray | memoryview,
    workdir: Path,
    timeout_s: float = 300.0,
    *,
    profile: bool = False,
    progress: Progress | None = None,
) -> HarnessRun:
    """Run harness ``firmware`` on ``machine`` with input.bin = ``records`` (see pack_records).

    Files go to ``workdir``. progress(done, total) is called about ten times a second.
    Raises TinyTrainError unless the firmware ended with its verdict and every file has the size it must have.
    """
    labels = _labels(firmware, bytes(records))
    run = execute(
        Job(
            firmware.elf, machine, workdir, {"input.bin": bytes(records)}, ("output.bin",), timeout_s,
            profile, len(labels), progress,
        )
    )  # fmt: skip
    check_verdict(run, len(labels))
    outputs = run.files["output.bin"]
    results = _parse_outputs(firmware, outputs, labels)
    if len(run.counts) != len(labels):
        raise TinyTrainError(f"{len(run.counts)} calls were counted, there were {len(labels)} records")
    return HarnessRun(run.console, outputs, results, run.counts, stack_used(run), run.profile)


def stack_used(run: Run) -> int:
    """Bytes of the deepest use that the firmware found; 0 where it did not say."""
    stack = re.search(r"^tinytrain: stack (\d+) bytes$", run.console, re.MULTILINE)
    return int(stack[1]) if stack else 0


def check_verdict(run: Run, count: int) -> None:
    """Raise TinyTrainError unless the firmware said that it had done ``count`` records."""
    verdict = re.search(r"^tinytrain: done (\d+) records$", run.console, re.MULTILINE)
    if verdict is None:
        raise TinyTrainError(
            f"the firmware ended without its verdict. It said {run.console!r}, its runner {run.messages!r}"
        )
    if int(verdict[1]) != count:
        raise TinyTrainError(f"the firmware ran {verdict[1]} records, not {count}")


def _layout(firmware: Firmware) -> tuple[int, int, int]:
    """Bytes of the harness's input, output and features, as compiled into the image."""
    address = next((s.address for s in read_symbols(firmware.elf) if s.name == "tt_harness_layout"), None)
    if address is None:
        raise UsageError(f"{firmware.elf.name} is not harness firmware; build it with app='harness'")
    with firmware.elf.open("rb") as file:
        for segment in ELFFile(file).iter_segments():
            offset = address - segment["p_vaddr"]
            if 0 <= offset < segment["p_filesz"]:
                values: tuple[int, int, int] = struct.unpack_from("<3I", segment.data(), offset)
                return values
    raise TinyTrainError(f"{firmware.elf.name}: tt_harness_layout lies in no segment")


def _labels(firmware: Firmware, records: bytes) -> list[int]:
    """The records' labels, after checking that the records are what this firmware reads."""
    input_bytes, _, _ = _layout(firmware)
    count = struct.unpack_from("<I", records)[0] if len(records) >= 4 else 0
    size = 4 + input_bytes
    if count == 0 or len(records) != 4 + count * size:
        raise UsageError(f"{len(records)} bytes are not {count} records of a label and {input_bytes} input bytes")
    return [struct.unpack_from("<i", records, 4 + i * size)[0] for i in range(count)]


def _parse_outputs(firmware: Firmware, outputs: bytes, labels: Sequence[int]) -> tuple[Record, ...]:
    _, output_bytes, features = _layout(firmware)
    size = _HEAD.size + output_bytes + features
    if len(outputs) != len(labels) * size:
        raise TinyTrainError(f"output.bin has {len(outputs)} bytes, {len(labels)} records make {len(labels) * size}")
    records = []
    for offset in range(0, len(outputs), size):
        status, label, score = _HEAD.unpack_from(outputs, offset)
        output = outputs[offset + _HEAD.size : offset + _HEAD.size + output_bytes]
        records.append(Record(status, label, score, output, outputs[offset + size - features : offset + size]))
    inferred = [r for r, label in zip(records, labels, strict=True) if label < 0 and r.status == 0]
    # Memory that is not there reads 0 on these machines, without a fault.
    if inferred and not any(any(record.output) or any(record.features) for record in inferred):
        raise TinyTrainError("every output of the emulated firmware is 0: its memory is not where the board file says")
    return tuple(records)
