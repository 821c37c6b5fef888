"""Calls in the background: futures that can be awaited, an order per name, a bound on copies, an eventfd."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, Generic, TypeVar

from .errors import ClosedError, ForkedError

T = TypeVar("T")


class Future(concurrent.futures.Future, Generic[T]):
    """The result of a call in the background: a ``concurrent.futures.Future`` that can also be awaited.

    ``result(timeout)``, ``exception(timeout)``, ``done()``, ``add_done_callback(function)`` and ``cancel()`` (only
    before the work has begun) are those of the standard library; a timeout leaves the work running.
    """

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.wrap_future(self).__await__()


class Background:
    """Runs calls on a few threads. Calls that name the same object run in the order in which they were made.

    Thread-safe. Work that waits at interpreter exit is finished first: the executor's threads are joined before
    anything else ends.
    """

    def __init__(self, thread_count: int, copied_bytes_max: int) -> None:
        self._executor = concurrent.futures.ThreadPoolExecutor(thread_count, thread_name_prefix="tensorshelf")
        self._owner = os.getpid()
        self._copied_bytes_max = copied_bytes_max
        self._copied_bytes = 0
        self._changed = threading.Condition()
        self._newest: dict[str, Future] = {}  # per name, the newest call that is not done
        self._event_fd: int | None = None
        self._closed = False

    def submit(
        self,
        call: Callable[[], T],
        names: Iterable[str] | None = (),
        *,
        changes: bool = False,
        copied_bytes: int = 0,
    ) -> Future[T]:
        """Queues ``call``, to run after all earlier calls that change one of ``names`` (None: any name).

        ``changes`` says that it changes them itself. ``copied_bytes``, which were reserved, are given back when it
        is done.
        """
        future: Future[T] = Future()
        names = None if names is None else tuple(names)
        with self._changed:
            self.check_usable()
            if names is None:
                earlier = set(self._newest.values())
            else:
                earlier = {self._newest[name] for name in names if name in self._newest}
            if changes and names is not None:
                self._newest.update(dict.fromkeys(names, future))
            # A thread only waits for calls that were queued before its own, so some thread can always go on.
            self._executor.submit(self._run, future, call, earlier)
        future.add_done_callback(lambda done: self._finish(done, names or (), copied_bytes))
        return future

    def reserve(self, copied_bytes: int) -> None:
        """Waits until the copies that are under way leave room; one call may always go on alone."""
        with self._changed:
            self.check_usable()
            while self._copied_bytes > 0 and self._copied_bytes + copied_bytes > self._copied_bytes_max:
                self._changed.wait(0.1)  # so that Ctrl-C gets through
            self._copied_bytes += copied_bytes

    def unreserve(self, copied_bytes: int) -> None:
        with self._changed:
            self._copied_bytes -= copied_bytes
            self._changed.notify_all()

    def check_usable(self) -> None:
        if os.getpid() != self._owner:
            raise ForkedError("this handle belongs to the parent of this process")
        if self._closed:
            raise ClosedError("this store is closed")

    @staticmethod
    def _run(future: Future, call: Callable[[], Any], earlier: set[Future]) -> None:
        concurrent.futures.wait(earlier)
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = call()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    def _finish(self, future: Future, names: tuple[str, ...], copied_bytes: int) -> None:
        with self._changed:
            for name in names:
                if self._newest.get(name) is future:
                    del self._newest[name]
            self._copied_bytes -= copied_bytes
            self._changed.notify_all()
            if self._event_fd is not None:
                os.eventfd_write(self._event_fd, 1)

    def event_fd(self) -> int:
        with self._changed:
            self.check_usable()
            if self._event_fd is None:
                self._event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            return self._event_fd

    def close(self) -> None:
        """Finishes what is queued. In a forked child, where the threads are not, nothing is done."""
        if os.getpid() != self._owner:
            return
        with self._changed:
            self._closed = True
        self._executor.shutdown(wait=True)
        with self._changed:
            if self._event_fd is not None:
                os.close(self._event_fd)
                self._event_fd = None
