"""Calls in the background: futures, awaiting, order per name, cancelling, copies, the event descriptor.
Where an order matters, one background thread is held by an event that the test sets; nothing sleeps.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import select
import threading

import pytest
import tensorshelf as ts
import torch


@pytest.fixture
def one_thread(shelf):
    with ts.open(shelf, async_threads=1) as store:
        yield store


class Gate:
    """Keeps the background threads of a store busy until it is opened."""

    def __init__(self, store):
        self.opened = threading.Event()
        self.entered = threading.Event()
        self.future = store._background.submit(self._wait)
        assert self.entered.wait(30)

    def _wait(self):
        self.entered.set()
        assert self.opened.wait(30)


def test_put_and_get(store):
    generation = store.put_async("a", torch.arange(5), metadata={"k": "v"}).result(timeout=30)
    assert store.stat("a").generation == generation
    assert store.get_async("a").result(30).tolist() == [0, 1, 2, 3, 4]
    commit = store.put_many_async({"x": torch.ones(2), "y": b"z"}, prefix="m/").result(30)
    assert len(commit.generations) == 2
    assert store.get_many_async(prefix="m/").result(30)["y"] == b"z"
    assert list(store.get_many_async(["a"]).result(30)) == ["a"]
    out = torch.zeros(5, dtype=torch.int64)
    assert store.get_async("a", out=out).result(30) is out
    assert isinstance(store.get_async("a"), concurrent.futures.Future)


def test_await(store):
    async def main():
        await store.put_async("a", torch.arange(5))
        many = await asyncio.gather(*(store.put_async(f"n{i}", torch.full((1000,), i)) for i in range(50)))
        assert len(set(many)) == 50
        got = await asyncio.gather(*(store.get_async(f"n{i}") for i in range(50)))
        assert [t[0].item() for t in got] == list(range(50))
        with pytest.raises(ts.NameNotFoundError):
            await store.get_async("missing")
        async with asyncio.timeout(30) if hasattr(asyncio, "timeout") else _NoTimeout():
            return await store.get_async("a")

    assert asyncio.run(main()).tolist() == [0, 1, 2, 3, 4]


class _NoTimeout:
    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        return None


def test_exceptions_come_from_the_future(store):
    future = store.get_async("missing")
    assert isinstance(future.exception(30), ts.NameNotFoundError)
    with pytest.raises(KeyError, match="missing"):
        future.result(30)
    failed = store.put_async("a", torch.ones(1), if_exists=True)
    with pytest.raises(ts.PreconditionError):
        failed.result(30)


def test_bad_arguments_are_refused_at_once(store):
    with pytest.raises(ts.UnsupportedTensorError, match="meta"):
        store.put_async("a", torch.empty(2, device="meta"))
    with pytest.raises(TypeError, match="nonsense"):
        store.put_async("a", torch.ones(1), nonsense=1)
    with pytest.raises(ValueError, match="power of two"):
        store.put_async("a", torch.ones(1), block_size=3)
    assert store._background._copied_bytes == 0


def test_cancel_before_start_and_timeout(one_thread):
    gate = Gate(one_thread)
    future = one_thread.put_async("a", torch.ones(1000))
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(timeout=0.01)
    assert future.cancel()
    assert future.cancelled()
    later = one_thread.put_async("b", torch.ones(1))
    gate.opened.set()
    later.result(30)
    assert list(one_thread) == ["b"]
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(30)


def test_value_may_change_after_put_async(one_thread):
    gate = Gate(one_thread)
    for shape in [(3,), (1 << 19,)]:
        value = torch.ones(shape)
        strided = torch.ones(4, 6).T
        futures = [one_thread.put_async(f"a{shape}", value), one_thread.put_async(f"s{shape}", strided)]
        data = bytearray(b"one")
        futures.append(one_thread.put_async(f"b{shape}", data))
        value.zero_()
        strided.zero_()
        data[:] = b"two"
    gate.opened.set()
    concurrent.futures.wait(futures)
    for shape in [(3,), (1 << 19,)]:
        assert one_thread[f"a{shape}"].min() == 1
        assert one_thread[f"s{shape}"].min() == 1
        assert one_thread[f"b{shape}"] == b"one"


def test_borrow_copies_nothing(one_thread):
    gate = Gate(one_thread)
    value = torch.ones(1 << 19)
    future = one_thread.put_async("a", value, borrow=True)
    assert one_thread._background._copied_bytes == 0
    value.fill_(2)
    gate.opened.set()
    future.result(30)
    assert one_thread["a"].min() == 2


def test_order_of_one_name(store):
    for i in range(100):
        store.put_async("a", torch.tensor(i))
    assert store.get_async("a").result(30).item() == 99
    futures = [store.put_many_async({"a": torch.tensor(i), "b": torch.tensor(i)}) for i in range(30)]
    last = store.put_async("b", torch.tensor(-1))
    assert store.get_many_async(prefix="").result(30)["b"].item() == -1
    assert all(future.done() for future in [*futures, last])
    assert store["a"].item() == 29
    assert not store._background._newest


def test_copies_are_bounded(shelf):
    with ts.open(shelf, async_threads=1, async_copies_max=1 << 20) as store:
        gate = Gate(store)
        store.put_async("a", torch.zeros(200_000))  # 800 kB
        waiting = threading.Event()
        done = []

        def second():
            waiting.set()
            done.append(store.put_async("b", torch.zeros(100_000)))  # 400 kB more do not fit

        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(30)
        assert not done
        assert store._background._copied_bytes == 800_000
        gate.opened.set()
        thread.join(30)
        done[0].result(30)
        store.put_async("big", torch.zeros(1 << 20)).result(30)  # alone, any size passes
        assert store._background._copied_bytes == 0


def test_event_fd(one_thread):
    fd = one_thread.event_fd()
    assert one_thread.event_fd() == fd
    assert select.select([fd], [], [], 0)[0] == []
    gate = Gate(one_thread)
    futures = [one_thread.put_async("a", torch.ones(1)), one_thread.get_async("missing")]
    gate.opened.set()
    concurrent.futures.wait(futures)
    counted = 0
    while counted < 3:  # the gate's call counts too
        assert select.select([fd], [], [], 30)[0] == [fd]
        counted += os.eventfd_read(fd)
    assert counted == 3


def test_event_fd_with_asyncio(store):
    async def main():
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(store.event_fd(), ready.set)
        future = store.put_async("a", torch.ones(1))
        await asyncio.wait_for(ready.wait(), 30)
        loop.remove_reader(store.event_fd())
        return future.result(30)

    assert asyncio.run(main()) > 0


def test_close_finishes_what_is_queued(shelf):
    store = ts.open(shelf)
    futures = [store.put_async(f"n{i}", torch.full((10_000,), i)) for i in range(40)]
    store.close()
    assert all(future.done() for future in futures)
    with ts.open(shelf) as store:
        assert len(store) == 40


def test_callbacks(store):
    called = threading.Event()
    future = store.put_async("a", torch.ones(1))
    future.add_done_callback(lambda f: called.set())
    assert called.wait(30)
    assert future.done()


def test_many_threads(store):
    def work(thread):
        for i in range(30):
            store.put(f"{thread}/{i}", torch.full((100,), thread * 100 + i))
            assert store.get(f"{thread}/{i}")[0].item() == thread * 100 + i

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    assert len(store) == 480
    stats = store.stats()
    assert stats["puts"] == 480
    assert stats["commit_groups"] < 480
