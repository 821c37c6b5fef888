"""``save_async``: a save that blocks only while the state is copied, and is durable later."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from .._values import parse_size
from ..errors import ClosedError
from ..store import Store, empty
from .codec import Dump, _plain, dump
from .objects import Saved, commit, finish, put_records, saved_of

_log = logging.getLogger("tensorshelf")


class AsyncSave:
    """A save under way. Made by ``save_async``."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        #: done when the object may change: when ``save_async`` has returned
        self.staged: Future[None] = Future()
        #: done when the save survives a power loss: its result is a Saved. Nothing is saved before
        self.durable: Future[Saved] = Future()

    def done(self) -> bool:
        return self.durable.done()

    def wait(self, timeout: float | None = None) -> Saved:
        """What was saved, once it is durable. Raises what went wrong; then nothing was saved."""
        return self.durable.result(timeout)


class AsyncSaver:
    """Saves objects in the background, one after the other, through staging memory of a bounded size.

    store    open for writing. Closing it waits for the saves that are under way
    staging  bytes of page-aligned memory for copies, over all saves that are under way. It is taken when it is
             needed and recycled

    The next save, and ``wait``, raise what went wrong with an earlier one, unless its own futures were asked.
    Thread-safe; saves happen in the order of the calls.
    """

    def __init__(self, store: Store, staging: int | str = "2GiB") -> None:
        self._store = store
        self._staging_max = parse_size(staging, "staging")
        self._changed = threading.Condition()
        self._staged_bytes = 0
        self._failed: BaseException | None = None
        self._pending: list[AsyncSave] = []
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="tensorshelf-save")
        self._closed = False
        store._before_close.append(weakref.WeakMethod(self.close))

    def save(self, obj: Any, prefix: str, *, skip_unchanged: bool = True, snapshot: str | None = None) -> AsyncSave:
        """As ``checkpoint.save``, but returns when the object may change: when it is copied. Where it is larger
        than the staging memory, the rest is written before this returns, and the log says so.
        """
        self._raise_earlier()
        taken = dump(obj, max(prefix, snapshot or "", key=len))
        saving = AsyncSave(prefix)
        begun = time.monotonic()
        copied, direct = self._divide(taken)
        size = sum(taken.records[name].nbytes for name in copied)
        self._reserve(size)
        try:
            staged = {name: _copy(taken.records[name]) for name in copied}
        except BaseException:
            self._release(size)
            raise
        direct_done: Future[None] = Future()
        with self._changed:
            if self._closed:
                self._release(size)
                raise ClosedError("this saver is closed")
            self._pending.append(saving)
            self._executor.submit(self._run, saving, taken, staged, direct, direct_done, size, skip_unchanged, snapshot)
        if direct:
            direct_done.result()
            left = sum(taken.records[name].nbytes for name in direct)
            _log.warning(
                "saving %r: %d bytes do not fit into %d bytes of staging memory; blocked %.2f s to write them",
                prefix, left, self._staging_max, time.monotonic() - begun,
            )  # fmt: skip
        saving.staged.set_result(None)
        return saving

    def wait(self) -> None:
        """Waits for all saves. Raises what went wrong with one that nobody was told of yet."""
        with self._changed:
            pending = list(self._pending)
        for saving in pending:
            saving.durable.exception()
        self._raise_earlier()

    def close(self) -> None:
        """Waits for all saves. Twice is fine. Errors are in the saves' futures and in the log."""
        with self._changed:
            self._closed = True
        self._executor.shutdown(wait=True)

    def __enter__(self) -> AsyncSaver:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        if kind is None:
            self._raise_earlier()

    def _raise_earlier(self) -> None:
        with self._changed:
            failed, self._failed = self._failed, None
        if failed is not None:
            raise failed

    def _divide(self, taken: Dump) -> tuple[list[str], list[str]]:
        """Names of records to be copied, as many as fit, and of those that are written from where they are."""
        room = self._staging_max
        copied, direct = [], []
        for name, tensor in taken.records.items():
            fits = _plain(tensor) and tensor.nbytes <= room
            (copied if fits else direct).append(name)
            room -= tensor.nbytes if fits else 0
        return copied, direct

    def _reserve(self, size: int) -> None:
        with self._changed:
            while self._staged_bytes > 0 and self._staged_bytes + size > self._staging_max:
                self._changed.wait(0.1)  # so that Ctrl-C gets through
            self._staged_bytes += size

    def _release(self, size: int) -> None:
        with self._changed:
            self._staged_bytes -= size
            self._changed.notify_all()

    def _run(
        self,
        saving: AsyncSave,
        taken: Dump,
        staged: dict[str, torch.Tensor],
        direct: list[str],
        direct_done: Future[None],
        size: int,
        skip_unchanged: bool,
        snapshot: str | None,
    ) -> None:
        """In the background: what the caller waits for first, then what is staged, then the commit."""
        saved, error = None, None
        try:
            saved = self._save(saving.prefix, taken, staged, direct, direct_done, skip_unchanged, snapshot)
        except BaseException as raised:
            error = raised
        staged.clear()
        self._release(size)
        told = error is not None and not direct_done.done()  # the caller of save() waits, and is told there
        with self._changed:
            if error is not None and not told:
                self._failed = error
                _log.error("saving %r: %s", saving.prefix, error)
        if error is None:
            saving.durable.set_result(saved)
        else:
            saving.durable.set_exception(error)
        if told:
            direct_done.set_exception(error)
        with self._changed:
            self._pending.remove(saving)

    def _save(
        self,
        prefix: str,
        taken: Dump,
        staged: dict[str, torch.Tensor],
        direct: list[str],
        direct_done: Future[None],
        skip_unchanged: bool,
        snapshot: str | None,
    ) -> Saved:
        store = self._store
        with store.transaction() as tx:
            if direct:
                put_records(tx, prefix, {name: taken.records[name] for name in direct}, skip_unchanged)
            direct_done.set_result(None)
            if staged:
                put_records(tx, prefix, staged, skip_unchanged)
            finish(tx, store, prefix, taken, snapshot)
            commit(tx, prefix)
        return saved_of(tx, prefix, taken)


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.numel() == 0:
        return tensor.detach().clone()
    return empty(list(tensor.shape), tensor.dtype).copy_(tensor.detach())


_savers: weakref.WeakKeyDictionary[Store, AsyncSaver] = weakref.WeakKeyDictionary()
_savers_lock = threading.Lock()


def save_async(
    obj: Any,
    store: Store,
    prefix: str,
    *,
    staging: int | str = "2GiB",
    skip_unchanged: bool = True,
    snapshot: str | None = None,
) -> AsyncSave:
    """``save`` in the background: returns when the object is copied and may change.

    The copies of all saves under way take at most ``staging`` bytes, which the first call for a store decides. A
    failure is raised by the save's ``wait()``, and by the next ``save_async`` of the store. See AsyncSaver.
    """
    with _savers_lock:
        saver = _savers.get(store)
        if saver is None:
            saver = _savers[store] = AsyncSaver(store, staging)
    return saver.save(obj, prefix, skip_unchanged=skip_unchanged, snapshot=snapshot)
