"""Stores that are compacted while they are in use: free space is in one piece afterwards, every byte compared with what
went in, and what the callers pass (rates, progress functions that raise, Ctrl-C) is taken as documented.
"""

from __future__ import annotations

import pytest
import tensorshelf as ts
import torch


@pytest.fixture
def holes(store):
    """A store with a hole behind every other tensor, and what it must hold."""
    tensors = {f"t{i}": torch.full((20_000 + 3_000 * (i % 7),), i, dtype=torch.float32) for i in range(120)}
    store.put_many(tensors)
    for i in range(0, 120, 2):
        store.delete(f"t{i}")
        del tensors[f"t{i}"]
    return store, tensors


def same(store, tensors) -> bool:
    return set(store) == set(tensors) and all(torch.equal(store[name], tensors[name]) for name in tensors)


def test_compact_puts_free_space_together(holes, shelf):
    store, tensors = holes
    plan = store.compact(dry_run=True)
    report = store.compact()
    assert isinstance(report, ts.Compaction)
    assert report.objects_moved == plan.objects_moved > 10
    assert report.bytes_moved == plan.bytes_moved
    assert report.damaged == 0 and report.damage == [] and report.skipped == 0
    assert report.after.fragmentation < report.before.fragmentation
    assert report.after.free == report.before.free
    assert report.after.free_runs < report.before.free_runs
    assert report.after.largest_free >= report.before.largest_free
    assert same(store, tensors)
    store.close()
    with ts.open(shelf, "r") as reader:
        assert same(reader, tensors)
        assert reader.compact(dry_run=True).objects_moved == 0
        with pytest.raises(ts.StoreError):
            reader.compact()


def test_progress_counts_up_and_may_end_the_run(holes):
    store, tensors = holes
    with pytest.raises(ZeroDivisionError):
        store.compact(progress=lambda objects, size: 1 / 0)
    assert same(store, tensors)
    seen = []
    report = store.compact(progress=lambda objects, size: seen.append((objects, size)))
    assert seen == sorted(seen)
    assert seen[-1] == (report.objects_moved, report.bytes_moved)
    assert same(store, tensors)


def test_tensors_that_are_held_stay_readable(holes):
    store, tensors = holes
    held = {name: store.slice(name) for name in tensors}
    with store.view() as view:
        assert store.compact().objects_moved > 0
        assert all(torch.equal(held[name][:], tensors[name]) for name in tensors)
        assert same(view, tensors)
    assert same(store, tensors)


def test_rates_are_checked(store):
    with pytest.raises(ValueError, match="never end"):
        store.compact(rate=0)
    with pytest.raises(ValueError):
        store.compact(rate="fast")
    assert store.compact(rate="1GB").objects_moved == 0


def test_grow_makes_room_in_an_open_store(store, shelf):
    tensors = {f"t{i}": torch.full((1 << 20,), i, dtype=torch.float32) for i in range(14)}
    store.put_many(tensors)
    big = torch.arange(12 << 20, dtype=torch.float32)
    with pytest.raises(ts.StoreFullError):
        store.put("big", big)
    reader = ts.open(shelf, "r")
    report = store.grow("64MiB")
    assert report.capacity == 64 << 20 and len(report.files) == 1
    assert store.stats()["space"]["capacity"] == 128 << 20
    store.put("big", big)
    tensors["big"] = big
    assert same(store, tensors)
    reader.catch_up()
    assert same(reader, tensors), "a reader beside the writer finds the new file"
    reader.close()
    store.close()
    with ts.open(shelf) as again:
        assert same(again, tensors)
        assert again.stats()["space"]["capacity"] == 128 << 20


def test_grow_by_a_device_and_drain_the_first(store, shelf, tmp_path):
    tensors = {f"t{i}": torch.full((200_000,), i, dtype=torch.float32) for i in range(40)}
    store.put_many(tensors)
    first = store.info()["files"][0]["path"]
    report = store.grow(devices=[shelf / "second"])
    assert report.capacity == 64 << 20
    store.put("striped", torch.arange(6 << 20, dtype=torch.float32))
    tensors["striped"] = torch.arange(6 << 20, dtype=torch.float32)
    held = store.slice("t0")
    with pytest.raises(ts.StoreError, match="readers still hold"):
        store.drain(shelf)
    assert torch.equal(held[:], tensors["t0"])
    del held
    drained = store.drain(shelf)
    assert drained.files == [first]
    assert [file["path"] for file in store.info()["files"]] == report.files
    assert same(store, tensors)
    store.put("after", torch.ones(1000))
    tensors["after"] = torch.ones(1000)
    store.close()
    with ts.open(shelf) as again:
        assert same(again, tensors)
        assert again.stats()["space"]["capacity"] == 64 << 20
        with pytest.raises(ts.StoreError, match="only device"):
            again.drain(shelf / "second")


def test_what_grow_refuses(store):
    with pytest.raises(ValueError, match="capacity"):
        store.grow()
    with pytest.raises(ValueError, match="minimum"):
        store.grow("1MiB")
    assert len(store.info()["files"]) == 1
