"""What the bring-up firmware must answer: one inference, and where the model trains one short training, as CRCs.

Input and support set are made up on the device, so that an image needs no data: pseudo-random bytes are class 0, their
complement is class 1. One epoch over two samples is the least that moves a weight: the first step of a session only
begins the running means.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from ..audio import AudioPlan, FrontEnd
from ..graph import Graph
from ..ops import Int8
from ..reference import run
from ..reference.trainer import ReferenceTrainer
from ..training.plan import TrainingPlan
from ..training.visits import SelectOptions, TrainOptions

SEED = 1  # of the input
SAMPLES, EPOCHS, TRAINING_SEED = 2, 1, 1


def selftest_input(count: int) -> Int8:
    """int8 (count,): the xorshift32 bytes that <name>_selftest_input() fills in."""
    return np.array([state >> 24 for state in _noise(count)], np.uint8).view(np.int8)


def audio_crc(audio: AudioPlan) -> int:
    """Of the input after <name>_audio_selftest()."""
    front_end = FrontEnd(audio)
    sound = np.array([(state >> 16) - 32768 for state in _noise(front_end.samples)], np.int16)
    return zlib.crc32(front_end.input(sound).tobytes())


def _noise(count: int) -> Iterator[int]:
    state = SEED
    for _ in range(count):
        state ^= (state << 13) & 0xFFFFFFFF
        state ^= state >> 17
        state ^= (state << 5) & 0xFFFFFFFF
        yield state


def inference_crc(graph: Graph) -> int:
    """Of output and embedding for the input."""
    return _crc(*run(graph, selftest_input(graph.tensors[graph.input].bytes)))


def training_crc(graph: Graph, training: TrainingPlan, classes: int) -> int:
    """Of output and embedding for the input, then label and score as int32, after the training."""
    options = training.options
    trainer = ReferenceTrainer(graph, training.scheme, classes, options)
    clean = selftest_input(graph.tensors[graph.input].bytes)
    samples = [clean, ~clean]
    labels = [i % classes for i in range(SAMPLES)]
    if training.selection is not None:
        budget = training.selection.budget(options.selector, options.macs)
        chosen_by = SelectOptions(options.selector, seed=TRAINING_SEED)
        trainer.select(lambda i, epoch: samples[i], labels, chosen_by, budget)
    trainer.train(lambda i, epoch: samples[i], labels, TrainOptions(EPOCHS, options.rate, TRAINING_SEED))
    output, features = run(trainer.effective(), clean)
    return zlib.crc32(struct.pack("<ii", *trainer.head.classify(features.reshape(-1))), _crc(output, features))


def _crc(output: Int8, features: Int8) -> int:
    return zlib.crc32(features.tobytes(), zlib.crc32(output.tobytes()))
