"""The house stays easy to live in: no circles, lines that fit a screen, functions that fit a page."""

from __future__ import annotations

from pathlib import Path

import house
import pytest


def test_no_python_files_need_each_other() -> None:
    assert house.circles(house.python_edges()) == []


def test_no_python_folders_need_each_other() -> None:
    assert house.circles(house.by_folder(house.python_edges())) == []


def test_no_units_of_the_runtime_need_each_other() -> None:
    assert house.circles(house.c_edges()) == []


def test_circles_are_found() -> None:
    assert house.circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


def test_functions_fit_a_page() -> None:
    (python, where), *_ = house.longest_python_functions()
    assert python <= 80, where
    (c, where), *_ = house.longest_c_functions(sorted(house.RUNTIME.glob("*.[ch]")))
    assert c <= 80, where


@pytest.mark.parametrize("policy", ["none", "bias", "tinytrain"])
def test_lines_of_c_that_users_read_fit_a_screen(policy: str, tmp_path: Path) -> None:
    columns, where = house.widest(house.generated_c(tmp_path / "net", policy))
    assert columns <= 120, where
