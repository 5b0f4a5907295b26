"""SGD, momentum, Adam and the step normalised per tensor, in float: docs/studies/2026-11-21-optimisers.md.

    pip install '.[train]'        PyTorch; smaller: pip install torch --index-url https://download.pytorch.org/whl/cpu
    python benchmarks/optimizers.py MODEL.onnx PACK.npz ... --episodes-file FILE.json --results FILE.json

Few-shot episodes as the device learns them, with float weights and gradients: a static scheme, class means as
prototypes, one sample a step, each sample freshly augmented in each epoch, a rate that falls linearly. Each
optimiser's rate is the best on the first pack's last --tuning-episodes episodes: three rates a factor of two apart,
and further ones while the best is at an end. With these rates all optimisers run the first --episodes of every pack.
What FILE holds already is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tinytrain_compiler.compile import compile_model
from tinytrain_compiler.compiled import CompiledModel, load_compiled
from tinytrain_compiler.errors import TinyTrainError, UsageError
from tinytrain_compiler.evaluate import load_episodes, load_pack
from tinytrain_compiler.evaluate.evaluate import EPOCHS
from tinytrain_compiler.evaluate.packs import to_inputs
from tinytrain_compiler.evaluate.statistics import average, estimate
from tinytrain_compiler.frontends.onnx.canonicalize import canonicalize
from tinytrain_compiler.frontends.onnx.file import load_model
from tinytrain_compiler.reference.draws import mix
from tinytrain_compiler.training.policies import SparseUpdate
from tinytrain_compiler.training.trainable import trainable_layers

if TYPE_CHECKING:
    from float_training import Network, Task

SCHEME = Path(__file__).parents[1] / "examples" / "schemes" / "mcunet_5fps_49kb.toml"
FIRST_RATES = {"SGD": 0.02, "momentum 0.9": 0.002, "Adam": 0.001, "Adam, rate E / sqrt(N)": 0.01, "normalised": 0.02}
PROTOTYPES = "no training"
REFERENCE = "normalised"

Accuracies = dict[str, dict[str, dict[str, list[float]]]]  # pack -> optimiser -> rate -> accuracy of each episode


class Study:
    """A model and packs, and the accuracies that are known. Every one is written down as soon as it is measured."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        from float_training import Network

        compile_model(args.model, "stm32f746", folder, calibration=args.packs[0], name="net")
        self._model: CompiledModel = load_compiled(folder)  # for its input bytes and its layers' names
        graph = self._model.graph
        scheme = SparseUpdate(args.scheme).scheme(trainable_layers(graph))
        self.network: Network = Network(canonicalize(load_model(args.model).proto), graph.features, scheme)
        self.packs = {path.stem: load_pack(path) for path in args.packs}
        self.episodes = {name: load_episodes(args.episodes_file, pack) for name, pack in self.packs.items()}
        for name, episodes in self.episodes.items():
            if len(episodes) < args.episodes + args.tuning_episodes:
                raise UsageError(f"{args.episodes_file}: has {len(episodes)} episodes of {name}; ask for fewer")
        self._epochs, self._file = args.epochs, args.results
        self.known: Accuracies = json.loads(self._file.read_text()) if self._file.exists() else {}
        self._task: Callable[[str, int], Task] = lru_cache(maxsize=4)(self._prepared)

    def _prepared(self, pack: str, number: int) -> Task:
        from float_training import Task

        episode = self.episodes[pack][number]
        inputs = to_inputs(self.packs[pack], [i for _, i in (*episode.support, *episode.query)], self._model)
        quantization = self._model.graph.tensors[self._model.graph.input].quantization
        return Task(self.network, inputs, quantization, episode, self._epochs, mix(0, number))

    def accuracies(self, pack: str, optimizer: str, rate: float, numbers: range, label: str) -> list[float]:
        """Of these episodes, measured where they are not known."""
        from float_training import RULES

        known = self.known.setdefault(label, {}).setdefault(optimizer, {}).setdefault(f"{rate:.3g}", [])
        for number in numbers[len(known) :]:
            known.append(self._task(pack, number).accuracy(RULES.get(optimizer), rate))
            self._file.write_text(json.dumps(self.known))
            print(f"{label} {optimizer} {rate:.3g} episode {number}: {known[-1]:.1f}", file=sys.stderr, flush=True)
        return known[: len(numbers)]


def tuned(study: Study, optimizer: str, count: int) -> float:
    """The best rate on the first pack: by doubling and halving until the neighbours of the best are known."""
    pack = next(iter(study.packs))
    total = len(study.episodes[pack])

    def mean(power: int) -> float:
        rate = FIRST_RATES[optimizer] * 2.0**power
        found = study.accuracies(pack, optimizer, rate, range(total - count, total), f"{pack}, tuning")
        return sum(found) / count

    means = {power: mean(power) for power in (-1, 0, 1)}
    while (best := max(means, key=means.__getitem__)) in (min(means), max(means)):
        further = best - 1 if best == min(means) else best + 1
        means[further] = mean(further)
    return FIRST_RATES[optimizer] * 2.0**best


def table(found: dict[str, list[list[float]]], packs: list[str], rates: dict[str, float], network: Network) -> str:
    """found: optimiser -> pack by pack, the accuracy of each episode."""
    from float_training import RULES

    values = sum(v.numel() for v in network.pretrained.values())
    titles = ["", "rate", *packs, "mean", f"against {REFERENCE}", "state a value", "state, bytes"]
    lines = [f"| {' | '.join(titles)} |".replace("|  |", "| |"), "|---" * len(titles) + "|"]
    for optimizer, accuracies in found.items():
        pairs = [[a - b for a, b in zip(*both, strict=True)] for both in zip(accuracies, found[REFERENCE], strict=True)]
        against = "" if optimizer == REFERENCE else f"{average(pairs):+}"
        cells = [optimizer, f"{rates[optimizer]:.3g}" if optimizer in rates else ""]
        cells += [f"{estimate(a)}" for a in accuracies] + [f"{average(accuracies)}", against]
        if rule := RULES.get(optimizer):
            each = f"{4 * rule.per_value}" if rule.per_value else f"{4 * rule.per_tensor} a tensor"
            cells += [each if rule.per_value + rule.per_tensor else "0"]
            cells += [f"{rule.state_bytes(values, len(network.pretrained)):,}"]
        cells += [""] * (len(titles) - len(cells))
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("packs", type=Path, nargs="+", help="rates are chosen on the first")
    parser.add_argument("--episodes-file", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=8, help="of each pack")
    parser.add_argument("--tuning-episodes", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--scheme", type=Path, default=SCHEME)
    args = parser.parse_args()
    try:
        import torch
    except ImportError:
        sys.exit("this benchmark needs PyTorch; pip install torch --index-url https://download.pytorch.org/whl/cpu")
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="optimizers-") as folder:
            run(Study(args, Path(folder)), args)
    except TinyTrainError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def run(study: Study, args: argparse.Namespace) -> None:
    rates = {optimizer: tuned(study, optimizer, args.tuning_episodes) for optimizer in FIRST_RATES}
    packs, numbers = list(study.packs), range(args.episodes)
    found: dict[str, list[list[float]]] = {optimizer: [] for optimizer in (PROTOTYPES, *FIRST_RATES)}
    for pack in packs:
        for number in numbers:  # episodes outside: an episode's images are prepared once
            for optimizer in found:
                study.accuracies(pack, optimizer, rates.get(optimizer, 0), range(number + 1), pack)
        for optimizer, accuracies in found.items():
            accuracies.append(study.accuracies(pack, optimizer, rates.get(optimizer, 0), numbers, pack))
    sizes = [v.numel() for v in study.network.pretrained.values()]
    biases = sum(v.numel() for v in study.network.pretrained.values() if v.ndim == 1)
    print(f"{sum(sizes) - biases:,} weights and {biases:,} biases in {len(sizes)} tensors learn\n")
    print(table(found, packs, rates, study.network))


if __name__ == "__main__":
    main()
