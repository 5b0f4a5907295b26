"""How a tensor of a model's file lies in the memory of the device.

A file has the order of its shape, last axis innermost. The device keeps other orders where kernels want them, images
with the channels innermost. Both orders are read off *atoms*: factors of the tensor's size, outermost first, whose
order in memory is a permutation. Reshapes change the shape alone, transpositions change which order of the atoms is
the file's, and neither moves a byte; bytes move only where an operator wants the atoms in another order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]

MAX_RANK = 6  # axes of a tensor on the device


@dataclass(frozen=True)
class Layout:
    """Equal orders have equal `sizes` and `order`: no atom has size 1, and none can be merged with its neighbour."""

    shape: Shape  # in the file, batch included
    device: Shape  # of the tensor in memory
    sizes: Shape  # of the atoms, in the file's order
    order: tuple[int, ...]  # the atoms as they lie in memory, outermost first

    @classmethod
    def of_axes(cls, shape: Sequence[int], axes: Sequence[int]) -> Layout:
        """Whole axes of the file in another order: `axes` names all of them, outermost in memory first.

        The device's shape has them in that order, without a first axis of the file that is 1, the batch; of more than
        MAX_RANK the outermost are one.
        """
        shape = tuple(shape)
        kept = [axis for axis in axes if axis > 0 or shape[0] != 1 or len(shape) == 1]
        device = tuple(shape[axis] for axis in kept) or (1,)
        while len(device) > MAX_RANK:
            device = (device[0] * device[1], *device[2:])
        return cls(shape, device, *_merged(shape, axes))

    @classmethod
    def row_major(cls, shape: Sequence[int]) -> Layout:
        """The file's own order."""
        return cls.of_axes(shape, range(len(shape)))

    @classmethod
    def image(cls, shape: Sequence[int]) -> Layout:
        """(1, C, H, W) as (H, W, C), and (1, C, L) as an image of height 1, (1, L, C)."""
        found = cls.of_axes(shape, (0, *range(2, len(shape)), 1))
        return replace(found, device=(1, *found.device)) if len(shape) == 3 else found

    def same_order(self, other: Layout) -> bool:
        """Whether the bytes of both are the same, whatever shapes they are given."""
        return (self.sizes, self.order) == (other.sizes, other.order)

    @property
    def is_row_major(self) -> bool:
        """Whether memory has the file's order."""
        return len(self.sizes) < 2

    def reshaped(self, shape: Sequence[int]) -> Layout:
        """After a Reshape, Flatten, Squeeze or Unsqueeze of the file."""
        if prod(shape) != prod(self.shape):
            raise ValueError(f"{self.shape} has not as many values as {tuple(shape)}")
        return replace(self, shape=tuple(shape))

    def transposed(self, perm: Sequence[int]) -> Layout | None:
        """After a Transpose of the file; None where an axis has no atoms of its own: then bytes must move before."""
        split = _split(self.sizes, self.order, _cuts(self.shape))
        if split is None:
            return None
        sizes, order = split
        axes: list[list[int]] = []  # the atoms of each axis
        at = 0
        for size in self.shape:
            axes.append([])
            while size > 1:
                size //= sizes[at]
                axes[-1].append(at)
                at += 1
        moved = [atom for axis in perm for atom in axes[axis]]
        number = {atom: i for i, atom in enumerate(moved)}
        sizes, order = _merged([sizes[atom] for atom in moved], [number[atom] for atom in order])
        return Layout(tuple(self.shape[axis] for axis in perm), self.device, sizes, order)

    def move_to(self, other: Layout) -> tuple[Shape, tuple[int, ...]] | None:
        """(sizes, perm): memory read as an array of these sizes and transposed by perm has `other`'s order.

        None where it takes two such steps, by way of the file's order.
        """
        source = _split(self.sizes, self.order, _cuts(other.sizes))
        target = _split(other.sizes, other.order, _cuts(self.sizes))
        if source is None or target is None:
            return None
        sizes, order = source
        place = {atom: i for i, atom in enumerate(order)}
        return _merged([sizes[atom] for atom in order], [place[atom] for atom in target[1]])

    @property
    def is_channels_last(self) -> bool:
        """Whether the file has the axes of an image in the device's order, (1, H, W, C)."""
        return len(self.shape) == 4 and self.is_row_major and not self.same_order(Layout.image(self.shape))

    @property
    def axes(self) -> tuple[int, ...] | None:
        """The file's axes as they lie in memory, outermost first, if memory holds whole ones; axes of 1 first."""
        split = _split(self.sizes, self.order, _cuts(self.shape))
        if split is None:
            return None
        long = [axis for axis, size in enumerate(self.shape) if size > 1]
        sizes, order = split
        if list(sizes) != [self.shape[axis] for axis in long]:
            return None
        ones = [axis for axis, size in enumerate(self.shape) if size == 1]
        return (*ones, *(long[atom] for atom in order))

    @property
    def words(self) -> str:
        """The order of memory, for the comment beside a tensor's size."""
        if len(self.shape) in (3, 4) and self.same_order(Layout.image(self.shape)):
            return "channels last"
        file = f"the file's {' x '.join(map(str, self.shape))}"
        if self.is_row_major:
            return f"in the order of {file}"
        axes = self.axes
        return f"axes {', '.join(map(str, axes))} of {file}" if axes else f"another order than {file}"

    @property
    def positions(self) -> NDArray[np.int64]:
        """int64 (n,): for each place in memory, which element of the file, in the file's order, lies there."""
        found: NDArray[np.int64] = np.arange(prod(self.sizes)).reshape(self.sizes).transpose(self.order).reshape(-1)
        return found

    def to_device(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values of the file (n, *shape) -> (n, *device)."""
        atoms = values.reshape(-1, *self.sizes).transpose(0, *(atom + 1 for atom in self.order))
        return np.ascontiguousarray(atoms).reshape(-1, *self.device)

    def from_device(self, values: NDArray[Any]) -> NDArray[Any]:
        """Memory (n, bytes) in any shape -> (n, *shape) as the file has it."""
        atoms = values.reshape(-1, *(self.sizes[atom] for atom in self.order))
        places = [self.order.index(atom) for atom in range(len(self.order))]
        return np.ascontiguousarray(atoms.transpose(0, *(place + 1 for place in places))).reshape(-1, *self.shape)


def _merged(sizes: Sequence[int], order: Sequence[int]) -> tuple[Shape, tuple[int, ...]]:
    """The same order with the fewest atoms: none of size 1, and one for those that follow each other in both orders."""
    long = [atom for atom, size in enumerate(sizes) if size > 1]
    number = {atom: i for i, atom in enumerate(long)}
    runs: list[list[int]] = []  # of atoms that follow each other, as they lie in memory
    for atom in (number[atom] for atom in order if atom in number):
        if runs and runs[-1][-1] + 1 == atom:
            runs[-1].append(atom)
        else:
            runs.append([atom])
    in_file = sorted(runs)
    merged = tuple(prod(sizes[long[atom]] for atom in run) for run in in_file)
    return merged, tuple(in_file.index(run) for run in runs)


def _cuts(sizes: Iterable[int]) -> set[int]:
    """Where factors end, as the number of elements behind each end."""
    found, behind = set[int](), 1
    for size in reversed(list(sizes)):
        found.add(behind)
        behind *= size
    return found


def _split(sizes: Shape, order: tuple[int, ...], cuts: Iterable[int]) -> tuple[Shape, tuple[int, ...]] | None:
    """The same order with atoms that end at these cuts too; None where one falls within no whole factor of an atom."""
    behind, pieces = 1, list[list[int]]()  # pieces: of each atom, from the last atom to the first
    for size in reversed(sizes):
        ends = [behind, *sorted(cut for cut in cuts if behind < cut < behind * size), behind * size]
        if any(end % before for before, end in pairwise(ends)):
            return None
        pieces.append([end // before for before, end in pairwise(ends)][::-1])
        behind *= size
    pieces.reverse()
    first = list(accumulate(map(len, pieces), initial=0))
    found = tuple(piece for each in pieces for piece in each)
    return found, tuple(first[atom] + i for atom in order for i in range(len(pieces[atom])))
