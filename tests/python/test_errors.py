"""Bad input, full stores and damaged files: a typed error that names the thing, and a store that is as it was before.
Damage is done to the closed store's data file at the place that stat() tells.
"""

from __future__ import annotations

import errno
import pathlib
import pickle

import pytest
import tensorshelf as ts
import torch


def data_file(shelf: pathlib.Path) -> pathlib.Path:
    return next(shelf.glob("*.tsd"))


def flip(path: pathlib.Path, offset: int, length: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        data = file.read(length)
        file.seek(offset)
        file.write(bytes(byte ^ 0x40 for byte in data))


def erase(path: pathlib.Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(4096))


# Paths


def test_nothing_there(tmp_path):
    with pytest.raises(ts.StoreNotFoundError, match="missing") as caught:
        ts.open(tmp_path / "missing")
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.errno == errno.ENOENT
    assert not (tmp_path / "missing").exists()
    for mode in ("a", "r"):
        with pytest.raises(ts.StoreError, match=str(tmp_path)):
            ts.open(tmp_path, mode)


def test_path_is_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises((ts.StoreExistsError, ValueError), match="file"):
        ts.create(path, capacity="64MiB")
    with pytest.raises(ts.StoreError, match="file"):
        ts.open(path)
    assert path.read_text() == "mine"


def test_foreign_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ts.StoreExistsError, match=str(tmp_path)) as caught:
        ts.create(tmp_path, capacity="64MiB")
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(ts.StoreNotFoundError):
        ts.open(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_created_twice(shelf):
    with ts.open(shelf) as store:
        store.put("a", torch.ones(1))
    with pytest.raises(ts.StoreExistsError):
        ts.create(shelf, capacity="64MiB")
    with ts.open(shelf) as store:
        assert len(store) == 1


def test_capacity(tmp_path):
    for capacity in (0, 4096, "1MiB"):
        with pytest.raises(ValueError, match="capacity"):
            ts.create(tmp_path / "s", capacity=capacity)
    with pytest.raises(ts.StoreFullError) as caught:
        ts.create(tmp_path / "s", capacity="4TiB", prefill="none")
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / "s").exists() or not any((tmp_path / "s").iterdir())


def test_bad_keywords(shelf, tmp_path):
    for call, words in [
        (lambda: ts.open(shelf, "w"), "mode"),
        (lambda: ts.open(shelf, trailers="some"), "trailers"),
        (lambda: ts.open(shelf, verify="maybe"), "verify"),
        (lambda: ts.create(tmp_path / "s", capacity="64MiB", prefill="half"), "prefill"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()


# Read-only


def test_read_only(shelf):
    with ts.open(shelf) as store:
        store.put("a", torch.arange(5))
    with ts.open(shelf, "r") as store:
        for call in (
            lambda: store.put("b", torch.ones(1)),
            lambda: store.put_async("b", torch.ones(1)).result(30),
            lambda: store.delete("a"),
            lambda: store.rename("a", "b"),
            lambda: store.clear(),
            lambda: store.transaction().commit(),
        ):
            with pytest.raises(ts.StoreReadOnlyError):
                call()
        assert store["a"].sum() == 10
        assert list(store) == ["a"]


# Full


def test_full_store_is_unchanged(store):
    store.put("kept", torch.arange(1 << 20))
    before, free = list(store), store.stats()["space"]["free"]
    for call in (
        lambda: store.put("big", torch.zeros(65 << 20, dtype=torch.uint8)),
        lambda: store.put("kept", torch.zeros(65 << 20, dtype=torch.uint8)),
        lambda: store.put_many({f"n{i}": torch.zeros(8 << 20, dtype=torch.uint8) for i in range(9)}),
        lambda: store.put_async("big", torch.zeros(65 << 20, dtype=torch.uint8)).result(60),
    ):
        with pytest.raises(ts.StoreFullError) as caught:
            call()
        assert caught.value.errno == errno.ENOSPC
        assert isinstance(caught.value, OSError)
    assert list(store) == before
    assert store.stats()["space"]["free"] == free
    assert torch.equal(store["kept"], torch.arange(1 << 20))


def test_filled_to_the_brim_and_emptied(store):
    count = 0
    with pytest.raises(ts.StoreFullError):
        while True:
            store.put(f"n{count}", torch.full((1 << 20,), count, dtype=torch.uint8))
            count += 1
    assert count >= 60
    assert all(store[f"n{i}"].eq(i).all() for i in range(count))
    store.clear()
    store.put("again", torch.zeros(50 << 20, dtype=torch.uint8))


# Damage


def test_damaged_block(shelf, raw):
    value = torch.arange(100_000)
    with ts.open(shelf) as store:
        store.put_many({"a": value, "b": value + 1})
        (_, offset, _), *_ = store.stat("a").extents
    position = offset + 3 * 65536 + 17
    flip(data_file(shelf), position)
    with ts.open(shelf) as store:
        target = torch.zeros_like(value)
        for call in (
            lambda: store.get("a"),
            lambda: store.get("a", out=target),
            lambda: store.get("a", as_bytes=True),
            lambda: store.get_many(),
            lambda: store.slice("a")[3 * 8192 : 3 * 8192 + 10],
            lambda: store.get_async("a").result(30),
        ):
            with pytest.raises(ts.CorruptionError, match="a") as caught:
                call()
            error = caught.value
            assert (error.name, error.block) == ("a", 3)
            assert error.file == str(data_file(shelf))
            assert position - 65536 < error.offset <= position
        damaged = target[3 * 8192 : 4 * 8192]
        assert not torch.equal(damaged, value[3 * 8192 : 4 * 8192])
        assert target[3 * 8192 + 2] != store.get("a", verify="never")[3 * 8192 + 2]
        assert torch.equal(store.slice("a")[:8192], value[:8192])
        assert torch.equal(store["b"], value + 1)
        assert store.stats()["corrupt_blocks"] > 0
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), copy.name, copy.block, copy.offset) == (str(error), "a", 3, error.offset)
        store.put("a", value)
        assert torch.equal(store["a"], value)


def test_damaged_labels(shelf):
    path = data_file(shelf)
    copies = (0, 4096, path.stat().st_size - (1 << 20))
    erase(path, copies[0])
    with ts.open(shelf) as store:  # two more are there
        store.put("a", torch.ones(3))
    for offset in copies:
        erase(path, offset)
    with pytest.raises(ts.StoreError) as caught:
        ts.open(shelf)
    assert path.name in str(caught.value) or "device" in str(caught.value)


def test_damaged_store_file(shelf):
    text = (shelf / "STORE").read_text()
    (shelf / "STORE").write_text("format=99\n" + text)
    with pytest.raises((ts.StoreError, ValueError), match="STORE"):
        ts.open(shelf)
    (shelf / "STORE").write_text(text)
    ts.open(shelf).close()


def test_missing_data_file(shelf):
    path = data_file(shelf)
    path.rename(shelf.parent / "away.tsd")
    with pytest.raises((ts.MissingDeviceError, ts.StoreNotFoundError)):
        ts.open(shelf)
    (shelf.parent / "away.tsd").rename(path)
    ts.open(shelf).close()


# Classes


def test_hierarchy():
    assert issubclass(ts.NameNotFoundError, KeyError)
    assert issubclass(ts.StoreFullError, OSError)
    assert issubclass(ts.UnsupportedTensorError, TypeError)
    assert issubclass(ts.ClosedError, ValueError)
    assert all(issubclass(getattr(ts, name), ts.StoreError) for name in ts.errors.__all__)
    assert str(ts.NameNotFoundError("no 'x' here")) == "no 'x' here"


@pytest.mark.parametrize("name", ts.errors.__all__)
def test_errors_pickle(name):
    cls = getattr(ts, name)
    error = cls(5, "words") if issubclass(cls, OSError) else cls("words")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert str(copy) == str(error)
