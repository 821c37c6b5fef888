"""One object, many tensors: the object's pickle with its tensors taken out, and the tensors as plain records.

A dump is a *skeleton* (bytes) and *records* (tensors by name). The skeleton is ::

    u64 length of the table, little-endian | table, JSON | pickle

    table: {"format": 1,
            "records": [name, ...],
            "tensors": [{"record": index, "path": where it was in the object, "dtype", "shape",
                         "strides": elements or null (packed), "offset": bytes in the record,
                         "kind": "tensor" | "parameter" | "storage", "requires_grad", "device"}, ...]}

so what the object consists of can be read without unpickling. In the pickle each tensor is a persistent id
``("tensor", index into the table)``; one Python object has one index, so identity survives. Tensors that share
memory share a record; then, and for overlapping strides, the record is the shared range of bytes.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from .allowed import unpickle
from .errors import CheckpointDamagedError

#: name of the skeleton's record, after the prefix
SKELETON = ".object"
_FORMAT = 1
_NAME_BYTES_MAX = 4096


@dataclass
class Entry:
    """One tensor of the object: which bytes of which record it is."""

    record: int
    path: str
    dtype: str
    shape: list[int]
    strides: list[int] | None
    offset: int
    kind: str
    requires_grad: bool
    device: str

    @property
    def torch_dtype(self) -> torch.dtype:
        found = getattr(torch, self.dtype, None)
        if not isinstance(found, torch.dtype):
            raise CheckpointDamagedError(f"this torch has no dtype {self.dtype!r}", tensor=self.path)
        return found


@dataclass
class Dump:
    """What ``dump`` makes. The records alias the object's memory: store or copy them before it changes."""

    skeleton: bytes
    records: dict[str, torch.Tensor]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.records.values()) + len(self.skeleton)


def walk(obj: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """(path, tensor) of the tensors in nested dicts, lists and tuples: {"model": {"w": t}} gives ("model/w", t)."""
    seen: set[int] = set()
    stack: list[tuple[str, Any]] = [("", obj)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, torch.Tensor):
            yield path, value
            continue
        if isinstance(value, Mapping):
            children = [(key, child) for key, child in value.items() if isinstance(key, str | int)]
        elif isinstance(value, list | tuple):
            children = list(enumerate(value))
        else:
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        stack.extend((f"{path}/{key}" if path else str(key), child) for key, child in reversed(children))


class Unread:
    """A mark of tensors that stand for bytes not read yet."""

    def materialize(self) -> torch.Tensor:
        raise NotImplementedError


class _Collector(pickle.Pickler):
    """Pickles the object and keeps its tensors, each Python object once."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors: list[Any] = []
        self.found: list[Any] = []  # the objects in the graph; what they stand for is in `tensors`
        self._index: dict[int, int] = {}

    def persistent_id(self, obj: Any) -> tuple[str, int] | None:
        if not isinstance(obj, torch.Tensor | torch.UntypedStorage):
            return None
        index = self._index.get(id(obj))
        if index is None:
            index = self._index[id(obj)] = len(self.tensors)
            self.found.append(obj)
            self.tensors.append(obj.materialize() if isinstance(obj, Unread) else obj)
        return ("tensor", index)


def dump(obj: Any, prefix: str = "") -> Dump:
    """Takes an object apart. ``prefix`` is only for the limit on the length of names.

    Tensors that a store cannot keep are in the records as they are; the store names what is wrong with them.
    """
    file = io.BytesIO()
    collector = _Collector(file)
    collector.dump(obj)
    paths = {id(tensor): path for path, tensor in reversed(list(walk(obj)))}
    names = _Names(prefix)
    chosen = [names.of(paths.get(id(tensor), ""), index) for index, tensor in enumerate(collector.found)]
    records: dict[str, torch.Tensor] = {}
    entries: list[Entry | None] = [None] * len(chosen)
    for group in _groups(collector.tensors):
        name, record, offsets = _record_of(group, collector.tensors, chosen)
        for index in group:
            entries[index] = _entry(collector.tensors[index], chosen[index], len(records), offsets)
        records[name] = record
    table = {
        "format": _FORMAT,
        "records": list(records),
        "tensors": [asdict(entry) for entry in entries if entry is not None],
    }
    text = json.dumps(table, separators=(",", ":")).encode()
    return Dump(len(text).to_bytes(8, "little") + text + file.getvalue(), records)


class _Names:
    """Record names, unique within a dump: the path where there is a good one, else "~" and a number."""

    def __init__(self, prefix: str) -> None:
        self._room = _NAME_BYTES_MAX - len(prefix.encode()) - 16
        self._used = {SKELETON}

    def of(self, path: str, index: int) -> str:
        try:
            fits = 0 < len(path.encode()) <= self._room
        except UnicodeEncodeError:
            fits = False
        name = path if fits else f"~{index}"
        while name in self._used:
            name += f"~{index}"
        self._used.add(name)
        return name


def _plain(value: Any) -> bool:
    """Whether the value has one storage whose bytes are its content."""
    return isinstance(value, torch.UntypedStorage) or (
        type(value) in (torch.Tensor, torch.nn.Parameter)
        and value.layout == torch.strided
        and value.device.type != "meta"
        and not (value.is_quantized or value.is_nested or value.is_conj() or value.is_neg())
        and not torch._C._functorch.is_functorch_wrapped_tensor(value)
    )


def _groups(tensors: list[Any]) -> list[list[int]]:
    """Indices of tensors that share memory, in order of their first."""
    groups: dict[Any, list[int]] = {}
    for index, value in enumerate(tensors):
        key: Any = ("alone", index)
        if _plain(value):
            storage = value if isinstance(value, torch.UntypedStorage) else value.untyped_storage()
            if storage.nbytes() > 0:
                key = (str(storage.device), storage.data_ptr())
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def _span(value: Any) -> tuple[int, int]:
    """First byte and end of the part of its storage that a tensor uses."""
    if isinstance(value, torch.UntypedStorage):
        return 0, value.nbytes()
    begin = value.storage_offset() * value.itemsize
    return begin, begin + _end(list(value.shape), list(value.stride())) * value.itemsize


def _record_of(group: list[int], tensors: list[Any], names: list[str]) -> tuple[str, torch.Tensor, int | None]:
    """(name, record, first byte of the storage that the record holds; None where the record is the packed tensor)"""
    first = tensors[group[0]]
    if not _plain(first):
        return names[group[0]], first, None
    begin = min(_span(tensors[index])[0] for index in group)
    end = max(_span(tensors[index])[1] for index in group)
    for index in group:
        value = tensors[index]
        if isinstance(value, torch.Tensor) and value.is_contiguous() and _span(value) == (begin, end):
            return names[index], value.detach(), None if len(group) == 1 else begin
    if len(group) == 1 and isinstance(first, torch.Tensor) and first.nbytes <= end - begin:
        return names[group[0]], first.detach(), None
    return names[group[0]], _flat(group, tensors, begin, end), begin


def _flat(group: list[int], tensors: list[Any], begin: int, end: int) -> torch.Tensor:
    """The bytes [begin, end) of the storage as a 1-D tensor, of the tensors' dtype if they have one in common."""
    first = tensors[group[0]]
    storage = first if isinstance(first, torch.UntypedStorage) else first.untyped_storage()
    dtypes = {tensors[i].dtype if isinstance(tensors[i], torch.Tensor) else torch.uint8 for i in group}
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.uint8
    flat = torch.empty(0, dtype=dtype, device=storage.device)
    return flat.set_(storage, begin // dtype.itemsize, ((end - begin) // dtype.itemsize,), (1,))


def _entry(value: Any, path: str, record: int, first_byte: int | None) -> Entry:
    if isinstance(value, torch.UntypedStorage):
        return Entry(record, path, "uint8", [value.nbytes()], None, 0, "storage", False, str(value.device))
    kind = "parameter" if isinstance(value, torch.nn.Parameter) else "tensor"
    strides = None
    if _plain(value) and not value.is_contiguous() and (first_byte is not None or _is_dense(value)):
        strides = list(value.stride())
    offset = 0 if first_byte is None else value.storage_offset() * value.itemsize - first_byte
    dtype = str(value.dtype).removeprefix("torch.")
    shape = [] if value.is_nested else list(value.shape)
    return Entry(record, path, dtype, shape, strides, offset, kind, value.requires_grad, str(value.device))


def _is_dense(value: torch.Tensor) -> bool:
    """Whether the elements fill their span, each place once: only the order differs from a packed tensor."""
    begin, end = _span(value)
    return value.nbytes == end - begin


# Reading


@dataclass
class Skeleton:
    """A parsed skeleton. ``build`` puts the object together from its tensors."""

    records: list[str]
    entries: list[Entry]
    pickled: bytes

    def build(self, tensor_of: Callable[[int], Any], weights_only: bool) -> Any:
        def persistent_load(key: Any) -> Any:
            if not (isinstance(key, tuple) and len(key) == 2 and key[0] == "tensor"):
                raise CheckpointDamagedError(f"the object has an unknown reference {key!r}")
            index = key[1]
            if not isinstance(index, int) or not 0 <= index < len(self.entries):
                raise CheckpointDamagedError(f"the object refers to tensor {index!r} of {len(self.entries)}")
            return tensor_of(index)

        return unpickle(self.pickled, persistent_load, weights_only)


def parse(data: bytes) -> Skeleton:
    """Takes a skeleton apart. Raises CheckpointDamagedError; believes nothing that it has not checked."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise CheckpointDamagedError("the object's description is cut short")
    try:
        table = json.loads(data[8 : 8 + length])
        if table["format"] != _FORMAT:
            raise CheckpointDamagedError(
                f"the object has format {table['format']!r}; this version reads format {_FORMAT}"
            )
        records = [str(name) for name in table["records"]]
        entries = [Entry(**entry) for entry in table["tensors"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointDamagedError(f"the object's description cannot be read: {error}") from error
    for entry in entries:
        _check(entry, len(records))
    return Skeleton(records, entries, data[8 + length :])


def _check(entry: Entry, record_count: int) -> None:
    numbers = [entry.record, *entry.shape, *(entry.strides or ())]
    if not all(isinstance(number, int) and number >= 0 for number in numbers) or entry.record >= record_count:
        raise CheckpointDamagedError("its description has impossible numbers", tensor=str(entry.path))
    if entry.strides is not None and len(entry.strides) != len(entry.shape):
        raise CheckpointDamagedError("its strides do not fit its shape", tensor=str(entry.path))
    if entry.kind not in ("tensor", "parameter", "storage") or not isinstance(entry.offset, int):
        raise CheckpointDamagedError("its description is of no known kind", tensor=str(entry.path))


def tensor_from(record: torch.Tensor, entry: Entry) -> Any:
    """The tensor of an entry, on the record's memory (except a packed record that had other strides)."""
    dtype = entry.torch_dtype
    whole = entry.offset == 0 and record.dtype == dtype and list(record.shape) == entry.shape
    if entry.kind == "storage":
        return record.untyped_storage() if record.storage_offset() == 0 else record.clone().untyped_storage()
    if whole and entry.strides is None:
        found = record.view(record.shape)
    elif whole and record.numel() > 0 and _end(entry.shape, entry.strides) == record.numel():
        found = torch.empty_strided(entry.shape, entry.strides, dtype=dtype, device=record.device).copy_(record)
    else:
        found = _view_of(record, entry, dtype)
    if entry.kind == "parameter":
        return torch.nn.Parameter(found, requires_grad=entry.requires_grad)
    return found.requires_grad_(entry.requires_grad)


def _view_of(record: torch.Tensor, entry: Entry, dtype: torch.dtype) -> torch.Tensor:
    strides = entry.strides if entry.strides is not None else _packed(entry.shape)
    end = entry.offset + _end(entry.shape, strides) * dtype.itemsize
    first_byte = record.storage_offset() * record.itemsize + entry.offset
    if not record.is_contiguous() or entry.offset < 0 or end > record.nbytes or first_byte % dtype.itemsize:
        raise CheckpointDamagedError(
            f"bytes {entry.offset} to {end} are not all in its record of {record.nbytes} bytes", tensor=entry.path
        )
    found = torch.empty(0, dtype=dtype, device=record.device)
    return found.set_(record.untyped_storage(), first_byte // dtype.itemsize, tuple(entry.shape), tuple(strides))


def _end(shape: list[int], strides: list[int]) -> int:
    """Elements from the first to the last of a tensor, both counted."""
    return 0 if 0 in shape else 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def _packed(shape: list[int]) -> list[int]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return strides[::-1]
