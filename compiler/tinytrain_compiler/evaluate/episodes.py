"""Few-shot tasks: which samples of a pack are the support set and which are queries.

A file of episodes is JSON: {pack name: {"way", "shot", "episodes": [{"classes", "support", "query"}, ...]}},
support and query with one row of indices into the pack for each class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..reference.draws import Draws, mix
from .packs import Pack


@dataclass(frozen=True)
class Episode:
    """One task. A label is the class's place in `classes`, 0 .. way - 1; an index is one into the pack."""

    way: int
    shot: int
    classes: tuple[int, ...]
    support: tuple[tuple[int, int], ...]  # (label, index), class by class
    query: tuple[tuple[int, int], ...]
    group: str | None = None  # whose samples all of them are, where episodes are drawn by one key of the pack


def load_episodes(path: str | Path, pack: Pack) -> list[Episode]:
    """The pack's episodes in a file, by the pack's name.

    Raises UsageError where the file is none of these, knows no such pack, or was made for other data: an index
    outside the pack, a sample of another class, one on both sides.
    """
    file = Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{file}: cannot be read ({reason}); give a JSON file of episodes") from error
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        raise UsageError(f'{file}: is no file of episodes; {{"pack": {{"way", "shot", "episodes"}}}} is wanted')
    if pack.name not in content:
        near = get_close_matches(pack.name, content, 1)
        hint = f", did you mean {near[0]}?" if near else "; leave it out to sample episodes"
        raise UsageError(f"{file}: has no episodes for '{pack.name}', only for {', '.join(content)}{hint}")
    entry = content[pack.name]
    try:
        way, shot, listed = int(entry["way"]), int(entry["shot"]), list(entry["episodes"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{file}, {pack.name}: `way`, `shot` or `episodes` is missing or wrong ({error})") from error
    if not listed:
        raise UsageError(f"{file}, {pack.name}: the list of episodes is empty")
    return [_episode(f"{file}, {pack.name}, episode {i}", e, way, shot, pack) for i, e in enumerate(listed)]


def _episode(where: str, entry: Any, way: int, shot: int, pack: Pack) -> Episode:
    try:
        classes = tuple(int(c) for c in entry["classes"])
        support, query = ([[int(i) for i in row] for row in entry[key]] for key in ("support", "query"))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{where}: `classes`, `support` or `query` is missing or wrong ({error})") from error
    if len(set(classes)) != way or not len(classes) == len(support) == len(query) == way:
        raise UsageError(
            f"{where}: has {len(classes)} classes, {len(support)} rows of support and {len(query)} of query; "
            f"the file says {way}-way"
        )
    if any(len(row) != shot for row in support) or not all(query):
        raise UsageError(f"{where}: each class needs {shot} support samples and at least one query")
    for number, rows in zip(classes, zip(support, query, strict=True), strict=True):
        _check_indices(where, number, [*rows[0], *rows[1]], pack)
    return Episode(way, shot, classes, _labelled(support), _labelled(query))


def _check_indices(where: str, number: int, indices: Sequence[int], pack: Pack) -> None:
    for index in indices:
        if not 0 <= index < len(pack):
            raise UsageError(f"{where}: names sample {index}, but {pack.source} has {len(pack)}; use its own episodes")
        if pack.labels[index] != number:
            raise UsageError(
                f"{where}: sample {index} of {pack.source} is of class {pack.labels[index]}, not {number}; "
                "these episodes were made for other data"
            )
    if len(set(indices)) != len(indices):
        raise UsageError(f"{where}: a sample of class {number} is listed twice; support and query must not overlap")


def _labelled(rows: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((label, index) for label, row in enumerate(rows) for index in row)


def sample_episodes(
    pack: Pack, way: int, shot: int, queries: int, count: int, seed: int = 0, gap: int = 1
) -> list[Episode]:
    """`count` random episodes of `way` classes, `shot` support samples and `queries` queries each.

    Where the pack says what belongs together (Pack.groups), nothing of a group in a class's support is asked
    about, and no sample nearer than `gap` places in the pack to one of the support: windows that follow each other
    may overlap. Episode i depends on the seed and i only. Raises UsageError where the pack is too small.
    """
    _check_counts(way, shot, queries, count, gap)
    members = _by_class(pack, range(len(pack)))
    enough = _large_enough(members, shot, queries, gap)
    if len(enough) < way:
        raise UsageError(
            f"{pack.source}: {len(enough)} of {len(members)} classes have the {_needed(shot, queries, gap)} samples "
            f"that {shot} shots and {queries} queries take; {way} are needed, so ask for fewer"
        )
    task = _Task(pack, pack.groups, way, shot, queries, gap)
    return [task.draw(members, enough, Draws(mix(seed, i))) for i in range(count)]


def sample_episodes_by(
    pack: Pack, key: str, way: int, shot: int, queries: int, count: int | None = None, seed: int = 0, gap: int = 1
) -> list[Episode]:
    """One episode for each of `count` groups (None: of all that have the samples), all samples of it from that group.

    key: an array of the pack, such as `speaker`: the device learns one speaker and is asked about the same. Each
    group has one episode, so that what an interval over episodes tells is how groups differ. gap: see
    sample_episodes. Raises UsageError where the pack has fewer groups.
    """
    _check_counts(way, shot, queries, 1 if count is None else count, gap)
    groups = {group: _by_class(pack, indices) for group, indices in pack.members(key).items()}
    enough = {group: _large_enough(members, shot, queries, gap) for group, members in groups.items()}
    able = [group for group, classes in enough.items() if len(classes) >= way]
    if len(able) < (count or 1):
        raise UsageError(
            f"{pack.source}: {len(able)} of {len(groups)} values of `{key}` have {way} classes of the "
            f"{_needed(shot, queries, gap)} samples that {shot} shots and {queries} queries take; ask for at most that "
            "many episodes, or for fewer classes, shots or queries"
        )
    task = _Task(pack, None, way, shot, queries, gap)
    chosen = Draws(mix(seed)).choose(able, len(able) if count is None else count)
    return [
        replace(task.draw(groups[group], enough[group], Draws(mix(seed, i))), group=group)
        for i, group in enumerate(chosen)
    ]


def _check_counts(way: int, shot: int, queries: int, count: int, gap: int) -> None:
    if min(way, shot, queries, count, gap) < 1:
        raise UsageError("way, shot, queries, the gap and the number of episodes must be at least 1")


def _by_class(pack: Pack, indices: Sequence[int]) -> dict[int, list[int]]:
    labels = pack.labels[list(indices)]
    return {int(c): [i for i, label in zip(indices, labels, strict=True) if label == c] for c in np.unique(labels)}


def _needed(shot: int, queries: int, gap: int) -> int:
    """Samples of a class that are enough wherever the support lies."""
    return shot + queries + 2 * shot * (gap - 1)


def _large_enough(members: Mapping[int, list[int]], shot: int, queries: int, gap: int) -> list[int]:
    return [c for c, indices in members.items() if len(indices) >= _needed(shot, queries, gap)]


@dataclass(frozen=True)
class _Task:
    """What all drawn episodes have in common."""

    pack: Pack
    groups: NDArray[Any] | None  # (N,): of these none is on both sides of a class
    way: int
    shot: int
    queries: int
    gap: int

    def draw(self, members: Mapping[int, list[int]], enough: list[int], draws: Draws) -> Episode:
        classes = draws.choose(enough, self.way)
        support, query = [], []
        for number in classes:
            chosen = draws.choose(members[number], self.shot)
            support.append(chosen)
            query.append(draws.choose(self._askable(members[number], chosen), self.queries))
        return Episode(self.way, self.shot, tuple(classes), _labelled(support), _labelled(query))

    def _askable(self, members: Sequence[int], chosen: Sequence[int]) -> list[int]:
        """A class's samples that have nothing to do with the chosen ones."""
        rest = [i for i in members if all(abs(i - shown) >= self.gap for shown in chosen)]
        if self.groups is not None:
            seen = set(self.groups[list(chosen)].tolist())
            rest = [i for i in rest if self.groups[i] not in seen]
        if len(rest) < self.queries:
            raise UsageError(
                f"{self.pack.source}: class {self.pack.labels[chosen[0]]} has only {len(rest)} samples in groups "
                f"other than those of {len(chosen)} support samples, {self.queries} are needed; ask for fewer shots "
                "or queries"
            )
        return rest
