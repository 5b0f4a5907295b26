"""Policies through few-shot episodes, and what to report of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from ..compiled import CompiledModel
from ..errors import UsageError
from ..targets.harness_training import StepInstructions
from ..training.policy import Policy
from .episodes import Episode
from .host_learner import HostLearner
from .instructions import Note, step_instructions
from .learner import Factory, LearnerOptions, Progress
from .network_learner import NETWORK, NetworkLearner, check_outputs
from .packs import Pack
from .statistics import estimate
from .study import EpisodeResult, Study, Task
from .workers import run_in_processes

EPOCHS = 40


def run_episodes(
    model: CompiledModel,
    pack: Pack,
    episodes: Sequence[Episode],
    learners: Mapping[str, Factory],
    *,
    epochs: int = EPOCHS,
    options: LearnerOptions | None = None,
    seed: int = 0,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> dict[str, list[EpisodeResult]]:
    """Every learner through every episode; the lists are in the episodes' order.

    workers: processes; the results (except the seconds) do not depend on how many. progress counts episodes
    times learners. Errors: UsageError, and what the learners raise.
    """
    if not episodes:
        raise UsageError("no episodes to run; ask for at least one")
    study = Study(model, pack, episodes, learners, epochs, options or LearnerOptions(), seed)
    tasks = [(name, number) for number in range(len(episodes)) for name in learners]
    found: dict[Task, EpisodeResult] = {}
    progress(0, len(tasks))
    for done, (task, result) in enumerate(_results(study, tasks, workers), 1):
        found[task] = result
        progress(done, len(tasks))
    return {name: [found[name, number] for number in range(len(episodes))] for name in learners}


def _results(study: Study, tasks: Sequence[Task], workers: int) -> Iterator[tuple[Task, EpisodeResult]]:
    if min(workers, len(tasks)) > 1:
        yield from run_in_processes(study, tasks, workers)
        return
    with closing(study):
        for task in tasks:
            yield task, study.run(*task)


def evaluate(
    model: CompiledModel,
    pack: Pack,
    episodes: Sequence[Episode],
    policies: Mapping[str, Policy],
    *,
    count: int | None = None,
    epochs: int = EPOCHS,
    options: LearnerOptions | None = None,
    seed: int = 0,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
    emulation: bool = False,
    network: bool = False,
    note: Note = lambda text: None,
) -> dict[str, Any]:
    """Accuracy of policies by name over the first `count` episodes (None: all), as run_episodes runs them.

    Returns {"pack", "episodes": n, "policies": {name: {"accuracy": mean in %, "ci95": half width in points or
    None for one episode, "episodes": n, "sram_bytes", "instructions_per_step": or None, of these
    "instructions_forward" and "instructions_backward" (updates included), "per_episode": [%]}}}.

    emulation: measure instructions, once a policy, on an emulated core like the board's; note is told, in one line,
    where that is not possible. Otherwise they are None.
    network: also the network's own answers, as "network", in front of the policies.
    """
    chosen, options = episodes[:count], options or LearnerOptions()
    if count is not None and count > len(episodes):
        raise UsageError(f"{count} episodes are asked for, {len(episodes)} are there; ask for at most that many")
    learners: dict[str, Factory] = {name: partial(HostLearner, policy=policy) for name, policy in policies.items()}
    if network:
        check_outputs(model, pack)
        learners = {NETWORK: NetworkLearner, **learners}
    found = run_episodes(
        model, pack, chosen, learners, epochs=epochs, options=options, seed=seed, workers=workers, progress=progress
    )
    steps = {
        name: step_instructions(model, name, policy, options, note) if emulation else None
        for name, policy in policies.items()
    }
    return {
        "pack": pack.name,
        "episodes": len(chosen),
        "policies": {name: _summary(results, steps.get(name)) for name, results in found.items()},
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
