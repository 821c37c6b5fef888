"""Checkpoints of several ranks: a root directory with one store per rank, and this process's handles of them.

::

    <root>/rank-00000/           the store of rank 0; also the manifests
    <root>/rank-00001/           ...
    <root>/rank-00001.dropped    tokens whose data rank 1 may delete: hints for when its store is in use elsewhere

A store has one writer at a time, and a trainer, its checkpoint process and a tool may want it in turn. So nobody keeps
it: a handle is closed when it was idle for a few seconds, and whoever finds a store taken waits for that.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import StoreLockedError, StoreNotFoundError
from ..store import Store, create
from ..store import open as open_store

_IDLE_SECONDS = 5.0
_POLL_SECONDS = 0.05
_CAPACITY_MIN = 256 << 20
_log = logging.getLogger("tensorshelf")


def rank_path(root: str, rank: int) -> str:
    return os.path.join(root, f"rank-{rank:05}")


def ranks_of(root: str) -> list[int]:
    """The ranks that have a store under the root."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(int(name[5:]) for name in os.listdir(root) if re.fullmatch(r"rank-\d{5,}", name))
    return []


@dataclass
class _Handle:
    """The write handle of one store in this process. `lock` is held while it is opened or closed."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    store: Store | None = None
    user_count: int = 0
    idle_since: float = 0.0


class _Handles:
    """Thread-safe. A forked child begins with none."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._handles: dict[str, _Handle] = {}
        self._closer: threading.Thread | None = None
        self._readers = threading.local()

    def _handle(self, path: str) -> _Handle:
        with self._lock:
            return self._handles.setdefault(path, _Handle())

    @contextlib.contextmanager
    def writing(self, path: str, patience: float) -> Iterator[Store]:
        handle = self._handle(path)
        with handle.lock:
            if handle.store is None or handle.store.closed:
                handle.store = _open_patiently(path, patience)
            store = handle.store
            handle.user_count += 1
        try:
            yield store
        finally:
            self._give_back(handle)

    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[Store]:
        """The write handle if this process has it open, or the reader of a block around this one on the same thread,
        which spares opening the store again; else a new reader.
        """
        outer = self._readers.__dict__
        if path in outer:
            yield outer[path]
            return
        handle = self._handle(path)
        with handle.lock:
            store = handle.store if handle.store is not None and not handle.store.closed else None
            if store is not None:
                handle.user_count += 1
        if store is None:
            with open_store(path, "r") as reader:
                outer[path] = reader
                try:
                    yield reader
                finally:
                    del outer[path]
            return
        try:
            yield store
        finally:
            self._give_back(handle)

    def _give_back(self, handle: _Handle) -> None:
        with handle.lock:
            handle.user_count -= 1
            handle.idle_since = time.monotonic()
        self._start_closer()

    def _start_closer(self) -> None:
        with self._lock:
            if self._closer is None:
                self._closer = threading.Thread(target=self._close_idle, name="tensorshelf-idle", daemon=True)
                self._closer.start()

    def _close_idle(self) -> None:
        """Closes handles that are idle; ends when none is open."""
        while True:
            time.sleep(0.5)
            with self._lock:
                handles = list(self._handles.values())
            for handle in handles:
                with handle.lock:
                    self._close_if_idle(handle)
            with self._lock:
                if all(handle.store is None for handle in self._handles.values()):
                    self._closer = None
                    return

    @staticmethod
    def _close_if_idle(handle: _Handle) -> None:
        idle = time.monotonic() - handle.idle_since
        if handle.store is None or handle.user_count > 0 or idle < _IDLE_SECONDS:
            return
        store, handle.store = handle.store, None
        try:
            store.close()
        except Exception:
            _log.exception("closing %s", store.path)

    def close(self, path: str) -> None:
        """Closes the handle now, unless it is in use."""
        handle = self._handle(path)
        with handle.lock:
            if handle.store is not None and handle.user_count == 0:
                store, handle.store = handle.store, None
                store.close()


_handles = _Handles()


def _open_patiently(path: str, patience: float) -> Store:
    end = time.monotonic() + patience
    while True:
        try:
            return open_store(path)
        except StoreLockedError:
            if time.monotonic() >= end:
                raise
            time.sleep(_POLL_SECONDS)


def writing(root: str, rank: int, patience: float = 60.0) -> contextlib.AbstractContextManager[Store]:
    """The store of a rank, open for writing, for a ``with`` block. Waits up to ``patience`` seconds for another
    process that has it. Raises StoreNotFoundError, StoreLockedError.
    """
    return _handles.writing(rank_path(root, rank), patience)


def reading(root: str, rank: int) -> contextlib.AbstractContextManager[Store]:
    """The store of a rank for reading, also beside its writer. Raises StoreNotFoundError."""
    return _handles.reading(rank_path(root, rank))


def close(root: str) -> None:
    """Closes this process's write handles of the root that are not in use; they open again when needed."""
    for rank in ranks_of(root):
        _handles.close(rank_path(root, rank))


def ensure(root: str, rank: int, capacity: int | None, needed: int) -> None:
    """Makes the store of a rank if there is none. ``capacity`` None: room for four such states."""
    path = rank_path(root, rank)
    if os.path.isdir(path):
        return
    os.makedirs(root, exist_ok=True)
    for leftover in pathlib.Path(root).glob(f"rank-{rank:05}.new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    made = f"{path}.new-{os.getpid()}"
    create(made, capacity=max(_CAPACITY_MIN, 4 * needed) if capacity is None else capacity)
    os.rename(made, path)  # so that a store is there whole or not at all
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


# Hints


def drop(root: str, rank: int, tokens: list[str]) -> None:
    """Leaves a hint that the rank may delete the data of these tokens. A lost hint costs space until the rank's next
    process looks for itself.
    """
    if tokens:
        with open(rank_path(root, rank) + ".dropped", "a") as file:
            file.write("".join(f"{token}\n" for token in tokens))


def take_dropped(root: str, rank: int) -> list[str]:
    """The hints for a rank, which are then gone."""
    path = rank_path(root, rank) + ".dropped"
    taken = f"{path}.{os.getpid()}-{threading.get_ident()}"
    try:
        os.rename(path, taken)
    except FileNotFoundError:
        return []
    with open(taken) as file:
        lines = file.read().split()
    os.unlink(taken)
    return lines


__all__ = [
    "StoreNotFoundError",
    "close",
    "drop",
    "ensure",
    "rank_path",
    "ranks_of",
    "reading",
    "take_dropped",
    "writing",
]
