"""One policy through one few-shot episode; every policy sees the same episodes with the same augmented images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from ..compiled import CompiledModel
from ..errors import UsageError
from ..ops import Int8
from ..reference.draws import mix
from ..runtime_abi import MAX_SHOTS
from .augment import augment
from .episodes import Episode
from .learner import Factory, Learner, LearnerOptions, TrainStats
from .packs import Pack, to_inputs

Task = tuple[str, int]  # policy, number of the episode


@dataclass(frozen=True)
class EpisodeResult:
    """One policy after one episode."""

    accuracy: float  # % of the queries
    stats: TrainStats
    seconds: float  # on this machine, without preparing the images
    sram_bytes: int


@dataclass
class Study:
    """Everything that the result of an episode depends on. Learners are made once and kept until close()."""

    model: CompiledModel
    pack: Pack
    episodes: Sequence[Episode]
    learners: Mapping[str, Factory]
    epochs: int
    options: LearnerOptions
    seed: int
    _running: dict[str, Learner] = field(default_factory=dict)
    _inputs: tuple[int, Int8, Int8] | None = None  # of the last episode: number, support, query

    def run(self, policy: str, number: int) -> EpisodeResult:
        """Episode `number` under a policy. Depends on nothing that ran before it."""
        episode = self.episodes[number]
        learner = self._learner(policy)
        _check_size(learner, episode, self.model)
        support, query = self._bytes(number)
        seed = mix(self.seed, number)
        started = perf_counter()
        learner.forget(episode.classes)
        labels = [label for label, _ in episode.support]
        for x, label in zip(support, labels, strict=True):
            learner.enroll(x, label)
        stats = learner.train(self._sampler(support, seed), labels, self.epochs, seed, lambda done, total: None)
        right = sum(learner.infer(x) == label for x, (label, _) in zip(query, episode.query, strict=True))
        return EpisodeResult(100 * right / len(query), stats, perf_counter() - started, learner.sram_bytes)

    def _sampler(self, support: Int8, seed: int) -> Callable[[int, int], Int8]:
        """sample(i, epoch): the support sample i as it is in epoch -1, augmented in the others.

        Only images are augmented: float samples have no rule for it and stay as they are.
        """
        zero_point = self.model.graph.tensors[self.model.graph.input].quantization.zero_point

        def sample(index: int, epoch: int) -> Int8:
            x: Int8 = support[index]
            if epoch < 0 or not self.pack.is_images or x.ndim != 3:
                return x
            return augment(x, zero_point, mix(seed, epoch, index))

        return sample

    def _bytes(self, number: int) -> tuple[Int8, Int8]:
        """(support, query) of an episode as device inputs; the last one's are kept."""
        if self._inputs is None or self._inputs[0] != number:
            episode = self.episodes[number]
            shown = len(episode.support)
            inputs = to_inputs(self.pack, [i for _, i in (*episode.support, *episode.query)], self.model)
            self._inputs = (number, inputs[:shown], inputs[shown:])
        return self._inputs[1:]

    def _learner(self, policy: str) -> Learner:
        if policy not in self._running:
            self._running[policy] = self.learners[policy](self.model, self.options)
        return self._running[policy]

    def close(self) -> None:
        for learner in self._running.values():
            learner.close()
        self._running.clear()


def _check_size(learner: Learner, episode: Episode, model: CompiledModel) -> None:
    if episode.way > learner.classes:
        raise UsageError(
            f"{model.directory}: tells at most {learner.classes} classes apart and the episodes have {episode.way}; "
            f"compile the model with --classes {episode.way}"
        )
    if episode.shot > MAX_SHOTS:
        raise UsageError(f"episodes have {episode.shot} shots; a class holds at most {MAX_SHOTS} examples")
