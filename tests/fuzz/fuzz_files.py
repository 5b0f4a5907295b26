"""The files that are fuzzed: always the same ones by number, made from the models of corpus/ and of mutants.py.

Seven of eight are mutants that protobuf can read, most of them with one thing changed; the eighth has bytes changed.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import onnx
from mutants import mutated, originals

CORPUS = Path(__file__).resolve().parent / "corpus"


@cache
def models() -> list[onnx.ModelProto]:
    return [*originals(), *(onnx.load(path, load_external_data=False) for path in sorted(CORPUS.glob("*.onnx")))]


@cache
def others() -> list[tuple[str, bytes]]:
    """(suffix, bytes) of corpus files of other formats."""
    return [(path.suffix, path.read_bytes()) for path in sorted(CORPUS.iterdir()) if path.suffix != ".onnx"]


def fuzzed(number: int) -> tuple[str, bytes]:
    """(suffix, content) of file `number`."""
    rng = random.Random(number)
    if rng.randrange(8):
        return ".onnx", mutated(rng, rng.choice(models()), models()).SerializeToString()
    candidates = [*others(), *((".onnx", model.SerializeToString()) for model in models())]
    suffix, data = rng.choice(candidates)
    return suffix, _damaged(rng, bytearray(data))


def _damaged(rng: random.Random, data: bytearray) -> bytes:
    """One to four places changed: a bit, a byte, a stretch removed, repeated, zeroed or cut off."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not data:
            break
        at = rng.randrange(len(data))
        length = min(rng.choice((1, 2, 4, 16, 256)), len(data) - at)
        action = rng.randrange(7)
        if action == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif action == 1:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif action == 2:
            del data[at : at + length]
        elif action == 3:
            data[at:at] = data[at : at + length] * rng.choice((1, 2, 100))
        elif action == 4:
            data[at : at + length] = bytes(length)
        elif action == 5:
            other = rng.randrange(len(data))
            data[at : at + length] = data[other : other + length]
        else:
            del data[at:]
    return bytes(data)
