"""Calls in the background: futures that can be awaited, an order per name, priorities, bounded copies, an eventfd."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any, Generic, TypeVar

from .errors import ClosedError, ForkedError, StoreBusyError

T = TypeVar("T")

_PRIORITIES = ("high", "normal", "background")


class Future(concurrent.futures.Future, Generic[T]):
    """The result of a call in the background: a ``concurrent.futures.Future`` that can also be awaited.

    ``result(timeout)``, ``exception(timeout)``, ``done()``, ``add_done_callback(function)`` and ``cancel()`` (only
    before the work has begun) are those of the standard library; a timeout leaves the work running.
    """

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.wrap_future(self).__await__()


class _Job:
    """One queued call. Guarded by the lock of its Background."""

    def __init__(self, future: Future, call: Callable[[], Any], lane: int) -> None:
        # None once a thread has it: the future leads to the job, and a cycle would keep its result from being freed.
        # The call is None when it was cancelled.
        self.work: tuple[Future, Callable[[], Any] | None] | None = (future, call)
        self.lane = lane  # index in _PRIORITIES; rises to that of the most urgent call that waits for this one
        self.earlier: set[_Job] = set()  # not done yet
        self.later: list[_Job] = []  # wait for this one
        self.copied_bytes = 0


class Background:
    """Runs calls on a few threads. Calls that name the same object run in the order in which they were made; among
    those that may run, the more urgent ones go first, then the older ones.

    Thread-safe. Work that waits at interpreter exit is finished first: the executor's threads are joined before
    anything else ends.
    """

    def __init__(self, thread_count: int, copied_bytes_max: int) -> None:
        self._executor = concurrent.futures.ThreadPoolExecutor(thread_count, thread_name_prefix="tensorshelf")
        self._owner = os.getpid()
        self._copied_bytes_max = copied_bytes_max
        self._copied_bytes = 0
        self._lock = threading.RLock()  # the collector may end a stream, which cancels, wherever this thread is
        self._room = threading.Condition(self._lock)
        self._ready_more = threading.Condition(self._lock)
        self._waiting_for_room: deque[object] = deque()  # first in, first out
        self._ready: tuple[deque[_Job], ...] = tuple(deque() for _ in _PRIORITIES)
        self._blocked = 0  # calls that wait for others
        self._newest: dict[str, _Job] = {}  # per name, the newest call that is not done
        self._event_fd: int | None = None
        self._closed = False

    def submit(
        self,
        call: Callable[[], T],
        names: Iterable[str] | None = (),
        *,
        changes: bool = False,
        copied_bytes: int = 0,
        priority: str = "normal",
    ) -> Future[T]:
        """Queues ``call``, to run after all earlier calls that change one of ``names`` (None: any name).

        ``changes`` says that it changes them itself. ``copied_bytes``, which were reserved, are given back when it
        is done.
        """
        future: Future[T] = Future()
        job = _Job(future, call, _PRIORITIES.index(priority))
        names = None if names is None else tuple(names)
        with self._lock:
            self.check_usable()
            if names is None:
                job.earlier = set(self._newest.values())
            else:
                job.earlier = {self._newest[name] for name in names if name in self._newest}
            # One turn of a thread for each call. A turn takes whatever call is ready then.
            self._executor.submit(self._take_turn)
            job.copied_bytes = copied_bytes
            if changes and names is not None:
                self._newest.update(dict.fromkeys(names, job))
            for other in job.earlier:
                other.later.append(job)
            self._raise(job.earlier, job.lane)
            self._blocked += 1
            if not job.earlier:
                self._make_ready(job)
        future.add_done_callback(lambda _: self._finish(job, names or ()))
        return future

    def _make_ready(self, job: _Job) -> None:
        self._blocked -= 1
        self._ready[job.lane].append(job)
        self._ready_more.notify_all()

    def _raise(self, jobs: Iterable[_Job], lane: int) -> None:
        """What an urgent call waits for is as urgent."""
        pending = [job for job in jobs if job.lane > lane]
        while pending:
            job = pending.pop()
            if job in self._ready[job.lane]:
                self._ready[job.lane].remove(job)
                self._ready[lane].append(job)
            job.lane = lane
            pending += [other for other in job.earlier if other.lane > lane]

    def _take_turn(self) -> None:
        with self._lock:
            # None is ready but some are blocked: another thread is at work on what they wait for. There is none at all
            # where an interrupt came between the two halves of a submit.
            while not any(self._ready):
                if self._blocked == 0:
                    return
                self._ready_more.wait()
            job = next(lane for lane in self._ready if lane).popleft()
            (future, call), job.work = job.work, None
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = call()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    def _finish(self, job: _Job, names: tuple[str, ...]) -> None:
        """Called once, when the future is done: from its own turn, or from whoever cancelled it."""
        with self._lock:
            if job.work is not None:
                job.work = (job.work[0], None)  # what a cancelled call would have stored need not wait for its turn
            for name in names:
                if self._newest.get(name) is job:
                    del self._newest[name]
            for later in job.later:
                later.earlier.discard(job)
                if not later.earlier:
                    self._make_ready(later)
            job.later.clear()
            self._copied_bytes -= job.copied_bytes
            self._room.notify_all()
            if self._event_fd is not None:
                os.eventfd_write(self._event_fd, 1)

    def reserve(self, copied_bytes: int, timeout: float | None = None) -> None:
        """Waits until the copies that are under way, and those that were asked for before, leave room; one call may
        always go on alone. Raises StoreBusyError when that takes longer than ``timeout`` seconds.
        """
        if copied_bytes == 0:
            return self.check_usable()
        deadline = None if timeout is None else time.monotonic() + timeout
        ticket = object()
        with self._lock:
            self.check_usable()
            self._waiting_for_room.append(ticket)
            try:
                while self._waiting_for_room[0] is not ticket or not self._has_room(copied_bytes):
                    left = 0.1 if deadline is None else min(0.1, deadline - time.monotonic())
                    if left <= 0:
                        raise StoreBusyError(
                            f"after {timeout} s there is still no room for {copied_bytes} bytes beside the "
                            f"{self._copied_bytes} that earlier calls have copied (async_copies_max is "
                            f"{self._copied_bytes_max})"
                        )
                    self._room.wait(left)  # not for ever, so that Ctrl-C gets through
                    self.check_usable()
                self._copied_bytes += copied_bytes
            finally:
                self._waiting_for_room.remove(ticket)
                self._room.notify_all()

    def _has_room(self, copied_bytes: int) -> bool:
        return self._copied_bytes == 0 or self._copied_bytes + copied_bytes <= self._copied_bytes_max

    def unreserve(self, copied_bytes: int) -> None:
        with self._lock:
            self._copied_bytes -= copied_bytes
            self._room.notify_all()

    def check_usable(self) -> None:
        if os.getpid() != self._owner:
            raise ForkedError("this handle belongs to the parent of this process")
        if self._closed:
            raise ClosedError("this store is closed")

    def event_fd(self) -> int:
        with self._lock:
            self.check_usable()
            if self._event_fd is None:
                self._event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            return self._event_fd

    def close(self) -> None:
        """Finishes what is queued. In a forked child, where the threads are not, nothing is done."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            self._closed = True
            self._room.notify_all()
        self._executor.shutdown(wait=True)
        with self._lock:
            if self._event_fd is not None:
                os.close(self._event_fd)
                self._event_fd = None
