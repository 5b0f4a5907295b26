"""Policies through few-shot episodes, every policy through the same ones with the same augmented pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from ..compiled import CompiledModel
from ..errors import UsageError
from ..ops import Int8
from ..reference.draws import mix
from ..runtime_abi import MAX_SHOTS
from ..targets.harness_training import StepInstructions
from .augment import augment
from .episodes import Episode
from .instructions import Note, step_instructions
from .learner import Factory, Learner, LearnerOptions, Progress, TrainStats, factories
from .packs import Pack, to_inputs
from .statistics import estimate

EPOCHS = 40


@dataclass(frozen=True)
class EpisodeResult:
    """One policy after one episode."""

    accuracy: float  # % of the queries
    stats: TrainStats
    seconds: float  # on this machine, without preparing the pictures
    sram_bytes: int


@dataclass
class Study:
    """Everything that the result of an episode depends on. Learners are made once and kept until close()."""

    model: CompiledModel
    pack: Pack
    episodes: Sequence[Episode]
    policies: dict[str, Factory]
    epochs: int
    options: LearnerOptions
    seed: int
    _learners: dict[str, Learner] = field(default_factory=dict)
    _inputs: tuple[int, Int8, Int8] | None = None  # of the last episode: number, support, query

    def run(self, policy: str, number: int) -> EpisodeResult:
        """Episode `number` under a policy. Depends on nothing that ran before it."""
        episode = self.episodes[number]
        learner = self._learner(policy)
        _check_room(learner, episode, self.model)
        support, query = self._bytes(number)
        seed = mix(self.seed, number)
        started = perf_counter()
        learner.forget()
        labels = [label for label, _ in episode.support]
        for x, label in zip(support, labels, strict=True):
            learner.enroll(x, label)
        stats = learner.train(self._sampler(support, seed), labels, self.epochs, seed, lambda done, total: None)
        right = sum(learner.infer(x) == label for x, (label, _) in zip(query, episode.query, strict=True))
        return EpisodeResult(100 * right / len(query), stats, perf_counter() - started, learner.sram_bytes)

    def _sampler(self, support: Int8, seed: int) -> Callable[[int, int], Int8]:
        """sample(i, epoch): the support sample i as it is in epoch -1, augmented in the others.

        Augmentation is of pictures; float samples have no rule for it and stay as they are.
        """
        zero_point = self.model.graph.tensors[self.model.graph.input].quantization.zero_point

        def sample(index: int, epoch: int) -> Int8:
            x: Int8 = support[index]
            if epoch < 0 or not self.pack.is_pictures or x.ndim != 3:
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
        if policy not in self._learners:
            self._learners[policy] = self.policies[policy](self.model, self.options)
        return self._learners[policy]

    def close(self) -> None:
        for learner in self._learners.values():
            learner.close()
        self._learners.clear()


def _check_room(learner: Learner, episode: Episode, model: CompiledModel) -> None:
    if episode.way > learner.classes:
        raise UsageError(
            f"{model.directory}: has room for {learner.classes} classes and the episodes have {episode.way}; "
            f"compile the model with --classes {episode.way}"
        )
    if episode.shot > MAX_SHOTS:
        raise UsageError(f"episodes have {episode.shot} shots; a class holds at most {MAX_SHOTS} examples")


def run_episodes(
    model: CompiledModel,
    pack: Pack,
    episodes: Sequence[Episode],
    policies: Sequence[str],
    *,
    epochs: int = EPOCHS,
    options: LearnerOptions | None = None,
    seed: int = 0,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> dict[str, list[EpisodeResult]]:
    """Every policy through every episode; the lists are in the episodes' order.

    workers: processes; the results (except the seconds) do not depend on how many. progress counts episodes
    times policies. Errors: UsageError, and what the policies raise.
    """
    if not episodes:
        raise UsageError("no episodes to run; ask for at least one")
    study = Study(model, pack, episodes, factories(policies), epochs, options or LearnerOptions(), seed)
    tasks = [(policy, number) for number in range(len(episodes)) for policy in policies]
    found: dict[tuple[str, int], EpisodeResult] = {}
    progress(0, len(tasks))
    for done, (task, result) in enumerate(_results(study, tasks, workers), 1):
        found[task] = result
        progress(done, len(tasks))
    return {policy: [found[policy, number] for number in range(len(episodes))] for policy in policies}


def _results(
    study: Study, tasks: Sequence[tuple[str, int]], workers: int
) -> Iterator[tuple[tuple[str, int], EpisodeResult]]:
    if min(workers, len(tasks)) > 1:
        from .workers import run_in_processes

        yield from run_in_processes(study, tasks, workers)
        return
    with closing(study):
        for policy, number in tasks:
            yield (policy, number), study.run(policy, number)


def evaluate(
    model: CompiledModel,
    pack: Pack,
    episodes: Sequence[Episode],
    policies: Sequence[str],
    *,
    count: int | None = None,
    epochs: int = EPOCHS,
    options: LearnerOptions | None = None,
    seed: int = 0,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
    emulation: bool = False,
    note: Note = lambda text: None,
) -> dict[str, Any]:
    """Accuracy of policies over the first `count` episodes (None: all), as run_episodes runs them.

    Returns {"pack", "episodes": n, "policies": {name: {"accuracy": mean in %, "ci95": half width in points or
    None for one episode, "episodes": n, "sram_bytes", "instructions_per_step": or None, of these
    "instructions_forward" and "instructions_backward" (updates included), "per_episode": [%]}}}.

    emulation: measure instructions, once a policy, on an emulated core like the board's; note is told, in one line,
    where that is not possible. Otherwise they are None.
    """
    chosen = episodes[:count]
    if count is not None and count > len(episodes):
        raise UsageError(f"{count} episodes are asked for, {len(episodes)} are there; ask for at most that many")
    found = run_episodes(
        model, pack, chosen, policies, epochs=epochs, options=options, seed=seed, workers=workers, progress=progress
    )
    steps = {
        policy: step_instructions(model, policy, options or LearnerOptions(), note) if emulation else None
        for policy in found
    }
    return {
        "pack": pack.name,
        "episodes": len(chosen),
        "policies": {policy: _summary(results, steps[policy]) for policy, results in found.items()},
    }


def _summary(results: Sequence[EpisodeResult], step: StepInstructions | None) -> dict[str, Any]:
    accuracies = [result.accuracy for result in results]
    mean = estimate(accuracies)
    return {
        "accuracy": mean.mean,
        "ci95": mean.half_width,
        "episodes": len(results),
        "sram_bytes": results[0].sram_bytes,
        "instructions_per_step": step.total if step else None,
        "instructions_forward": step.forward if step else None,
        "instructions_backward": step.backward if step else None,
        "per_episode": accuracies,
    }
