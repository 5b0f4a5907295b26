"""No .tflite file ends in a traceback, in gigabytes or in minutes: damaged ones compile, or are refused in one line."""

from __future__ import annotations

import random
import resource
import struct
import time
from pathlib import Path

import pytest
from tflite_cases import file_of
from tinytrain_compiler.errors import EXIT_UNSUPPORTED, TinyTrainError, UsageError
from tinytrain_compiler.frontends.tflite.reader import load_tflite

USUAL, MANY = 600, 20_000
SECONDS, MEBIBYTES = 5.0, 1024
NUMBERS = (0, 1, 2, 4, 7, 127, 128, 255, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
CASES = ("network/int8", "network/float32", "split/int8", "keras flatten/float32", "conv 1d/int8", "pad/int8")


def mutant(seed: int) -> bytes:
    """One to four changes of a good file: a word, a byte, a cut, a stretch of zeros or of something else's."""
    rng = random.Random(seed)
    data = bytearray(file_of(*CASES[seed % len(CASES)].split("/")))
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(8, len(data) - 4)
        action = rng.randrange(6)
        if action <= 1:
            struct.pack_into("<I", data, at & ~3, rng.choice(NUMBERS))
        elif action == 2:
            data[at] ^= 1 << rng.randrange(8)
        elif action == 3:
            (word,) = struct.unpack_from("<I", data, at & ~3)
            struct.pack_into("<I", data, at & ~3, (word + rng.choice((-8, -4, -1, 1, 4, 8, 64))) % 2**32)
        elif action == 4:
            source = rng.randrange(len(data) - 16) & ~3
            data[at & ~3 : (at & ~3) + 16] = data[source : source + 16]
        elif rng.random() < 0.3:
            del data[max(at, 12) :]
            return bytes(data)
    return bytes(data)


def check(seeds: range, folder: Path) -> None:
    failures, read = [], 0
    path = folder / "mutant.tflite"
    for seed in seeds:
        path.write_bytes(mutant(seed))
        begin, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            load_tflite(path)
            read += 1
        except TinyTrainError as error:
            message = str(error)
            if error.exit_code != EXIT_UNSUPPORTED or not message.replace("\n", "").isprintable():
                failures.append(f"{seed}: {message[:200]!r}")
        except Exception as error:
            failures.append(f"{seed}: {type(error).__name__}: {str(error)[:200]}")
        if (seconds := time.process_time() - begin) > SECONDS:
            failures.append(f"{seed}: {seconds:.1f} s")
        if (grown := (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) // 1024) > MEBIBYTES:
            failures.append(f"{seed}: {grown} MiB")
    assert not failures, "\n".join(failures)
    assert 0.2 * len(seeds) < read < 0.9 * len(seeds), f"{read} read: mutations are too wild or too tame"


def test_mutants(tmp_path: Path) -> None:
    check(range(USUAL), tmp_path)


@pytest.mark.slow
def test_many_mutants(tmp_path: Path) -> None:
    check(range(USUAL, MANY), tmp_path)


@pytest.mark.parametrize("length", [8, 12, 100, 1000])
def test_truncated_files(length: int, tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(file_of("network", "int8")[:length])
    with pytest.raises(UsageError) as caught:
        load_tflite(tmp_path / "net.tflite")
    assert "truncated or damaged" in str(caught.value)


@pytest.mark.parametrize(("content", "says"), [(b"", "is empty"), (b"x" * 100, "is not a TensorFlow Lite model")])
def test_what_is_no_tflite_file(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load_tflite(tmp_path / "net.tflite")
    assert says in str(caught.value)
