"""Tensors that are read when they are used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_map

from .._reading import StoredTensor
from ..errors import StoreError
from ..store import View
from .codec import Entry, Skeleton, Unread, tensor_from
from .errors import CheckpointDamagedError, about

# Functions that reach for memory below the dispatcher; __torch_function__ gives them the tensor that was read.
_TOUCHING = frozenset(
    {"numpy", "tolist", "data_ptr", "untyped_storage", "storage", "__array__", "__reduce_ex__", "__deepcopy__"}
    | {"__dlpack__", "__dlpack_device__", "item", "__repr__", "is_contiguous", "__format__", "stride"}
)


class LazyRecords:
    """The tensors of one object, each as a LazyTensor. Thread-safe.

    Holds each record's version from the start, so that all tensors are of one commit whenever they are read.
    """

    def __init__(self, view: View, prefix: str, skeleton: Skeleton, place: Callable[[str], Any]) -> None:
        self._prefix = prefix
        self._entries = skeleton.entries
        self._place = place
        self._lock = threading.Lock()
        self._made: dict[int, Any] = {}
        self._shared: dict[int, torch.Tensor] = {}
        users = [entry.record for entry in skeleton.entries]
        self._has_several_users = {record for record in users if users.count(record) > 1} if users else set()
        try:
            self._stored = [view.slice(prefix + name) for name in skeleton.records]
        except StoreError as error:
            raise about(error, checkpoint=prefix) from error

    def tensor(self, index: int) -> Any:
        entry = self._entries[index]
        if entry.kind == "storage":
            return self.read(index)
        if index not in self._made:
            self._made[index] = LazyTensor(self, index, entry)
        return self._made[index]

    def read(self, index: int) -> Any:
        """The tensor itself. Records of several tensors are kept, so that these share memory."""
        entry = self._entries[index]
        with self._lock:
            record = self._shared.get(entry.record)
        if record is None:
            record = self._read_record(entry)
            if entry.record in self._has_several_users:
                with self._lock:
                    record = self._shared.setdefault(entry.record, record)
        return tensor_from(record, entry)

    def _read_record(self, entry: Entry) -> torch.Tensor:
        from .objects import placed

        stored: StoredTensor = self._stored[entry.record]
        if stored.info.kind != "tensor":
            raise CheckpointDamagedError("its record is no tensor", checkpoint=self._prefix, tensor=entry.path)
        try:
            return placed(stored.read(), self._place(entry.device))
        except StoreError as error:
            raise about(error, checkpoint=self._prefix, tensor=entry.path) from error


class LazyTensor(Unread, torch.Tensor):
    """A tensor whose bytes are read at the first operation on it. Shape and dtype are known without.

    An operation that only reads (``model.load_state_dict``, arithmetic) leaves nothing behind: the bytes are
    read again next time. Once an operation changes the tensor or returns a view of it, the bytes stay.
    ``materialize()`` returns the plain tensor and keeps it.
    """

    _records: LazyRecords
    _index: int
    _value: torch.Tensor | None

    @staticmethod
    def __new__(cls, records: LazyRecords, index: int, entry: Entry) -> LazyTensor:
        where = records._place(entry.device)
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            tuple(entry.shape),
            strides=entry.strides and tuple(entry.strides),
            dtype=entry.torch_dtype,
            device=where if isinstance(where, torch.device) else torch.device("cpu"),
            requires_grad=entry.requires_grad,
        )
        made._records = records
        made._index = index
        made._value = None
        return made

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def materialize(self) -> torch.Tensor:
        """The plain tensor, read now if it was not yet."""
        if self._value is None:
            self._value = self._records.read(self._index)
        return self._value

    def _read(self, keep: bool) -> torch.Tensor:
        if keep or self._value is not None:
            return self.materialize()
        return self._records.read(self._index)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _TOUCHING:
            args, kwargs = tree_map(_materialized, (args, kwargs or {}))
            return func(*args, **kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        schema = func._schema
        keep = schema.is_mutable or any(result.alias_info is not None for result in schema.returns)
        if keep and _only_copied_from(func, args):
            keep = False

        def plain(value: Any) -> Any:
            return value._read(keep).detach() if isinstance(value, LazyTensor) else value

        args, kwargs = tree_map(plain, (args, kwargs or {}))
        return func(*args, **kwargs)


def _materialized(value: Any) -> Any:
    return value.materialize() if isinstance(value, LazyTensor) else value


def _only_copied_from(func: Any, args: Any) -> bool:
    """Whether the one tensor that the operation changes is not lazy: ``parameter.copy_(lazy)``."""
    changed = [
        args[i]
        for i, a in enumerate(func._schema.arguments)
        if a.alias_info and a.alias_info.is_write and i < len(args)
    ]
    return bool(changed) and not any(isinstance(value, LazyTensor) for value in changed)
