"""What models compute and learn stays what it was: digests of outputs, whatever moves inside the compiler.

The NumPy reference makes them, which the other tests hold equal to the generated C in every byte. The golden file
holds no layout of memory and no generated text, so it changes only where an answer does. To write it again after a
change that is meant to alter answers: `TINYTRAIN_UPDATE_GOLDEN=1 python -m pytest tests/test_output_digests.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import test_selection
import test_training
from graphs import random_inputs
from networks import NETWORKS
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.reference import run
from tinytrain_compiler.reference.trainer import ReferenceTrainer
from tinytrain_compiler.training.formats import formats
from tinytrain_compiler.training.heads import HEADS
from tinytrain_compiler.training.options import LearningOptions
from tinytrain_compiler.training.scheme import Scheme
from tinytrain_compiler.training.visits import TrainOptions

GOLDEN = Path(__file__).parent / "golden" / "output_digests.json"
UPDATE = bool(os.environ.get("TINYTRAIN_UPDATE_GOLDEN"))
INPUTS = 8


def inference(graph: Graph) -> str:
    """Of output and embedding for a few inputs."""
    found = hashlib.sha256()
    for x in random_inputs(graph, INPUTS, seed=7):
        for values in run(graph, x):
            found.update(values.tobytes())
    return found.hexdigest()


def training(
    network: Callable[[], tuple[Graph, Scheme]], options: TrainOptions, head: str, gradients: str, rounding: str
) -> str:
    """Of embeddings, answers and the loss of each epoch after a training."""
    graph, scheme = network()
    trainer = ReferenceTrainer(
        graph, scheme, test_training.CLASSES, LearningOptions(HEADS[head], formats(gradients, rounding))
    )
    clean, noisy = test_training.samples(graph)
    errors = trainer.train(
        lambda index, epoch: clean[index] if epoch < 0 else noisy[epoch, index], test_training.LABELS, options
    )
    found = hashlib.sha256(np.array(errors, np.float64).tobytes())
    for x in clean:
        found.update(trainer.features(x).tobytes())
        found.update(np.array(trainer.infer(x), np.int64).tobytes())
    return found.hexdigest()


CASES: dict[str, Callable[[], str]] = {
    **{f"inference/{name}": lambda make=make: inference(make()) for name, make in NETWORKS.items()},
    **{
        f"training/{'/'.join(options)}": lambda options=options: training(
            test_training.network, test_training.OPTIONS, *options
        )
        for options in test_training.OPTIONS_OF
    },
    "selection/prototype/int16/nearest": lambda: training(
        test_selection.network, test_selection.TRAINING, "prototype", "int16", "nearest"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_model_answers_as_it_did(name: str) -> None:
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    found = CASES[name]()
    if UPDATE:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(dict(sorted({**golden, name: found}.items())), indent=2) + "\n")
    else:
        assert found == golden.get(name)
