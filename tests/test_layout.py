"""Layouts against NumPy: random rows of reshapes and transpositions, and the moves between two orders."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinytrain_compiler.graph.layout import Layout

Draw = st.DrawFn
SIZES = st.sampled_from([(24,), (1, 24), (2, 3, 4), (1, 6, 8), (1, 3, 4, 5), (1, 2, 3, 2, 2), (6, 1, 4), (1, 1, 1)])


@st.composite
def factorised(draw: Draw, total: int) -> tuple[int, ...]:
    """A shape of so many elements, now and then with axes of 1."""
    shape, left = list[int](), total
    while left > 1 and len(shape) < 4:
        shape.append(draw(st.sampled_from([n for n in range(1, left + 1) if left % n == 0])))
        left //= shape[-1]
    return (*shape, left)


@st.composite
def start(draw: Draw) -> Layout:
    shape = draw(SIZES)
    return Layout.of_axes(shape, draw(st.permutations(range(len(shape)))))


@given(st.data())
def test_reshapes_and_transpositions_are_numpys(data: st.DataObject) -> None:
    """Memory stays where it is; what the file has is read from it through the layout."""
    layout = data.draw(start())
    memory = np.arange(prod(layout.shape))
    values = layout.from_device(memory[None])
    assert np.array_equal(layout.to_device(values).reshape(-1), memory)
    for _ in range(data.draw(st.integers(0, 6))):
        if data.draw(st.booleans()):
            shape = data.draw(factorised(memory.size))
            layout, values = layout.reshaped(shape), values.reshape(1, *shape)
        else:
            perm = data.draw(st.permutations(range(len(layout.shape))))
            moved = layout.transposed(perm)
            if moved is None:
                layout = Layout.row_major(layout.shape)
                memory = values.reshape(-1)  # bytes moved
                moved = layout.transposed(perm)
                assert moved is not None, "of the file's order every axis has its own atoms"
            layout, values = moved, values.transpose(0, *(axis + 1 for axis in perm))
        assert layout.shape == values.shape[1:]
        assert np.array_equal(layout.from_device(memory[None]), values)
        assert np.array_equal(layout.to_device(values).reshape(-1), memory)
        assert np.array_equal(values.reshape(-1)[layout.positions], memory)
        assert all(size > 1 for size in layout.sizes)


@given(st.data())
def test_a_move_takes_memory_from_one_order_to_another(data: st.DataObject) -> None:
    first = data.draw(start())
    perm = data.draw(st.permutations(range(len(first.shape))))
    turned = first.transposed(perm)
    assert turned is not None, "whole axes"
    second = Layout.of_axes(turned.shape, data.draw(st.permutations(range(len(perm)))))
    memory = np.arange(prod(first.shape))
    values = turned.from_device(memory[None])
    for target in (second, second.reshaped((prod(first.shape),))):
        move = turned.move_to(target)
        assert move is not None, "both hold whole axes"
        sizes, order = move
        assert (len(sizes) < 2) == turned.same_order(target)
        assert np.array_equal(memory.reshape(sizes).transpose(order).reshape(-1), second.to_device(values).reshape(-1))


@given(st.data())
def test_axes_are_those_that_memory_holds_whole(data: st.DataObject) -> None:
    shape = data.draw(SIZES)
    order = data.draw(st.permutations(range(len(shape))))
    layout = Layout.of_axes(shape, order)
    found = layout.axes
    assert found is not None
    assert sorted(found) == list(range(len(shape)))
    assert [axis for axis in found if shape[axis] > 1] == [axis for axis in order if shape[axis] > 1]
    assert Layout.of_axes(shape, found).same_order(layout)


def test_what_a_layout_says_of_images() -> None:
    image = Layout.image((1, 4, 2, 3))
    assert (image.device, image.sizes, image.order) == ((2, 3, 4), (4, 6), (1, 0))
    assert Layout.image((1, 4, 6)).device == (1, 6, 4)
    assert image.reshaped((1, 4, 6)).same_order(Layout.image((1, 4, 6)))
    assert Layout.image((1, 4, 1, 1)).is_row_major
    assert image.reshaped((1, 24)).axes is None, "a flattened image is no whole axis of the file"
    nhwc = Layout.row_major((1, 2, 3, 4)).transposed((0, 3, 1, 2))
    assert nhwc is not None
    assert nhwc.same_order(image)


def test_axes_without_atoms_of_their_own_cannot_be_transposed() -> None:
    """Rows of four of a transposed 4x6 begin in the middle of its columns."""
    turned = Layout.row_major((6, 4)).transposed((1, 0))
    assert turned is not None
    assert turned.reshaped((3, 8)).transposed((1, 0)) is None
    assert turned.reshaped((3, 8)).move_to(Layout.of_axes((3, 8), (1, 0))) is None
    shuffled = Layout.image((1, 6, 5, 5)).reshaped((1, 2, 3, 5, 5)).transposed((0, 2, 1, 3, 4))
    assert shuffled is not None
    shuffled = shuffled.reshaped((1, 6, 5, 5))
    assert shuffled.move_to(Layout.image((1, 6, 5, 5))) == ((25, 2, 3), (0, 2, 1))


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (Layout.image((1, 3, 8, 8)), "channels last"),
        (Layout.image((1, 9, 128)), "channels last"),
        (Layout.row_major((1, 640)), "in the order of the file's 1 x 640"),
        (Layout.row_major((1, 8, 8, 3)), "in the order of the file's 1 x 8 x 8 x 3"),
        (Layout.of_axes((1, 4, 5, 6), (0, 1, 3, 2)), "axes 0, 1, 3, 2 of the file's 1 x 4 x 5 x 6"),
    ],
)
def test_an_order_in_words(layout: Layout, words: str) -> None:
    assert layout.words == words
