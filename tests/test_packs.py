"""Packs, episodes and sampling: what is read, and that everything wrong is said clearly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinytrain_compiler import Artifacts
from tinytrain_compiler.compiled import CompiledModel, load_compiled
from tinytrain_compiler.errors import UsageError
from tinytrain_compiler.evaluate import Pack, load_episodes, load_pack, sample_episodes, sample_episodes_by, to_inputs
from tinytrain_compiler.quantize.input_bytes import pixel_map


@pytest.fixture(scope="module")
def model(compiled_small: Artifacts) -> CompiledModel:
    assert compiled_small.directory is not None
    return load_compiled(compiled_small.directory)


def save(folder: Path, name: str = "dots", **arrays: Any) -> Path:
    file = folder / f"{name}.npz"
    np.savez(file, **arrays)
    return file


def random_images(count: int = 40, classes: int = 4, shape: tuple[int, ...] = (9, 11, 3)) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *shape), np.uint8)
    return {"images": images, "labels": np.arange(count, dtype=np.int16) % classes}


def pack_of(count: int = 40, classes: int = 4, groups: np.ndarray | None = None) -> Pack:
    given = random_images(count, classes)
    names = tuple("abcdefgh"[:classes])
    return Pack("dots", given["images"], given["labels"].astype(np.int64), names, "dots.npz (images)", groups)


# -- packs ---------------------------------------------------------------------------------------


def test_images_with_names_and_groups(tmp_path: Path) -> None:
    track = np.arange(40) // 2
    file = save(
        tmp_path, **random_images(), class_names=np.array(list("wxyz")), track=track, source=np.array(["f"] * 40)
    )
    pack = load_pack(file)
    assert (pack.name, pack.class_names, pack.source) == ("dots", ("w", "x", "y", "z"), "dots.npz (images)")
    assert pack.is_images
    assert len(pack) == 40
    assert pack.labels.dtype == np.int64
    assert pack.groups is not None
    assert (pack.groups == track).all()


@pytest.mark.parametrize("key", ["mfcc", "signals", "readings"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_float_arrays(tmp_path: Path, key: str, dtype: type) -> None:
    values = np.ones((6, 5, 2), dtype)
    pack = load_pack(save(tmp_path, **{key: values}, labels=np.arange(6) % 3))
    assert not pack.is_images
    assert pack.values.shape == (6, 5, 2)
    assert pack.class_names == ("0", "1", "2")
    assert pack.groups is None


LABELS = np.arange(40) % 4


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": random_images()["images"]}, "no `labels`"),
        ({"labels": LABELS}, "no `images` and no float array"),
        ({"labels": LABELS, "images": np.zeros((40, 3, 3))}, "uint8"),
        ({"labels": LABELS, "images": np.zeros((40, 9), np.uint8)}, r"\(N, H, W\)"),
        ({"labels": LABELS[:-1], "images": random_images()["images"]}, "39 labels"),
        ({"labels": LABELS, "images": np.zeros((40, 0, 9), np.uint8)}, "shape"),
        ({"labels": LABELS * 0.5, "images": random_images()["images"]}, "whole numbers"),
        ({"labels": LABELS - 1, "images": random_images()["images"]}, "numbered from 0"),
        ({"labels": LABELS, "a": np.ones((40, 2)), "b": np.ones((40, 2))}, "several float arrays"),
        ({"labels": LABELS, **random_images(), "class_names": np.array(["a", "b"])}, "labels go up to 3"),
        ({"labels": LABELS[:0], "images": random_images()["images"][:0]}, "labels"),
    ],
)
def test_wrong_packs_say_what_is_wrong(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_pack(save(tmp_path, **arrays))


def test_files_that_are_no_packs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load_pack(tmp_path / "missing.npz")
    text = tmp_path / "text.npz"
    text.write_text("not an archive")
    with pytest.raises(UsageError, match="cannot be read"):
        load_pack(text)
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(UsageError, match="single array"):
        load_pack(tmp_path / "one.npy")
    with pytest.raises(UsageError, match="cannot be read"):  # pickles are never opened
        load_pack(save(tmp_path, labels=np.array([{}, {}], dtype=object)))


# -- device bytes --------------------------------------------------------------------------------


def test_images_become_the_bytes_of_the_generated_header(model: CompiledModel) -> None:
    images = np.random.default_rng(1).integers(0, 256, (5, 12, 12, 3), np.uint8)
    pack = Pack("p", images, np.zeros(5, np.int64), ("a",), "p.npz (images)")
    tensor = model.graph.tensors[model.graph.input]
    pixels = pixel_map(tensor, (127.5,), (127.5,))
    assert pixels is not None
    inputs = to_inputs(pack, [3, 0], model)
    assert inputs.shape == (2, 12, 12, 3)
    assert inputs.dtype == np.int8
    difference = inputs.astype(int) - pixels.apply(images[[3, 0]])
    assert np.abs(difference).max() <= 1  # ties are rounded differently


def test_small_and_grey_images_are_fitted(model: CompiledModel) -> None:
    images = np.full((2, 5, 7), 200, np.uint8)
    pack = Pack("p", images, np.zeros(2, np.int64), ("a",), "p.npz (images)")
    inputs = to_inputs(pack, [0, 1], model)
    assert inputs.shape == (2, 12, 12, 3)
    assert len(np.unique(inputs)) == 1


def test_floats_are_taken_channels_first_or_last(model: CompiledModel) -> None:
    values = np.random.default_rng(2).uniform(-1, 1, (3, 12, 12, 3)).astype(np.float32)
    labels = np.zeros(3, np.int64)
    last = to_inputs(Pack("p", values, labels, ("a",), "p.npz (x)"), [0, 2], model)
    first = to_inputs(Pack("p", values.transpose(0, 3, 1, 2), labels, ("a",), "p.npz (x)"), [0, 2], model)
    assert (first == last).all()
    q = model.graph.tensors[model.graph.input].quantization
    assert (last == np.clip(np.rint(values[[0, 2]] / np.float32(q.scale)) + q.zero_point, -128, 127)).all()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.ones((2, 9, 128), np.float32), "do not fit the model's input"),
        (np.full((2, 12, 12, 3), np.nan, np.float32), "NaN or infinity"),
        (np.ones((2, 5, 5, 2), np.uint8), r"p\.npz \(x\).*2 channels"),
    ],
)
def test_samples_that_do_not_fit(model: CompiledModel, values: np.ndarray, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        to_inputs(Pack("p", values, np.zeros(2, np.int64), ("a",), "p.npz (x)"), [0, 1], model)


# -- episodes ------------------------------------------------------------------------------------


def episode() -> dict[str, Any]:
    """2-way 2-shot with two queries each; sample i of pack_of() is of class i % 4."""
    return {"classes": [3, 1], "support": [[3, 7], [1, 5]], "query": [[11, 15], [9, 13]]}


def write(folder: Path, episodes: Any, **changes: Any) -> Path:
    file = folder / "episodes.json"
    file.write_text(json.dumps({"dots": {"way": 2, "shot": 2, "episodes": episodes} | changes}))
    return file


def test_episodes_are_read_in_order(tmp_path: Path) -> None:
    (loaded,) = load_episodes(write(tmp_path, [episode()]), pack_of())
    assert (loaded.way, loaded.shot, loaded.classes) == (2, 2, (3, 1))
    assert loaded.support == ((0, 3), (0, 7), (1, 1), (1, 5))
    assert loaded.query == ((0, 11), (0, 15), (1, 9), (1, 13))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"support": [[3, 7], [1, 40]]}, "names sample 40, but dots.npz"),
        ({"support": [[3, 7], [1, -1]]}, "names sample -1"),
        ({"support": [[3, 7], [1, 4]]}, "sample 4 .* is of class 0, not 1"),
        ({"query": [[11, 15], [9, 5]]}, "class 1 is listed twice"),
        ({"support": [[3, 7], [1]]}, "2 support samples"),
        ({"query": [[11], []]}, "at least one query"),
        ({"classes": [3, 3]}, "2-way"),
        ({"support": [[3, 7]]}, "1 rows of support"),
        ({"support": "none"}, "missing or wrong"),
        ({"query": None}, "missing or wrong"),
    ],
)
def test_wrong_episodes_say_where(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    file = write(tmp_path, [episode(), episode() | change])
    with pytest.raises(UsageError, match=f"dots, episode 1: .*{said}"):
        load_episodes(file, pack_of())


def test_files_that_are_no_episodes(tmp_path: Path) -> None:
    file = tmp_path / "episodes.json"
    with pytest.raises(UsageError, match="cannot be read"):
        load_episodes(file, pack_of())
    for text, said in (("{", "cannot be read"), ("[1]", "no file of episodes"), ('{"dot": {}}', "did you mean dot")):
        file.write_text(text)
        with pytest.raises(UsageError, match=said):
            load_episodes(file, pack_of())
    with pytest.raises(UsageError, match="`way`, `shot` or `episodes`"):
        load_episodes(write(tmp_path, [episode()], way=None), pack_of())
    with pytest.raises(UsageError, match="empty"):
        load_episodes(write(tmp_path, []), pack_of())


def test_sampled_episodes_are_valid_seeded_and_extend(tmp_path: Path) -> None:
    pack = pack_of()
    many = sample_episodes(pack, way=3, shot=2, queries=4, count=6, seed=5)
    assert many[:2] == sample_episodes(pack, way=3, shot=2, queries=4, count=2, seed=5)
    assert many != sample_episodes(pack, way=3, shot=2, queries=4, count=6, seed=6)
    assert len({e.support for e in many}) == 6
    entries = []
    for e in many:
        rows = {"support": [[i for label, i in e.support if label == k] for k in range(3)]}
        rows["query"] = [[i for label, i in e.query if label == k] for k in range(3)]
        assert [len(row) for row in rows["query"]] == [4, 4, 4]
        entries.append({"classes": e.classes, **rows})
    assert load_episodes(write(tmp_path, entries, way=3), pack) == many  # which checks the rest


def test_sampling_keeps_groups_apart() -> None:
    groups = np.arange(40) // 8  # two samples of a class in each of five groups
    for e in sample_episodes(pack_of(groups=groups), way=2, shot=2, queries=2, count=20):
        for label in range(2):
            shown = {groups[i] for k, i in e.support if k == label}
            assert shown.isdisjoint(groups[i] for k, i in e.query if k == label)


def test_sampling_from_too_little() -> None:
    with pytest.raises(UsageError, match="0 of 4 classes have the 11 samples"):
        sample_episodes(pack_of(), way=2, shot=5, queries=6, count=1)
    with pytest.raises(UsageError, match="5 are needed"):
        sample_episodes(pack_of(), way=5, shot=1, queries=1, count=1)
    with pytest.raises(UsageError, match="at least 1"):
        sample_episodes(pack_of(), way=2, shot=0, queries=1, count=1)
    with pytest.raises(UsageError, match="only 0 samples in groups"):
        sample_episodes(pack_of(groups=np.zeros(40)), way=2, shot=1, queries=1, count=1)


def test_episodes_by_a_key_stay_within_one_group_each(tmp_path: Path) -> None:
    speakers = np.array(["ann", "bob", "eve", "sam"])[np.arange(80) // 20]
    pack = load_pack(save(tmp_path, **random_images(80), speaker=speakers))
    episodes = sample_episodes_by(pack, "speaker", way=3, shot=2, queries=3, seed=4)
    assert sorted(e.group or "" for e in episodes) == ["ann", "bob", "eve", "sam"]
    for e in episodes:
        support, query = [i for _, i in e.support], [i for _, i in e.query]
        assert {speakers[i] for i in support + query} == {e.group}
        assert not set(support) & set(query)
        assert all(pack.labels[i] == e.classes[label] for label, i in e.support + e.query)
    assert sample_episodes_by(pack, "speaker", 3, 2, 3, count=2, seed=4) == episodes[:2]
    assert len({e.classes for e in sample_episodes_by(pack, "speaker", 3, 2, 3, seed=5)}) > 1


def test_a_gap_keeps_queries_away_from_support() -> None:
    for e in sample_episodes(pack_of(200), way=2, shot=2, queries=4, count=20, gap=9):
        for label, shown in e.support:
            assert all(abs(asked - shown) >= 9 for other, asked in e.query if other == label)
    assert any(
        abs(asked - shown) < 9
        for e in sample_episodes(pack_of(200), way=2, shot=2, queries=4, count=20)
        for label, shown in e.support
        for other, asked in e.query
        if other == label
    )


def test_keys_and_groups_that_are_not_there(tmp_path: Path) -> None:
    pack = load_pack(save(tmp_path, **random_images(40), speaker=np.arange(40) // 20))
    with pytest.raises(UsageError, match=r"no key 'speakers'.*did you mean speaker"):
        sample_episodes_by(pack, "speakers", 2, 1, 1)
    with pytest.raises(UsageError, match=r"no key 'x'.*it has none"):
        sample_episodes_by(pack_of(), "x", 2, 1, 1)
    with pytest.raises(UsageError, match="2 of 2 values of `speaker` have 4 classes of the 3 samples"):
        sample_episodes_by(pack, "speaker", 4, 1, 2, count=3)
    with pytest.raises(UsageError, match="0 of 2 values"):
        sample_episodes_by(pack, "speaker", 4, 3, 3)
