"""Streams that read ahead of a loop, and priorities and bounds of calls in the background.
Where it matters what is under way, the reading itself is held by events that the test sets; nothing sleeps.
"""

from __future__ import annotations

import concurrent.futures
import gc
import os
import signal
import threading

import pytest
import tensorshelf as ts
import torch

MIB = 1 << 20


@pytest.fixture
def filled(store):
    """32 tensors of 1 MiB each, of which the n-th is full of n."""
    store.put_many({f"t{i:02}": torch.full((MIB,), i, dtype=torch.uint8) for i in range(32)})
    return store


def wait_until(holds) -> None:
    """For what another thread does in a moment: it holds its last result, or stands in a queue."""
    for _ in range(3000):
        if holds():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came")


class Reads:
    """Stands before the reading of a store: counts what has begun and not been handed out, and can hold it."""

    def __init__(self, store, monkeypatch):
        self.begun: list[str] = []
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.opened = threading.Event()
        self.opened.set()
        core = store._core
        outer = self

        class Core:
            def __getattr__(self, name):
                return getattr(core, name)

            def get_many(self, names, *rest):
                with outer.lock:
                    outer.begun += names
                    outer.changed.notify_all()
                assert outer.opened.wait(30)
                return core.get_many(names, *rest)

        monkeypatch.setattr(store, "_core", Core())

    def wait_for(self, count: int) -> None:
        with self.lock:
            assert self.changed.wait_for(lambda: len(self.begun) >= count, 30)


def test_values_in_the_order_of_the_names(filled):
    names = [f"t{i:02}" for i in (7, 3, 3, 30, 0)]
    got = list(filled.stream(names))
    assert [name for name, _ in got] == names
    assert [int(value[0]) for _, value in got] == [7, 3, 3, 30, 0]
    assert all(value.shape == (MIB,) for _, value in got)
    assert list(filled.stream([])) == []
    assert list(filled.stream(name for name in names[:2]))[1][1][-1] == 3


def test_prefix(filled):
    filled.put("other/x", b"bytes")
    filled.put("other/y", torch.arange(3))
    got = dict(filled.stream(prefix="other/"))
    assert list(got) == ["x", "y"]
    assert got["x"] == b"bytes"
    assert [name for name, _ in filled.stream(["y", "x"], prefix="other/")] == ["y", "x"]
    assert len(list(filled.stream())) == 34
    assert list(filled.stream(prefix="none/")) == []


def test_a_prefix_is_of_one_commit(filled):
    stream = filled.stream(prefix="t", window="2MiB")
    name, first = next(stream)
    assert (name, int(first[0])) == ("00", 0)
    filled.delete_prefix("t")
    filled.put("t", torch.ones(1))
    assert [int(value[0]) for _, value in stream] == list(range(1, 32))
    assert filled.stats()["open_views"] == 0


def test_on_a_view(filled):
    with filled.view() as view:
        filled.put("t00", torch.zeros(1))
        assert sum(value.numel() for _, value in view.stream(prefix="t")) == 32 * MIB
        assert sum(value.numel() for _, value in view.stream(["t00"])) == MIB
    with pytest.raises(ts.ClosedError):
        list(view.stream(["t00"]))


def test_arguments_of_get(filled):
    assert next(filled.stream(["t05"], as_bytes=True))[1] == bytes([5]) * MIB
    assert next(filled.stream(["t05"], device="cpu", verify="never"))[1].device.type == "cpu"
    with pytest.raises(TypeError, match="one str"):
        filled.stream("t05")
    with pytest.raises(ValueError, match="window"):
        filled.stream(["t05"], window="much")
    with pytest.raises(ValueError, match="priority"):
        filled.stream(["t05"], priority="low")
    with pytest.raises(ValueError, match="copy=False"):
        filled.stream(["t05"], copy=False, as_bytes=True)


def test_leased_values(shelf):
    with ts.open(shelf, memory="16MiB") as store:
        store.put_many({f"t{i}": torch.full((MIB,), i, dtype=torch.uint8) for i in range(4)})
        for _ in range(2):
            for i, (_, value) in enumerate(store.stream([f"t{i}" for i in range(4)], copy=False)):
                assert value[0] == i
                assert store.stats()["memory"]["leased_bytes"] > 0
            del value
        assert store.stats()["memory"]["hits"] >= 4


def test_reads_ahead_within_the_window(filled, monkeypatch):
    reads = Reads(filled, monkeypatch)
    names = [f"t{i:02}" for i in range(32)]
    stream = filled.stream(names, window="8MiB")
    assert reads.begun == []  # nothing happens before the loop
    for taken in range(1, 33):
        next(stream)
        # What the loop has is its own; of the rest no more than the window was begun, and at last all of it.
        assert len(reads.begun) <= taken + 8
        reads.wait_for(min(taken + 6, 32))
    assert sorted(reads.begun) == names
    assert next(stream, None) is None


def test_a_value_larger_than_the_window_comes_alone(filled, monkeypatch):
    filled.put("large", torch.zeros(4 * MIB, dtype=torch.uint8))
    reads = Reads(filled, monkeypatch)
    got = [name for name, _ in filled.stream(["t00", "large", "t01", "large"], window="1MiB")]
    assert got == ["t00", "large", "t01", "large"]
    assert reads.begun == got
    assert len(list(filled.stream(["t00", "t01"], window=0))) == 2


def test_an_error_comes_at_its_name(filled):
    stream = filled.stream(["t00", "t01", "missing", "t02"])
    assert next(stream)[0] == "t00"
    assert next(stream)[0] == "t01"
    with pytest.raises(ts.NameNotFoundError, match="missing"):
        next(stream)
    assert next(stream, None) is None
    with pytest.raises(ts.NameNotFoundError):
        list(filled.stream(["missing"]))
    assert len(list(filled.stream(["t00"]))) == 1  # the store is none the worse


def test_leaving_the_loop_cancels_and_waits(filled, monkeypatch):
    reads = Reads(filled, monkeypatch)
    done = []
    submit = filled._background.submit

    def noting_submit(*arguments, **keywords):
        done.append(submit(*arguments, **keywords))
        return done[-1]

    monkeypatch.setattr(filled._background, "submit", noting_submit)
    for name, _ in filled.stream([f"t{i:02}" for i in range(32)], window="16MiB"):
        assert name == "t00"
        break
    gc.collect()
    assert all(future.done() for future in done)
    begun = len(reads.begun)
    assert begun <= 20
    with pytest.raises(RuntimeError, match="of the loop"):
        for _ in filled.stream([f"t{i:02}" for i in range(32)], window="16MiB"):
            raise RuntimeError("of the loop")
    assert all(future.done() for future in done)


def test_close_waits_for_what_is_under_way(filled, monkeypatch):
    reads = Reads(filled, monkeypatch)
    stream = filled.stream([f"t{i:02}" for i in range(32)], window="8MiB")
    next(stream)
    reads.wait_for(8)
    reads.opened.clear()
    next(stream)
    reads.wait_for(9)
    closed = threading.Event()
    closer = threading.Thread(target=lambda: (stream.close(), closed.set()))
    closer.start()
    assert not closed.is_set()
    reads.opened.set()
    closer.join(30)
    assert closed.is_set()
    assert next(stream, None) is None


def test_ctrl_c(filled, monkeypatch):
    reads = Reads(filled, monkeypatch)
    reads.opened.clear()

    def interrupt():
        reads.wait_for(1)
        os.kill(os.getpid(), signal.SIGINT)
        reads.opened.set()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            while True:
                list(filled.stream([f"t{i:02}" for i in range(32)]))
    finally:
        thread.join(30)
        signal.signal(signal.SIGINT, before)
    assert len(list(filled.stream(prefix="t"))) == 32


def test_closing_the_store_ends_the_stream(shelf):
    store = ts.open(shelf)
    store.put_many({f"t{i}": torch.zeros(MIB) for i in range(8)})
    stream = store.stream([f"t{i}" for i in range(8)], window="8MiB")
    next(stream)
    store.close()
    with pytest.raises(ts.ClosedError):
        list(stream)
    with pytest.raises(ts.ClosedError):
        list(store.stream(["t0"]))


def test_memory_of_dropped_values_is_used_again(filled):
    for _ in range(2):
        for _, value in filled.stream(prefix="t", window="4MiB"):
            assert value.numel() == MIB
    del value
    assert filled.stats()["pool"]["mapped_count"] <= 12
    wait_until(lambda: filled.stats()["pool"]["held_bytes"] == 0)


def test_a_stream_sees_puts_that_were_asked_for_before(store):
    store.put("a", torch.zeros(10))
    future = store.put_async("a", torch.ones(10))
    assert next(store.stream(["a"]))[1].sum() == 10
    future.result(30)


def test_many_small_tensors(store):
    store.put_many({f"s{i:04}": torch.tensor(i) for i in range(3000)})
    assert [int(value) for _, value in store.stream(prefix="s", window="64KiB")] == list(range(3000))


# Priorities, cancelling and bounds of calls in the background


class Gate:
    """Keeps the only background thread of a store busy until it is opened."""

    def __init__(self, store):
        self.opened = threading.Event()
        entered = threading.Event()
        self.future = store._background.submit(lambda: (entered.set(), self.opened.wait(30)))
        assert entered.wait(30)


@pytest.fixture
def one_thread(shelf):
    with ts.open(shelf, async_threads=1, async_copies_max="1MiB") as opened:
        yield opened


def test_urgent_calls_go_first(one_thread):
    gate = Gate(one_thread)
    order = []
    for kind in ("background", "normal", "high", "background", "normal", "high"):
        one_thread._background.submit(lambda kind=kind: order.append(kind), priority=kind)
    last = one_thread._background.submit(lambda: None, priority="background")
    gate.opened.set()
    last.result(30)
    assert order == ["high", "high", "normal", "normal", "background", "background"]


def test_what_an_urgent_call_waits_for_is_as_urgent(one_thread):
    gate = Gate(one_thread)
    order = []
    other = one_thread.put_async("b", torch.zeros(1))
    first = one_thread.put_async("a", torch.zeros(1), priority="background")
    second = one_thread.put_async("a", torch.ones(1), priority="background")
    got = one_thread.get_async("a", priority="high")
    for name, future in {"other": other, "first": first, "second": second, "got": got}.items():
        future.add_done_callback(lambda _, name=name: order.append(name))
    gate.opened.set()
    assert got.result(30) == 1
    other.result(30)
    assert order == ["first", "second", "got", "other"]


def test_a_cancelled_call_holds_up_nothing(one_thread):
    gate = Gate(one_thread)
    first = one_thread.put_async("a", torch.zeros(200_000))
    second = one_thread.put_async("a", torch.ones(1))
    assert one_thread._background._copied_bytes == 800_004
    assert first.cancel()
    assert one_thread._background._copied_bytes == 4
    with pytest.raises(concurrent.futures.CancelledError):
        first.result(30)
    gate.opened.set()
    second.result(30)
    assert one_thread["a"].sum() == 1
    concurrent.futures.wait([first], 30)  # waiters are told, too
    assert not one_thread._background._newest


def test_timeout_of_the_room_for_copies(one_thread):
    gate = Gate(one_thread)
    one_thread.put_async("a", torch.zeros(200_000))
    with pytest.raises(ts.StoreBusyError, match="async_copies_max") as caught:
        one_thread.put_async("b", torch.zeros(200_000), timeout=0)
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(ts.StoreBusyError):
        one_thread.put_many_async({"b": torch.zeros(200_000)}, timeout=0.01)
    assert one_thread._background._copied_bytes == 800_000
    borrowed = one_thread.put_async("c", torch.zeros(200_000), timeout=0, borrow=True)
    gate.opened.set()
    borrowed.result(30)
    one_thread.put_async("b", torch.zeros(200_000), timeout=30).result(30)
    assert sorted(one_thread) == ["a", "b", "c"]


def test_room_is_given_in_the_order_of_asking(one_thread):
    background = one_thread._background
    background.reserve(MIB)
    order = []

    def ask(size):
        background.reserve(size)
        order.append(size)

    threads = []
    for size in (MIB, 1, 2):
        threads.append(threading.Thread(target=ask, args=(size,)))
        threads[-1].start()
        wait_until(lambda: len(background._waiting_for_room) == len(threads))
    background.unreserve(MIB - 2)  # 2 are taken: the small ones would fit, but are not first
    assert len(background._waiting_for_room) == 3
    background.unreserve(2)
    threads[0].join(30)
    assert order == [MIB]
    background.unreserve(MIB)
    for thread in threads:
        thread.join(30)
    assert sorted(order) == [1, 2, MIB]
    background.unreserve(3)


def test_closing_tells_those_who_wait_for_room(shelf):
    store = ts.open(shelf, async_copies_max=1)
    store._background.reserve(1)
    failed = []

    def ask():
        try:
            store.put_async("a", torch.zeros(1))
        except ts.ClosedError as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: store._background._waiting_for_room)
    store.close()
    thread.join(30)
    assert len(failed) == 1


def test_priorities_of_plain_calls(store):
    for priority in ("high", "normal", "background"):
        store.put("a", torch.ones(100_000), priority=priority)
        store.put_many({"b": torch.ones(10)}, priority=priority)
        assert store.get("a", priority=priority).sum() == 100_000
        assert len(store.get_many(priority=priority)) == 2
    for call in (store.get, store.get_async):
        with pytest.raises(ValueError, match="'high', 'normal' or 'background'"):
            call("a", priority="urgent")
    with pytest.raises(ValueError, match="priority"):
        store.put("a", torch.ones(1), priority=None)


def test_results_are_not_kept_by_their_futures(store):
    store.put("a", torch.zeros(2 * MIB))
    gc.disable()
    try:
        assert store.get_async("a").result(30).numel() == 2 * MIB
        wait_until(lambda: store.stats()["pool"]["held_bytes"] < 8 * MIB)
    finally:
        gc.enable()


def test_work_is_finished_at_the_end_of_the_interpreter(python, shelf):
    program = """
import sys, torch, tensorshelf as ts
store = ts.open(sys.argv[1])
for i in range(50):
    store.put_async("a", torch.full((50_000,), i))
stream = store.stream(["a"])
"""
    process = python(program, shelf)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    with ts.open(shelf) as store:
        assert store["a"][0] == 49
