"""The store: named tensors on preallocated files, durable, checked, at the speed of the device."""

from __future__ import annotations

import atexit
import builtins
import contextlib
import logging
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from . import _core
from ._async import Background, Future
from ._reading import Reader
from ._space import Compaction, Drained, Growth, mean_device_capacity
from ._values import access_order, block_log2_of, cache_hint, parse_size, prepare, prepare_all, priority_of, verifies
from .errors import ClosedError

if TYPE_CHECKING:
    from .weights import StoredWeights

_TUNED_CAPACITY_MIN = 8 << 30  # a smaller store is not worth seconds

_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()


class Commit(NamedTuple):
    """What a commit did."""

    #: number of the commit, rising by one each; 0 when nothing had to be committed (ephemeral objects alone)
    commit: int
    #: one for each value that was put, in order
    generations: list[int]
    #: how many names were deleted, renamed or cloned
    names_changed: int
    #: how many values ``skip_unchanged`` found stored already
    unchanged: int


def _precondition(if_absent: bool, if_exists: bool, if_generation: int | None) -> tuple[str, int]:
    if bool(if_absent) + bool(if_exists) + (if_generation is not None) > 1:
        raise ValueError("if_absent=, if_exists= and if_generation= exclude each other")
    if if_generation is not None:
        return "generation", if_generation
    return ("absent" if if_absent else "exists" if if_exists else ""), 0


def _settings(
    metadata: Mapping[str, str] | None = None,
    if_absent: bool = False,
    if_exists: bool = False,
    if_generation: int | None = None,
    block_size: int | str | None = None,
    skip_unchanged: bool = False,
    ephemeral: bool = False,
    cache: str | None = None,
    priority: str = "normal",
) -> tuple:
    """The arguments of the core's put after names and values."""
    return (
        dict(metadata or {}),
        *_precondition(if_absent, if_exists, if_generation),
        block_log2_of(block_size),
        skip_unchanged,
        ephemeral,
        cache_hint(cache),
        priority_of(priority),
    )


def _names_and_values(values: Mapping[str, Any] | Iterable[tuple[str, Any]], prefix: str) -> tuple[list, list]:
    pairs = dict(values)
    names = [prefix + name for name in pairs] if prefix else list(pairs)
    return names, prepare_all(pairs.values())


class Transaction:
    """Many changes with one commit: after a crash all of them are there or none. Made by ``Store.transaction()``.

    ``put`` writes the bytes at once; they, and the name operations, become visible together when the ``with``
    block ends. An exception in the block leaves the store as it was. Changes are evaluated in order: a rename
    after a put sees the put. Reads inside the block see the store without the changes.

    Usable from several threads, which take turns.
    """

    def __init__(self, core: _core.Transaction) -> None:
        self._core = core
        #: the Commit, once the block has ended
        self.result: Commit | None = None

    def put(
        self,
        name: str,
        value: Any,
        *,
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
        if_exists: bool = False,
        if_generation: int | None = None,
        block_size: int | str | None = None,
        skip_unchanged: bool = False,
        cache: str | None = None,
    ) -> None:
        """As ``Store.put``, but visible and durable with the commit. Preconditions are checked then."""
        settings = _settings(metadata, if_absent, if_exists, if_generation, block_size, skip_unchanged, cache=cache)
        self._core.put([name], [prepare(value)], *settings)

    def put_many(
        self,
        values: Mapping[str, Any] | Iterable[tuple[str, Any]],
        *,
        prefix: str = "",
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
        if_exists: bool = False,
        block_size: int | str | None = None,
        skip_unchanged: bool = False,
        cache: str | None = None,
    ) -> None:
        """As ``Store.put_many``, but visible and durable with the commit."""
        names, prepared = _names_and_values(values, prefix)
        settings = _settings(metadata, if_absent, if_exists, None, block_size, skip_unchanged, cache=cache)
        self._core.put(names, prepared, *settings)

    def delete(self, name: str, missing_ok: bool = False) -> None:
        """Drops a name. NameNotFoundError comes from the commit."""
        self._core.delete(name, missing_ok)

    def delete_prefix(self, prefix: str) -> None:
        """Drops every name that begins with ``prefix``."""
        self._core.delete_prefix(prefix)

    def rename(self, old: str, new: str, replace: bool = False) -> None:
        """Gives an object another name. NameExistsError comes from the commit unless ``replace``."""
        self._core.rename(old, new, replace)

    def rename_prefix(self, old: str, new: str, replace: bool = False) -> None:
        """Replaces the prefix of every name that begins with ``old``."""
        self._core.rename_prefix(old, new, replace)

    def clone(self, source: str, target: str, replace: bool = False) -> None:
        """Gives an object a second name. The bytes are shared until one of the names is put anew."""
        self._core.clone(source, target, replace)

    def clone_prefix(self, source: str, target: str, replace: bool = False) -> None:
        """Clones every name that begins with ``source``."""
        self._core.clone_prefix(source, target, replace)

    def require(self, name: str, *, absent: bool = False, exists: bool = False, generation: int | None = None) -> None:
        """What must hold of ``name`` at the commit, else PreconditionError and nothing happens."""
        kind, number = _precondition(absent, exists, generation)
        if not kind:
            raise ValueError("say absent=True, exists=True or generation=...")
        self._core.require(name, kind, number)

    def commit(self) -> Commit:
        """Makes everything visible and durable. The end of the ``with`` block does this."""
        self.result = Commit(*self._core.commit())
        return self.result

    def abort(self) -> None:
        """Forgets everything. An exception in the ``with`` block does this."""
        self._core.abort()

    def __enter__(self) -> Transaction:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.abort()
        elif self.result is None:
            self.commit()


class View(Reader, Mapping):
    """The store as one commit left it: a ``Mapping`` that stays. Made by ``Store.view()``; use it in a ``with`` block.

    What was there stays findable and readable, whatever is put, deleted or renamed meanwhile. Space that is dropped
    while a view lives is reused only after it, so do not keep one for long. It ends with its store.
    """

    def __init__(self, store: Store, core: _core.Store, view: _core.View) -> None:
        self._store = store
        self._core = core
        self._view = view
        self._verify = store._verify

    def _source(self) -> tuple[_core.Store, _core.View | None]:
        self._store._source()
        return self._core, self._view

    def _background_calls(self) -> Background:
        return self._store._background

    def _one_commit(self) -> contextlib.AbstractContextManager[Reader]:
        return contextlib.nullcontext(self)

    @property
    def commit(self) -> int:
        """The number of the commit that this view shows."""
        return self._view.commit

    def close(self) -> None:
        """Ends the view. Twice is fine."""
        self._view.close()

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<view of {self._store!r}>"


class Store(Reader, MutableMapping):
    """An open store: a ``MutableMapping`` from names to tensors. Made by ``tensorshelf.open``; use it in a
    ``with`` block.

    Names are str: UTF-8 of 1 to 4096 bytes, compared as bytes and not normalised. Slashes mean nothing to the
    store, but prefixes work well with them. Values are torch tensors, NumPy arrays, anything with DLPack (all come
    back as tensors), and bytes (which come back as bytes).

    When a put returns, the value survives a crash and a power loss, and every byte that is read is compared with
    its checksum. Puts never write over stored bytes: readers see the old value or the new one.

    Thread-safe: call from many threads at once; their commits are grouped. Calls wait without the interpreter
    lock, and Ctrl-C ends a long one as soon as nothing of it is in flight (at most 2 GiB or one tensor later); a
    put that is interrupted during its commit may have happened.

    One process writes a store; any number of others may read it beside that. In a forked child the parent's handle
    raises ForkedError. A handle with mode "r" can be pickled (it opens the store again where it is unpickled),
    which is how a DataLoader with ``multiprocessing_context="spawn"`` passes it to its workers.
    """

    def __init__(
        self, path: str, read_only: bool, options: dict[str, Any], reopen: dict[str, Any], verify: bool
    ) -> None:
        self._path = path
        self._read_only = read_only
        self._reopen = reopen
        self._verify = verify
        self._closed = False
        threads = options.pop("async_threads")
        copies_max = options.pop("async_copies_max")
        self._core = _core.Store(path, options)
        self._background = Background(threads, copies_max)
        self._before_close: list[weakref.WeakMethod] = []  # what stands on this store and has work under way
        _open_stores.add(self)

    def _source(self) -> tuple[_core.Store, None]:
        if self._closed:
            raise ClosedError(f"the store {self._path} is closed")
        return self._core, None

    def _background_calls(self) -> Background:
        return self._background

    def _one_commit(self) -> contextlib.AbstractContextManager[Reader]:
        return self.view()

    @property
    def path(self) -> str:
        return self._path

    @property
    def mode(self) -> str:
        """ "a" or "r", as given to ``open``."""
        return "r" if self._read_only else "a"

    @property
    def closed(self) -> bool:
        return self._closed

    # Changes

    def put(
        self,
        name: str,
        value: Any,
        *,
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
        if_exists: bool = False,
        if_generation: int | None = None,
        block_size: int | str | None = None,
        skip_unchanged: bool = False,
        ephemeral: bool = False,
        cache: str | None = None,
        priority: str = "normal",
    ) -> int:
        """Stores a value durably under a name, in place of what was there. Returns its generation.

        value           a tensor of any dense dtype and shape (non-contiguous ones are packed, conj and neg bits
                        resolved, other devices copied from), a NumPy array, an object with DLPack, or bytes. Must
                        not change until the call returns
        metadata        str to str, up to 64 KiB together
        if_absent       True: only if the name is free; if_exists: only if it is taken; if_generation: only if the
                        object there has this generation. Else PreconditionError
        block_size      bytes of a checksum block, a power of two from 4 KiB to 1 MiB; 64 KiB if not given. 4 KiB
                        suits tensors that are read by small rows
        skip_unchanged  True: if the name holds the same value already, nothing is written
        ephemeral       True: never survives the end of this process and never pays for durability; the name must
                        not be one of a durable object
        cache           whether the bytes stay in the memory tier as well (see ``open``): "keep", "none" (where
                        there is room) or "once" (no)

        Raises UnsupportedTensorError (sparse, quantized, nested, meta, fake, functorch-wrapped tensors, DTensor
        and other wrapper subclasses: the message says which), StoreFullError, PreconditionError,
        TensorChangedError, ValueError (name, metadata), StoreReadOnlyError, StoreIOError, ClosedError,
        ForkedError. Then nothing is stored.
        """
        settings = _settings(
            metadata, if_absent, if_exists, if_generation, block_size, skip_unchanged, ephemeral, cache, priority
        )
        core, _ = self._source()
        return core.put([name], [prepare(value)], *settings)[1][0]

    def put_many(
        self,
        values: Mapping[str, Any] | Iterable[tuple[str, Any]],
        *,
        prefix: str = "",
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
        if_exists: bool = False,
        block_size: int | str | None = None,
        skip_unchanged: bool = False,
        ephemeral: bool = False,
        cache: str | None = None,
        priority: str = "normal",
    ) -> Commit:
        """Stores many values with one commit: after a crash all are there or none. ``prefix`` is put before each
        name.

        ``store.put_many(model.state_dict(), prefix="model/")``. The other arguments hold for every value; they and
        the errors are those of ``put``. With ``skip_unchanged`` a checkpoint costs what changed since the last one.
        """
        names, prepared = _names_and_values(values, prefix)
        settings = _settings(
            metadata, if_absent, if_exists, None, block_size, skip_unchanged, ephemeral, cache, priority
        )
        core, _ = self._source()
        return Commit(*core.put(names, prepared, *settings))

    def _change(self, operation: Callable[[_core.Transaction], None]) -> int:
        core, _ = self._source()
        transaction = core.begin()
        operation(transaction)
        return Commit(*transaction.commit()).names_changed

    def delete(self, name: str, missing_ok: bool = False) -> bool:
        """Drops a name; the bytes go with the last name of the object. True if there was one.

        Raises NameNotFoundError unless ``missing_ok``.
        """
        return self._change(lambda t: t.delete(name, missing_ok)) > 0

    def delete_prefix(self, prefix: str) -> int:
        """Drops every name that begins with ``prefix``, in one commit. Returns how many."""
        return self._change(lambda t: t.delete_prefix(prefix))

    def rename(self, old: str, new: str, replace: bool = False) -> None:
        """Gives an object another name; moves no bytes.

        Raises NameNotFoundError, and NameExistsError if ``new`` is taken and not ``replace``.
        """
        self._change(lambda t: t.rename(old, new, replace))

    def rename_prefix(self, old: str, new: str, replace: bool = False) -> int:
        """Replaces the prefix of every name that begins with ``old``, in one commit. Returns how many."""
        return self._change(lambda t: t.rename_prefix(old, new, replace))

    def clone(self, source: str, target: str, replace: bool = False) -> None:
        """Gives an object a second name that shares its bytes; a later put of one name leaves the other as it
        is.
        """
        self._change(lambda t: t.clone(source, target, replace))

    def clone_prefix(self, source: str, target: str, replace: bool = False) -> int:
        """Clones every name that begins with ``source``, in one commit: a snapshot that copies no bytes. Returns
        how many.
        """
        return self._change(lambda t: t.clone_prefix(source, target, replace))

    def transaction(self) -> Transaction:
        """Many changes with one commit: ``with store.transaction() as tx: tx.put(...); tx.delete(...)``."""
        core, _ = self._source()
        return Transaction(core.begin())

    # Mapping

    def __setitem__(self, name: str, value: Any) -> None:
        self.put(name, value)

    def __delitem__(self, name: str) -> None:
        self.delete(name)

    def update(self, values: Any = (), /, **more: Any) -> None:
        """As ``dict.update``, in one commit."""
        self.put_many({**dict(values), **more})

    def clear(self) -> None:
        """Drops every name, in one commit."""
        self.delete_prefix("")

    def _count(self, prefix: str) -> int:
        names = self.stats()["names"] if not prefix else None
        return super()._count(prefix) if names is None else names

    # In the background

    def put_async(
        self, name: str, value: Any, *, borrow: bool = False, timeout: float | None = None, **keywords: Any
    ) -> Future[int]:
        """``put`` in the background. Returns at once with a Future of the generation.

        The value is copied first, so it may change at once; when copies of more than ``async_copies_max`` (see
        ``open``) are under way, this call waits for room, after those that have waited longer: at most ``timeout``
        seconds, then it is StoreBusyError and nothing was queued. ``borrow=True`` copies nothing and never waits: the
        value must then not change until the future is done.

        Puts of one name happen in the order of the calls, and ``get_async`` of a name sees the puts before it. Among
        other calls those of ``priority="high"`` go first and those of ``"background"`` last, here and on the device;
        what an urgent call waits for is as urgent. ``cancel()`` of the future works until a thread has taken the
        call, and gives the room of its copy back. Other keywords and errors (which come from the future) are those of
        ``put``; a value that cannot be kept is refused at once.
        """
        settings = _settings(**keywords)
        wait = None if borrow else (timeout,)
        return self._put_in_background([name], [prepare(value)], settings, wait, lambda result: result[1][0])

    def put_many_async(
        self,
        values: Mapping[str, Any] | Iterable[tuple[str, Any]],
        *,
        prefix: str = "",
        borrow: bool = False,
        timeout: float | None = None,
        **keywords: Any,
    ) -> Future[Commit]:
        """``put_many`` in the background; see ``put_async``. Returns a Future of the Commit."""
        names, prepared = _names_and_values(values, prefix)
        settings = _settings(**keywords)
        wait = None if borrow else (timeout,)
        return self._put_in_background(names, prepared, settings, wait, lambda result: Commit(*result))

    def _put_in_background(
        self,
        names: list[str],
        values: list,
        settings: tuple,
        wait: tuple[float | None] | None,
        result_of: Callable[[tuple], Any],
    ) -> Future:
        """``wait``: the timeout for the room of copies; None: the values are borrowed."""
        core, _ = self._source()
        size = core.check(names, values)
        copied = 0
        if wait is not None:
            self._background.reserve(size, *wait)
            copied = size
        try:
            kept = values if wait is None else [core.copy(value) for value in values]
            call = lambda: result_of(core.put(names, kept, *settings))  # noqa: E731
            return self._background.submit(call, names, changes=True, copied_bytes=copied, priority=settings[-1])
        except BaseException:
            self._background.unreserve(copied)
            raise

    def get_async(self, name: str, **keywords: Any) -> Future[Any]:
        """``get`` in the background, with its keywords. ``out`` must stay untouched until the future is done."""
        self._source()
        priority = priority_of(keywords.get("priority", "normal"))
        return self._background.submit(lambda: self.get(name, **keywords), [name], priority=priority)

    def get_many_async(self, names: Iterable[str] | None = None, **keywords: Any) -> Future[dict[str, Any]]:
        """``get_many`` in the background, with its keywords."""
        self._source()
        wanted = None if names is None else list(names)
        prefix = keywords.get("prefix", "")
        waits_for = None if wanted is None else [prefix + name for name in wanted]
        priority = priority_of(keywords.get("priority", "normal"))
        return self._background.submit(lambda: self.get_many(wanted, **keywords), waits_for, priority=priority)

    def prefetch(
        self, names: Iterable[str] | None = None, *, prefix: str = "", cache: str | None = None, order: str = "any"
    ) -> None:
        """Reads objects into the memory tier in the background, behind all other reads, and returns at once.

        names   which, soonest needed first; None: all that begin with ``prefix``
        prefix  put before each name
        cache   as in ``get``; ``order="sweep"`` likewise

        Names that are missing and objects that do not fit are passed over, and the rest of a list that has filled
        three quarters of the tier is, so that it does not push out its own beginning. Without a memory tier (see
        ``open``) nothing happens.
        """
        core, _ = self._source()
        full = list(self.keys(prefix)) if names is None else [prefix + name for name in names]
        core.prefetch(full, cache_hint(cache), access_order(order))

    def wait_for_prefetch(self) -> None:
        """Returns when no prefetch is waiting or under way."""
        self._source()[0].wait_for_prefetch()

    def event_fd(self) -> int:
        """A file descriptor for event loops: readable when calls in the background have ended (also by an error).

        Non-blocking; ``os.eventfd_read(fd)`` returns how many have ended since the last read. It belongs to the
        store and is closed with it.
        """
        self._source()
        return self._background.event_fd()

    # The whole store

    def view(self) -> View:
        """A consistent view of the newest commit: ``with store.view() as v: v.get(...)``."""
        core, _ = self._source()
        return View(self, core, core.view())

    def mapping(self, prefix: str = "", *, window: int | str = "256MiB") -> StoredWeights:
        """The tensors under a prefix as a read-only ``Mapping`` that reads ahead, for accelerate's hooks and others.

        ``window`` bytes are read ahead, in the order in which they were used the last time. See StoredWeights.
        """
        from .weights import StoredWeights

        return StoredWeights(self, prefix, window)

    def flush(self) -> None:
        """Writes the witness of the last commit, so that even a lost index is noticed. Puts are durable without
        it.
        """
        self._source()[0].flush()

    def catch_up(self) -> None:
        """For a reader beside a writer: see the writer's newest commits now, not within a second."""
        self._source()[0].catch_up()

    def backup(self, destination: str | os.PathLike[str]) -> None:
        """Copies the index (names and records, not the data) into a directory, incrementally."""
        self._source()[0].backup(os.fspath(destination))

    def grow(
        self,
        capacity: int | str | None = None,
        devices: Iterable[str | os.PathLike[str]] | None = None,
    ) -> Growth:
        """Adds capacity while the store is in use: one more data file on each device.

        capacity  bytes for tensors to add over all these devices, as int or text ("64GiB"), at least 8 MiB a
                  device; if not given, on each as much as the devices have on average now
        devices   directories: of devices that the store has, or of new ones (made when absent, else empty); all that
                  it has if not given

        Durable when it returns, all of it; a crash before that leaves the store as it was. Readers beside this
        writer find the new files by themselves. Raises ValueError (capacity, no arguments), StoreFullError (it does
        not fit on the disk), StoreExistsError (a new device's directory is not empty).
        """
        core = self._source()[0]
        directories = [os.path.abspath(device) for device in devices or ()]
        if capacity is None and not directories:
            raise ValueError("grow needs a capacity, or devices")
        if capacity is None:
            size = mean_device_capacity(core.info()["files"]) * len(directories)
        else:
            size = parse_size(capacity, "capacity")
        return Growth(**core.grow(size, directories))

    def drain(
        self,
        device: str | os.PathLike[str],
        rate: int | str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Drained:
        """Moves everything off one device, and takes its data files out of the store, which stays in use.

        device    its directory, or its uuid as in ``info()``
        rate      bytes a second that are copied at most; no limit if not given
        progress  as in ``compact``

        What still lies there at the end is named in a StoreError: bytes that readers or views hold, ephemeral
        objects, damaged ones (CorruptionError). The device then stays part of the store, and a second call does the
        rest. Raises StoreFullError when the other devices have no room for it, StoreError when there is no other.
        """
        limit = 0 if rate is None else parse_size(rate, "rate")
        if rate is not None and limit == 0:
            raise ValueError("a rate of 0 would never end")
        return Drained(**self._source()[0].drain(os.fspath(device), limit, progress))

    def compact(
        self,
        rate: int | str | None = None,
        progress: Callable[[int, int], None] | None = None,
        *,
        dry_run: bool = False,
    ) -> Compaction:
        """Moves objects so that the free space of each data file lies in one piece: large ones down, small ones up.

        Works beside everything else, behind it on the device; what is put, deleted or renamed meanwhile wins. Every
        byte is compared with its checksum on the way. Stopped at any point, by a crash too, each object is at its
        old place or at its new one.

        rate      bytes a second that are copied at most, as int or text ("200MB"); no limit if not given
        progress  called as progress(objects_moved, bytes_moved) after each commit, from a thread of its own; an
                  exception ends the run
        dry_run   True: moves nothing, and reports what would come of it; works in mode "r" too
        """
        limit = 0 if rate is None else parse_size(rate, "rate")
        if rate is not None and limit == 0:
            raise ValueError("a rate of 0 would never end")
        return Compaction.from_core(self._source()[0].compact(limit, dry_run, progress))

    def stats(self) -> dict[str, Any]:
        """Counters since the store was opened, and space by state; bytes where the name does not say otherwise.

        ``names`` and ``objects`` are None where they are not counted (readers).

        operations       by name: put, get, slice, find, delete, names (renames and clones), commit (a group of
                         transactions), sync, index_write. Each: ``count`` of calls that succeeded, ``errors`` of
                         others, ``items`` (objects), ``bytes``, and latencies ``p50_us``, ``p99_us``, ``max_us``,
                         ``mean_us``, exact to within a half of themselves (of lookups and reads up to 4 KiB, of every
                         sixteenth call); None without any
        devices          each: ``device_uuid``, ``tier``, space, bytes and transfers (``..._ops``) since the opening,
                         ``in_flight_ops`` and ``waiting_blocks`` now, ``reads`` and ``writes``: latencies of transfers
        staging          buffers of the arena, free ones, and threads that wait for one
        memory           the memory tier: ``hits``, ``misses`` and ``joined_reads`` count objects, ``held_bytes`` is
                         what it has taken of ``capacity``, ``leased_bytes`` and ``oldest_lease_seconds`` tell of
                         tensors from ``get(copy=False)`` that still live
        counters_hidden  None while other processes can see these numbers (``tensorshelf watch``), else why not: a
                         reader, a disk without room
        """
        return self._source()[0].stats()

    def metrics(self) -> str:
        """The numbers of ``stats`` as a page for Prometheus, to be served as ``text/plain; version=0.0.4``.

        Every series is named ``tensorshelf_...`` and has the label ``store``, the uuid. Latencies are histograms.
        """
        return self._source()[0].metrics()

    @contextlib.contextmanager
    def trace(self, path: str | os.PathLike[str], *, events: int = 131072) -> Iterator[None]:
        """Writes down what the block makes the store and its devices do: ``with store.trace("trace.json"): ...``

        The file is JSON in the trace event format of Chrome: open it in ui.perfetto.dev or chrome://tracing. It has
        the operations of each thread (``get``, ``slice``, ``find``, ``stage`` and ``put``, ``delete``, ``names``, and
        the commit thread's ``commit``, ``sync`` and ``index_write``) and the transfers of each device with their
        bytes, file, offset and how long they waited in the queue. Only the newest ``events`` are kept, 128 bytes
        each. Written also when the block ends by an exception.
        """
        self.start_trace(events=events)
        try:
            yield
        finally:
            self.stop_trace(path)

    def start_trace(self, *, events: int = 131072) -> None:
        """Records from now on what ``trace`` tells of. StoreError when it does so already."""
        if isinstance(events, bool) or not isinstance(events, int) or events < 1:
            raise ValueError(f"events must be a positive int, not {events!r}")
        self._source()[0].start_trace(events)

    def stop_trace(self, path: str | os.PathLike[str]) -> None:
        """Ends the recording and writes it to ``path``, in place of what is there. StoreError: none was begun."""
        text = self._core.stop_trace()
        with builtins.open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def info(self) -> dict[str, Any]:
        """What the store is: path, uuid, format, commit, epoch, writer, data files.

        ``tuning`` of a file tells how its device is best driven, where ``create`` measured that, else it is None.
        """
        return self._source()[0].info()

    def close(self) -> None:
        """Finishes what is under way in the background and closes the store. Twice is fine.

        Tensors that were read stay valid, also those of ``get(copy=False)``, whose memory is given back when they
        die; when there are some, a notice in ``logging.getLogger("tensorshelf")`` says so. Every other use
        afterwards is ClosedError, a ValueError. In a forked child this does nothing to the parent's store.
        """
        if self._closed:
            return
        if self._core.forked:
            self._closed = True
            return
        while self._before_close:
            finish = self._before_close.pop()()
            if finish is not None:
                finish()
        self._background.close()
        self._closed = True
        self._core.close()

    def __enter__(self) -> Store:
        self._source()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        if not self._read_only:
            raise TypeError(
                "a store that is open for writing cannot be pickled; open it with mode='r' where it is needed"
            )
        return _reopen, (self._path, self._reopen)

    def __repr__(self) -> str:
        return f"<tensorshelf.Store {self._path!r} mode={self.mode!r}{' closed' if self._closed else ''}>"


def _reopen(path: str, keywords: dict[str, Any]) -> Store:
    return open(path, "r", **keywords)


def create(
    path: str | os.PathLike[str],
    capacity: int | str,
    *,
    devices: Iterable[str | os.PathLike[str]] | None = None,
    prefill: str = "background",
    group_readable: bool = False,
    tune: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Makes a new, empty store and preallocates its files.

    path            a directory, made if it is absent; must be empty otherwise
    capacity        bytes for tensors, as int or text ("64GiB"); at least 8 MiB for each device. It is taken from
                    the file system now, all of it
    devices         one directory for each disk that the tensors are spread over; the store's own directory if not
                    given
    prefill         when the files are filled with zeros, which makes the first writes faster: "background" (while
                    the open store is idle), "full" (before this returns), "none"
    group_readable  True: files 0640 in directories 0750; else 0600 and 0700
    tune            whether to measure for about two seconds a device how long its transfers should be, how many in
                    flight, by how many threads. The store remembers what is better than the defaults by a tenth or
                    more, ``open`` uses it and ``info()`` shows it. None: for stores of 8 GiB and more
    progress        called as progress(bytes_done, bytes_in_all) during a full prefill

    Raises StoreExistsError, ValueError (capacity), StoreFullError (it does not fit on the disk), StoreIOError.
    Nothing is left behind then.
    """
    if prefill not in ("background", "full", "none"):
        raise ValueError(f"prefill must be 'background', 'full' or 'none', not {prefill!r}")
    size = parse_size(capacity, "capacity")
    options = {
        "capacity": size,
        "tune": size >= _TUNED_CAPACITY_MIN if tune is None else bool(tune),
        "devices": [os.path.abspath(device) for device in devices or ()],
        "prefill": prefill,
        "group_readable": group_readable,
        "progress": progress,
    }
    _core.create(os.path.abspath(path), options)


def open(
    path: str | os.PathLike[str],
    mode: str = "a",
    *,
    memory: int | str = 0,
    devices: Iterable[str | os.PathLike[str]] | None = None,
    degraded: bool = False,
    verify: bool | str = "always",
    trailers: str = "large",
    page_locked: bool = True,
    result_pool: int | str = "4GiB",
    staging: int | str = "64MiB",
    background_fill: bool = True,
    record_cache: int | str = "64MiB",
    workers: int | None = None,
    queue_depth: int | None = None,
    io_size: int | str | None = None,
    async_threads: int = 8,
    async_copies_max: int | str = "1GiB",
) -> Store:
    """Opens a store; never creates one.

    path              the directory that was given to ``create``
    mode              "a": read and write, one process at a time. "r": read, also beside a writer, whose commits
                      are followed
    memory            the size of the memory tier: objects that were read (or put) stay in it and are then got
                      without I/O, by a copy or by ``get(copy=False)`` without one. 0: none. "auto": a quarter of
                      what MemAvailable and the cgroup's limit leave now, at most 64 GiB, none below 64 MiB. The
                      default is 0, because only the caller knows what else the machine is for
    devices           directories to search for data files that are not where they were
    degraded          True: open read-only although a device is missing; reads of what lies there are
                      MissingDeviceError
    verify            "always" or "never": what ``get`` does when not told
    trailers          which objects get a copy of their record beside their bytes, for salvage: "large" (64 KiB and
                      more), "all", "none"
    page_locked       lock staging memory, results and the memory tier into RAM where the limit (ulimit -l) allows
    result_pool       how much memory of freed results is kept for the next ones. Recycled memory is faulted in and
                      page-aligned, so large results are read into it at full speed
    staging           memory through which bytes go that come from or go to ordinary, unaligned memory
    background_fill   continue an unfinished prefill while idle
    record_cache      memory for decoded index records
    workers           I/O threads for each device (2), each with ``queue_depth`` (32) transfers of ``io_size`` (1 MiB)
                      in flight. Where none of the three is given, what ``create`` measured is used
    async_threads     threads for the ``*_async`` calls
    async_copies_max  memory for copies that ``put_async`` makes

    Sizes are ints in bytes or texts such as "4GiB".

    Raises StoreNotFoundError, StoreLockedError (the message names the writer), MissingDeviceError,
    LostCommitsError, CorruptionError, StoreIOError.
    """
    if mode not in ("a", "r"):
        raise ValueError(f"mode must be 'a' or 'r', not {mode!r}")
    if trailers not in ("large", "all", "none"):
        raise ValueError(f"trailers must be 'large', 'all' or 'none', not {trailers!r}")
    keywords = {key: value for key, value in locals().items() if key not in ("path", "mode")}
    keywords["devices"] = [os.path.abspath(device) for device in devices or ()]
    options = {
        "read_only": mode == "r",
        "devices": keywords["devices"],
        "degraded": degraded,
        "trailers": trailers,
        "page_locked": page_locked,
        "memory_bytes": _core.auto_memory() if memory == "auto" else parse_size(memory, "memory"),
        "result_pool_bytes": parse_size(result_pool, "result_pool"),
        "staging_bytes": parse_size(staging, "staging"),
        "background_fill": background_fill,
        "record_cache_bytes": parse_size(record_cache, "record_cache"),
        "use_tuning": workers is None and queue_depth is None and io_size is None,
        "worker_count": 2 if workers is None else workers,
        "queue_depth": 32 if queue_depth is None else queue_depth,
        "io_size": parse_size("1MiB" if io_size is None else io_size, "io_size"),
        "async_threads": async_threads,
        "async_copies_max": parse_size(async_copies_max, "async_copies_max"),
    }
    return Store(os.path.abspath(path), mode == "r", options, keywords, verifies(verify))


_dtype_numbers = {name: number for number, name, _ in _core.dtypes()}


def empty(shape: int | Iterable[int], dtype: torch.dtype | None = None) -> torch.Tensor:
    """An uninitialised CPU tensor in memory that goes to and from the device without a copy.

    For buffers that are used again and again: as ``out=`` of get, or filled and then put. Page-aligned from 64 KiB,
    on huge pages from 1 MiB. The memory is recycled when the tensor is gone. ``dtype`` is torch's default if not
    given.
    """
    dtype = torch.get_default_dtype() if dtype is None else dtype
    name = str(dtype).removeprefix("torch.")
    if name not in _dtype_numbers:
        raise TypeError(f"a store keeps no tensors of dtype {dtype}")
    dimensions = [shape] if isinstance(shape, int) else list(shape)
    if any(dimension < 0 for dimension in dimensions):
        raise ValueError(f"negative dimension in shape {dimensions}")
    return _core.empty(_dtype_numbers[name], dimensions)


@atexit.register
def _close_all() -> None:
    """Stores that are still open at exit are closed as if by ``with``; the background threads have ended before
    this.
    """
    for store in _stores_of_this_process():
        try:
            store.close()
        except Exception:
            logging.getLogger("tensorshelf").exception("closing %s at exit", store.path)


def _stores_of_this_process() -> Iterator[Store]:
    with contextlib.suppress(RuntimeError):
        yield from list(_open_stores)
