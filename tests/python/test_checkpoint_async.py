"""save_async against the object as it was at the call: the caller changes it at once, staging memory is smaller than
the state, saves fail in the background, the store is closed and the process ends while saves are under way.
"""

from __future__ import annotations

import logging
import threading

import pytest
import tensorshelf as ts
import torch
from tensorshelf.checkpoint import AsyncSaver, save_async


def state(value: float, count: int = 8) -> dict:
    return {"layers": [torch.full((64, 1024), float(value + i)) for i in range(count)], "step": int(value)}


def assert_is(found: dict, value: float, count: int = 8) -> None:
    assert found["step"] == int(value)
    assert all(torch.equal(a, b) for a, b in zip(found["layers"], state(value, count)["layers"], strict=True))


@pytest.fixture
def held(monkeypatch):
    """Transactions wait in put_many until the event is set."""
    event = threading.Event()
    put_many = ts.Transaction.put_many

    def waiting(self, *arguments, **keywords):
        assert event.wait(60)
        return put_many(self, *arguments, **keywords)

    monkeypatch.setattr(ts.Transaction, "put_many", waiting)
    yield event
    event.set()


def test_object_may_change_once_staged(store, held):
    current = state(1)
    saving = save_async(current, store, "run/", snapshot="step-1/")
    assert saving.staged.done()
    assert not saving.done()
    assert len(store) == 0  # nothing is there before all is
    for tensor in current["layers"]:
        tensor.zero_()
    held.set()
    saved = saving.wait(60)
    assert saved.tensors == 8
    assert_is(ts.checkpoint.load(store, "run/"), 1)
    assert_is(ts.checkpoint.load(store, "step-1/"), 1)


def test_saves_happen_in_order_and_share_what_is_equal(store):
    current = state(1)
    savings = []
    for step in range(10):
        current["layers"][step % 8].fill_(100 + step)
        savings.append(save_async(current, store, "run/", snapshot=f"step-{step}/"))
    results = [saving.wait(60) for saving in savings]
    assert [result.commit for result in results] == sorted(result.commit for result in results)
    assert [result.unchanged for result in results] == [0] + [7] * 9
    for step in range(10):
        found = ts.checkpoint.load(store, f"step-{step}/")
        assert found["layers"][step % 8][0, 0] == 100 + step


def test_state_larger_than_staging_is_written_through(store, caplog):
    size = 64 * 1024 * 4
    current = state(3)
    with caplog.at_level(logging.WARNING, "tensorshelf"), AsyncSaver(store, staging=3 * size) as saver:
        saving = saver.save(current, "run/")
        for tensor in current["layers"]:
            tensor.zero_()
        assert saver._staged_bytes <= 3 * size
        saving.wait(60)
    assert f"{5 * size} bytes do not fit into {3 * size}" in caplog.text
    assert_is(ts.checkpoint.load(store, "run/"), 3)


def test_staging_is_bounded_over_saves(store, held):
    size = 64 * 1024 * 4
    saver = AsyncSaver(store, staging=8 * size)
    first = saver.save(state(1), "a/")
    done = threading.Event()
    second: list = []

    def save():
        second.append(saver.save(state(2), "b/"))
        done.set()

    thread = threading.Thread(target=save)
    thread.start()
    assert not done.wait(0.3)  # there is no room before the first is written
    assert saver._staged_bytes == 8 * size
    held.set()
    thread.join(60)
    first.wait(60)
    second[0].wait(60)
    saver.wait()
    assert saver._staged_bytes == 0
    assert_is(ts.checkpoint.load(store, "a/"), 1)
    assert_is(ts.checkpoint.load(store, "b/"), 2)


def test_errors_surface_at_wait_and_at_the_next_save(store):
    save_async(state(1), store, "run/").wait(60)
    big = {"layers": [torch.zeros(100 << 20, dtype=torch.uint8)], "step": 2}
    saver = AsyncSaver(store)
    saving = saver.save(big, "run/")
    with pytest.raises(ts.checkpoint.CheckpointFullError, match="run/"):
        saving.wait(60)
    with pytest.raises(ts.checkpoint.CheckpointFullError):
        saver.save(state(3), "run/")
    assert_is(ts.checkpoint.load(store, "run/"), 1)
    saver.save(state(4), "run/").wait(60)  # told once
    assert_is(ts.checkpoint.load(store, "run/"), 4)
    saver.save(big, "other/")
    with pytest.raises(ts.checkpoint.CheckpointFullError):
        saver.wait()
    saver.wait()


def test_tensor_that_cannot_be_kept_is_the_callers_error(store):
    with pytest.raises(ts.UnsupportedTensorError, match="sparse"):
        save_async({"odd": torch.eye(3).to_sparse()}, store, "run/")
    save_async({"conj": torch.ones(2, dtype=torch.complex64).conj()}, store, "run/").wait(60)
    assert ts.checkpoint.load(store, "run/")["conj"].tolist() == [1, 1]
    assert len(store) == 2


def test_closing_the_store_finishes_saves(shelf):
    with ts.open(shelf) as store:
        savings = [save_async(state(i), store, f"{i}/") for i in range(4)]
    assert all(saving.done() and saving.wait().tensors == 8 for saving in savings)
    with ts.open(shelf) as store:
        for i in range(4):
            assert_is(ts.checkpoint.load(store, f"{i}/"), i)
        saver = AsyncSaver(store)
        saver.close()
        saver.close()
        with pytest.raises(ts.ClosedError):
            saver.save(state(1), "x/")


def test_exit_finishes_saves(shelf, python):
    program = """
import sys, torch, tensorshelf as ts
store = ts.open(sys.argv[1])
for i in range(4):
    ts.checkpoint.save_async({"x": torch.full((500_000,), i)}, store, f"{i}/")
print("exit")
"""
    out, err = python(program, shelf).communicate(timeout=120)
    assert (out, err) == ("exit\n", "")
    with ts.open(shelf) as store:
        assert all(ts.checkpoint.load(store, f"{i}/")["x"].eq(i).all() for i in range(4))
