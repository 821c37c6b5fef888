"""``save_on_store``: what autograd saves for the backward pass, on the shelf until it is needed."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sys
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils.checkpoint
from torch.multiprocessing.reductions import StorageWeakRef

from .._values import parse_size
from ..errors import StoreError, StoreFullError
from ..store import Store, empty

_log = logging.getLogger("tensorshelf")
_CHECKPOINT_FILE = torch.utils.checkpoint.__file__
_off = threading.local()


@contextlib.contextmanager
def no_offload() -> Iterator[None]:
    """Within it, on this thread, nothing is offloaded: for the last layer and the loss, whose tensors are needed
    again at once.
    """
    before = getattr(_off, "on", False)
    _off.on = True
    try:
        yield
    finally:
        _off.on = before


class _Bytes:
    """The content of one packed tensor: in staging memory, on the shelf, or both. Its space goes when it dies, which
    is when the last handle does: with the graph.
    """

    __slots__ = ("__weakref__", "buffer", "forwarded", "name", "nbytes", "number", "reading", "written")

    def __init__(self, number: int, name: str, buffer: torch.Tensor) -> None:
        self.number = number
        self.name = name
        self.nbytes = buffer.nbytes
        self.buffer: torch.Tensor | None = buffer  # until it is on the shelf
        self.written: Future | None = None
        self.reading: Future | None = None  # read ahead
        self.forwarded = False


@dataclass(eq=False)
class _Handle:
    """What autograd holds in place of a tensor."""

    bytes: _Bytes
    device: torch.device
    shape: torch.Size
    strides: tuple[int, ...]
    #: shape without the repetitions of stride 0
    stored_shape: list[int]
    #: makes a DTensor of its local part
    rebuild: Callable[[torch.Tensor], torch.Tensor] | None = None


class save_on_store:
    """``with save_on_store(store):`` around a forward pass puts what autograd saves into the store until the backward
    pass asks for it. In place of ``torch.autograd.graph.save_on_cpu``.

    Use it outside and ``torch.utils.checkpoint`` inside: then one hidden state per layer goes to the shelf, and the
    rest is computed again. Other tensors cost more to store than to compute, so they are left alone by default.

    store       open for writing; the tensors are ephemeral objects, which pay for no durability and are gone when the
                process is
    which       "inputs": the inputs of checkpointed regions; "all": everything that is large enough
    predicate   called with each tensor that would be offloaded; False keeps it
    modules     whose parameters and buffers are never offloaded, also as views of other storages (FSDP). Parameters
                and leaves that require grad are never offloaded anyway
    min_bytes   smaller tensors stay where they are
    cpu         True: tensors on the CPU too, copied while the forward pass waits; else only those of accelerators
    staging     memory for tensors on their way to the shelf; the forward pass waits when it is full
    window      bytes that are read ahead in the backward pass, last in, first out
    capacity    bytes on the shelf at most, which must be free at the start of each ``with``; None: no limit
    when_full   "keep": what does not fit stays where it is, with one warning; "raise": StoreFullError

    May be entered again for each step; ``stats()`` counts over all steps. The backward pass may happen within or after
    the ``with`` block, more than once with ``retain_graph=True``. An exception within the block cancels the writes that
    have not begun and waits for the others. ``close()`` (also as the store closes) ends it; what is still on the shelf
    cannot be used afterwards.

    Only the innermost hooks of autograd apply: do not nest it in other saved-tensor hooks.
    """

    def __init__(
        self,
        store: Store,
        *,
        which: str = "inputs",
        predicate: Callable[[torch.Tensor], bool] | None = None,
        modules: torch.nn.Module | Iterable[torch.nn.Module] = (),
        min_bytes: int | str = "1MiB",
        cpu: bool = False,
        staging: int | str = "512MiB",
        window: int | str = "512MiB",
        capacity: int | str | None = None,
        when_full: str = "keep",
    ) -> None:
        if which not in ("inputs", "all"):
            raise ValueError(f"which must be 'inputs' or 'all', not {which!r}")
        if when_full not in ("keep", "raise"):
            raise ValueError(f"when_full must be 'keep' or 'raise', not {when_full!r}")
        self._store = store
        self._which = which
        self._predicate = predicate
        self._modules = [modules] if isinstance(modules, torch.nn.Module) else list(modules)
        self._min_bytes = parse_size(min_bytes, "min_bytes")
        self._cpu = cpu
        self._staging_max = parse_size(staging, "staging")
        self._window = parse_size(window, "window")
        self._capacity = None if capacity is None else parse_size(capacity, "capacity")
        self._when_full = when_full
        self._prefix = f"offload/{os.getpid()}-{uuid.uuid4().hex}/"
        self._numbers = itertools.count()
        self._changed = threading.Condition(threading.RLock())  # reentrant: handles die anywhere
        self._live: weakref.WeakValueDictionary[int, _Bytes] = weakref.WeakValueDictionary()
        self._known: dict[tuple, tuple[StorageWeakRef, weakref.ref[_Bytes]]] = {}
        self._kept_storages: set[int] = set()
        self._staged_bytes = 0
        self._stored_bytes = 0
        self._full_seen: StoreFullError | None = None
        self._warned = False
        self._counts = dict.fromkeys(
            ("packed", "bytes_written", "bytes_read", "forwarded", "deduplicated", "kept_full", "passed"), 0
        )
        self._writers = ThreadPoolExecutor(2, thread_name_prefix="tensorshelf-offload")
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="tensorshelf-fetch")
        self._stack: list[torch.autograd.graph.saved_tensors_hooks] = []
        self._streams: dict[torch.device, Any] = {}
        self._closed = False
        store._before_close.append(weakref.WeakMethod(self.close))

    def __enter__(self) -> save_on_store:
        if self._closed:
            raise ValueError("this offload is closed")
        if not self._stack:
            self._begin()
        # The hooks outlive the block with the graph, and with them this object.
        hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)
        hooks.__enter__()
        self._stack.append(hooks)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._stack.pop().__exit__(kind, *rest)
        if kind is not None:
            self._settle()

    def _begin(self) -> None:
        free = self._store.stats()["space"]["free"]
        if self._capacity is not None and self._capacity - self._stored_bytes > free:
            raise StoreFullError(f"{self._capacity} bytes are to be offloaded to, and {free} are free")
        with self._changed:
            self._full_seen = None
        self._kept_storages = {
            tensor.untyped_storage().data_ptr()
            for module in self._modules
            for tensor in itertools.chain(module.parameters(), module.buffers())
            if _has_storage(tensor)
        }

    def _settle(self) -> None:
        """After an exception: nothing is queued or in flight any more."""
        with self._changed:
            waiting = [bytes.written for bytes in self._live.values() if bytes.written is not None]
        for written in waiting:
            if not written.cancel():
                written.exception()

    # Packing, on the threads of the forward pass

    def _pack(self, tensor: torch.Tensor) -> Any:
        plain, rebuild = _local(tensor)
        if plain is None or not self._is_wanted(tensor, plain):
            self._counts["passed"] += 1
            return tensor
        core = _without_repetitions(plain)
        key = (plain.device, core.data_ptr(), core.dtype, core.shape, core.stride(), plain._version)
        known = self._find(key)
        if known is None:
            known = self._take(core)
            if known is None:
                return tensor
            with self._changed:
                self._known[key] = (StorageWeakRef(plain.untyped_storage()), weakref.ref(known))
        return _Handle(known, plain.device, plain.shape, plain.stride(), list(core.shape), rebuild)

    def _is_wanted(self, tensor: torch.Tensor, plain: torch.Tensor) -> bool:
        if getattr(_off, "on", False) or self._closed or plain.nbytes < self._min_bytes:
            return False
        if plain.device.type == "cpu" and not self._cpu:
            return False
        if self._which == "inputs" and not _in_checkpoint():
            return False
        if isinstance(tensor, torch.nn.Parameter) or (tensor.is_leaf and tensor.requires_grad):
            return False
        base = tensor._base
        if base is not None and (isinstance(base, torch.nn.Parameter) or (base.is_leaf and base.requires_grad)):
            return False
        if plain.untyped_storage().data_ptr() in self._kept_storages or _overlaps(plain):
            return False
        return self._predicate is None or self._predicate(tensor)

    def _find(self, key: tuple) -> _Bytes | None:
        """The bytes of an equal tensor. Its address counts only while its storage lives: addresses are used again."""
        with self._changed:
            found = self._known.get(key)
            if found is None:
                return None
            storage, reference = found
            known = reference()
            if storage.expired() or known is None:
                del self._known[key]
                return None
            self._counts["deduplicated"] += 1
            return known

    def _take(self, tensor: torch.Tensor) -> _Bytes | None:
        """Copies a tensor to staging and queues its write. None: it does not fit, and may stay."""
        size = tensor.nbytes
        if not self._reserve(size):
            return None
        try:
            buffer = empty(list(tensor.shape), tensor.dtype)
            copied = self._copy(buffer, tensor)
        except BaseException:
            self._release(size, stored=True)
            raise
        number = next(self._numbers)
        bytes = _Bytes(number, f"{self._prefix}{number}", buffer)
        weakref.finalize(bytes, self._drop, bytes.name, size).atexit = False
        with self._changed:
            self._live[number] = bytes
            self._counts["packed"] += 1
            bytes.written = self._writers.submit(self._write, weakref.ref(bytes), bytes.name, buffer, copied)
        bytes.written.add_done_callback(lambda _: self._release(size))
        return bytes

    def _reserve(self, size: int) -> bool:
        """Waits for staging memory. False: there is no room on the shelf."""
        with self._changed:
            full = self._full_seen
            if self._capacity is not None and self._stored_bytes + size > self._capacity:
                full = StoreFullError(f"{size} more bytes do not fit into the {self._capacity} for offloading")
            if full is not None:
                return self._is_full(full)
            while self._staged_bytes > 0 and self._staged_bytes + size > self._staging_max:
                self._changed.wait(0.1)  # so that Ctrl-C gets through
            self._staged_bytes += size
            self._stored_bytes += size
            return True

    def _is_full(self, error: StoreFullError) -> bool:
        if self._when_full == "raise":
            raise error
        self._keeps(error)
        return False

    def _keeps(self, error: StoreFullError) -> None:
        self._counts["kept_full"] += 1
        if not self._warned:
            self._warned = True
            _log.warning("activations stay in memory: %s", error)

    def _release(self, size: int, stored: bool = False) -> None:
        with self._changed:
            self._staged_bytes -= size
            if stored:
                self._stored_bytes -= size
            self._changed.notify_all()

    def _copy(self, buffer: torch.Tensor, tensor: torch.Tensor) -> Any:
        """Copies to staging: at once from the CPU; else on a stream of its own, and returns what to wait for."""
        tensor = tensor.detach()
        if tensor.device.type != "cuda":
            buffer.copy_(tensor)
            return None
        device = tensor.device
        stream = self._streams.get(device)
        if stream is None:
            stream = self._streams[device] = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            buffer.copy_(tensor, non_blocking=True)
            event = torch.cuda.Event()
            event.record(stream)
        return event, tensor  # the tensor's memory must not be used again before the event

    def _write(self, reference: weakref.ref[_Bytes], name: str, buffer: torch.Tensor, copied: Any) -> None:
        if copied is not None:
            copied[0].synchronize()
            copied = None
        if reference() is None:
            return  # the graph is gone already
        try:
            self._store.put(name, buffer, ephemeral=True)
        except StoreFullError as error:
            with self._changed:
                self._full_seen = error
                if self._when_full == "keep":
                    self._keeps(error)
            return  # the buffer stays: the backward pass takes it from there
        bytes = reference()
        with self._changed:
            self._counts["bytes_written"] += buffer.nbytes
            if bytes is not None:
                bytes.buffer = None
        if bytes is None:
            self._delete(name)  # _drop came too early for it

    def _drop(self, name: str, size: int) -> None:
        """When the last handle of some bytes is gone."""
        with self._changed:
            self._stored_bytes -= size
            self._changed.notify_all()
        if self._closed:
            return
        with contextlib.suppress(RuntimeError):  # the interpreter ends, and the objects with it
            self._writers.submit(self._delete, name)

    def _delete(self, name: str) -> None:
        with contextlib.suppress(StoreError):
            self._store.delete(name, missing_ok=True)

    # Unpacking, on autograd's threads

    def _unpack(self, packed: Any) -> torch.Tensor:
        if not isinstance(packed, _Handle):
            return packed
        stored = self._fetch(packed.bytes)
        self._read_ahead(packed.bytes.number)
        value = _restored(stored, packed)
        return value if packed.rebuild is None else packed.rebuild(value)

    def _fetch(self, bytes: _Bytes) -> torch.Tensor:
        with self._changed:
            buffer, reading = bytes.buffer, bytes.reading
            bytes.reading = None
            if buffer is not None:
                if bytes.written is not None and bytes.written.cancel():
                    bytes.written = None  # it stays in memory until its handle dies
                self._counts["forwarded"] += 1
                return buffer.clone()  # another unpack may come
        if reading is not None:
            return reading.result()
        return self._read(bytes.name, bytes.nbytes)

    def _read(self, name: str, size: int) -> torch.Tensor:
        value = self._store.get(name)
        with self._changed:
            self._counts["bytes_read"] += size
        return value

    def _read_ahead(self, number: int) -> None:
        with self._changed:
            room = self._window
            for earlier in sorted((n for n in self._live if n < number), reverse=True):
                bytes = self._live.get(earlier)
                if bytes is None:
                    continue
                room -= bytes.nbytes
                if room < 0:
                    return
                if bytes.buffer is None and bytes.reading is None:
                    bytes.reading = self._readers.submit(self._read, bytes.name, bytes.nbytes)

    # The whole

    def stats(self) -> dict[str, int]:
        """Counts since it was made: bytes_written (which wears the device), bytes_read, and tensors by what became of
        them; bytes on the shelf and in staging now.
        """
        with self._changed:
            return {**self._counts, "stored_bytes": self._stored_bytes, "staged_bytes": self._staged_bytes}

    def close(self) -> None:
        """Waits for what is in flight and drops everything. Twice is fine."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
        self._writers.shutdown(wait=True, cancel_futures=True)
        self._readers.shutdown(wait=True, cancel_futures=True)
        with contextlib.suppress(StoreError):
            self._store.delete_prefix(self._prefix)


def _in_checkpoint() -> bool:
    """Whether torch.utils.checkpoint is saving a region's inputs: its code is among the nearest callers."""
    frame = sys._getframe(2)
    for _ in range(6):
        if frame is None:
            return False
        if frame.f_code.co_filename == _CHECKPOINT_FILE:
            return True
        frame = frame.f_back
    return False


def _has_storage(tensor: torch.Tensor) -> bool:
    plain, _ = _local(tensor)
    return plain is not None


def _local(tensor: torch.Tensor) -> tuple[torch.Tensor | None, Callable[[torch.Tensor], torch.Tensor] | None]:
    """(a plain tensor with the bytes, None or how to get back from it); (None, None) where there is none."""
    if type(tensor) in (torch.Tensor, torch.nn.Parameter):
        ordinary = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
        return (tensor if ordinary and tensor.device.type != "meta" else None), None
    if torch.distributed.is_available():
        from torch.distributed.tensor import DTensor

        if isinstance(tensor, DTensor):
            mesh, placements, shape, strides = tensor.device_mesh, tensor.placements, tensor.shape, tensor.stride()

            def rebuild(local: torch.Tensor) -> torch.Tensor:
                return DTensor.from_local(local, mesh, placements, run_check=False, shape=shape, stride=strides)

            return tensor.to_local(), rebuild
    return None, None


def _without_repetitions(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with dimensions of stride 0 shrunk to 1."""
    for dimension, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(dimension, 0, 1)
    return tensor


def _overlaps(tensor: torch.Tensor) -> bool:
    """Whether different indices mean one place, other than by stride 0."""
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride > 0:
            if stride <= reach:
                return True
            reach += stride * (size - 1)
    return False


def _restored(stored: torch.Tensor, handle: _Handle) -> torch.Tensor:
    """The tensor as it was: on its device, with its strides."""
    value = stored.to(handle.device, non_blocking=True)
    strides = [stride or 1 for stride in handle.strides]
    if value.stride() != handle.strides:
        value = torch.empty_strided(handle.stored_shape, strides, dtype=value.dtype, device=value.device).copy_(value)
    if list(handle.shape) != handle.stored_shape or value.stride() != handle.strides:
        value = value.as_strided(handle.shape, handle.strides)
    return value
