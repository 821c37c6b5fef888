"""``save`` and ``load``: an object in a store instead of ``torch.save`` and ``torch.load``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .._reading import Reader
from ..errors import NameNotFoundError, StoreError, StoreFullError, UnsupportedTensorError
from ..store import Store, Transaction, View
from .codec import SKELETON, Dump, Entry, Skeleton, dump, parse, tensor_from, walk
from .errors import CheckpointDamagedError, CheckpointMismatchError, CheckpointNotFoundError, about
from .lazy import LazyRecords

#: tensors on other devices are copied to memory this many bytes at a time
_WINDOW_BYTES = 256 << 20


@dataclass(frozen=True)
class Saved:
    """What a save did."""

    prefix: str
    #: number of the commit that made it durable
    commit: int
    #: records of tensors
    tensors: int
    #: bytes of the object
    nbytes: int
    #: how many of the records were stored already, byte for byte, and were not written again
    unchanged: int


def save(obj: Any, store: Store, prefix: str, *, skip_unchanged: bool = True, snapshot: str | None = None) -> Saved:
    """Stores any picklable object, in place of ``torch.save``: all of it with one commit, or nothing.

    obj             anything that pickle takes; its tensors become ordinary records, ``prefix`` and their path in
                    the object: {"model": {"w": t}} saved under "run/" has a record "run/model/w". Tensors that share
                    memory still do when they are loaded. A view of a larger tensor that is not in the object takes
                    the room of the view. Attributes and gradients of tensors are not kept
    prefix          the object's name; the next save under it replaces it. What else lies under the prefix stays
    skip_unchanged  compare each tensor's fingerprint with what is stored under its name, and write only what differs
    snapshot        a second prefix that is given the same object in the same commit, without copying bytes: save
                    every step under one prefix with ``snapshot=f"step-{n}/"``, and each step costs what changed

    Must not change until the call returns. Raises UnsupportedTensorError (which names the tensor),
    CheckpointFullError, TensorChangedError, whatever pickle raises, and the errors of ``Store.put``. The store is then
    as before.
    """
    taken = dump(obj, max(prefix, snapshot or "", key=len))
    with store.transaction() as tx:
        stage(tx, store, prefix, taken, skip_unchanged=skip_unchanged, snapshot=snapshot)
        commit(tx, prefix)
    return saved_of(tx, prefix, taken)


def stage(
    tx: Transaction, store: Store, prefix: str, taken: Dump, *, skip_unchanged: bool, snapshot: str | None
) -> None:
    """Writes a dump within a transaction. ``commit`` ends it."""
    for window in windows(taken.records.items()):
        put_records(tx, prefix, window, skip_unchanged)
    finish(tx, store, prefix, taken, snapshot)


def put_records(tx: Transaction, prefix: str, records: Mapping[str, torch.Tensor], skip_unchanged: bool) -> None:
    try:
        tx.put_many(records, prefix=prefix, skip_unchanged=skip_unchanged)
    except UnsupportedTensorError as error:
        raise UnsupportedTensorError(f"checkpoint {prefix!r}: {error}") from error
    except StoreError as error:
        raise _named(error, prefix) from error


def finish(tx: Transaction, store: Store, prefix: str, taken: Dump, snapshot: str | None) -> None:
    """What follows the records. Names are dropped last: after a drop a transaction compares nothing any more."""
    tx.put(prefix + SKELETON, taken.skeleton, metadata={"format": "tensorshelf.object/1"})
    drop_old(tx, store, prefix, taken.records)
    if snapshot is None or snapshot == prefix:
        return
    drop_old(tx, store, snapshot, taken.records)
    for name in (*taken.records, SKELETON):
        tx.clone(prefix + name, snapshot + name, replace=True)


def drop_old(tx: Transaction, store: Store, prefix: str, kept: Iterable[str]) -> None:
    """Drops the records of the object that is there, except ``kept``. Other names under the prefix are not its own."""
    data = store.get(prefix + SKELETON, None)
    if data is None:
        return
    try:
        old = parse(data).records
    except CheckpointDamagedError:
        return  # its records cannot be told from others'
    kept = set(kept)
    for name in old:
        if name not in kept:
            tx.delete(prefix + name, missing_ok=True)


def commit(tx: Transaction, prefix: str) -> None:
    try:
        tx.commit()
    except StoreError as error:
        raise _named(error, prefix) from error


def saved_of(tx: Transaction, prefix: str, taken: Dump) -> Saved:
    assert tx.result is not None
    return Saved(prefix, tx.result.commit, len(taken.records), taken.nbytes, tx.result.unchanged)


def _named(error: StoreError, prefix: str) -> StoreError:
    return about(error, checkpoint=prefix) if isinstance(error, StoreFullError) else error


def windows(records: Iterable[tuple[str, torch.Tensor]], bytes_max: int = _WINDOW_BYTES) -> Iterator[dict]:
    """The records in runs: all CPU tensors in one, those of other devices up to ``bytes_max`` at a time."""
    here: dict[str, torch.Tensor] = {}
    away: dict[str, torch.Tensor] = {}
    for name, tensor in records:
        (here if tensor.device.type == "cpu" else away)[name] = tensor
    if here:
        yield here
    part: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in away.items():
        if part and size + tensor.nbytes > bytes_max:
            yield part
            part, size = {}, 0
        part[name] = tensor
        size += tensor.nbytes
    if part:
        yield part


# Loading

MapLocation = Callable[[torch.UntypedStorage, str], Any] | torch.device | str | Mapping[str, str] | None


def load(
    store: Store | View,
    prefix: str,
    map_location: MapLocation = None,
    weights_only: bool = True,
    into: Any = None,
    *,
    lazy: bool = False,
) -> Any:
    """The object that ``save`` stored, in place of ``torch.load``. All of it is of one commit.

    map_location  where tensors go, as for ``torch.load``: a device, a dict of device names, or a function of a
                  storage and the name of its device. None: where they were
    weights_only  True: the object may consist of tensors, containers and plain values, and of what was declared
                  harmless with ``torch.serialization.add_safe_globals``; anything else is UnsafeObjectError. False:
                  the object may run any code while it is loaded
    into          an object like the one that was saved (nested dicts and lists): its tensors are read into where
                  they are, by path, and are in the result. Shape and dtype must be equal
    lazy          True: tensors are read when they are first used. They hold their version of the bytes: later saves
                  do not change what they read. The store must stay open until then

    Raises CheckpointNotFoundError, CheckpointMismatchError (names the tensor), CheckpointDamagedError,
    UnsafeObjectError, ClosedError.
    """
    if lazy and into is not None:
        raise ValueError("lazy=True excludes into=")
    if isinstance(store, View):
        return _load(store, prefix, map_location, weights_only, into, lazy)
    with store.view() as view:
        return _load(view, prefix, map_location, weights_only, into, lazy)


def _load(view: View, prefix: str, map_location: MapLocation, weights_only: bool, into: Any, lazy: bool) -> Any:
    skeleton = read_skeleton(view, prefix)
    place = _placement(map_location)
    if lazy:
        records: Any = LazyRecords(view, prefix, skeleton, place)
        return skeleton.build(records.tensor, weights_only)
    targets = _targets(skeleton, into) if into is not None else {}
    tensors = _read(view, prefix, skeleton, place, targets)
    return skeleton.build(tensors.__getitem__, weights_only)


def read_skeleton(view: Reader, prefix: str) -> Skeleton:
    try:
        data = view.get(prefix + SKELETON)
        if not isinstance(data, bytes):
            raise CheckpointDamagedError(f"{prefix + SKELETON!r} is no description of an object", checkpoint=prefix)
        return parse(data)
    except NameNotFoundError as error:
        raise CheckpointNotFoundError("there is no such object in the store", checkpoint=prefix) from error
    except StoreError as error:
        raise about(error, checkpoint=prefix) from error


def _targets(skeleton: Skeleton, into: Any) -> dict[int, torch.Tensor]:
    """The tensor of ``into`` for each entry. Raises CheckpointMismatchError where the two do not fit."""
    entries = {entry.path: index for index, entry in enumerate(skeleton.entries)}
    targets: dict[int, torch.Tensor] = {}
    for path, tensor in walk(into):
        index = entries.get(path)
        if index is None:
            raise CheckpointMismatchError("the checkpoint has no such tensor", tensor=path)
        entry = skeleton.entries[index]
        if entry.shape != list(tensor.shape) or entry.torch_dtype != tensor.dtype:
            wanted = f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
            raise CheckpointMismatchError(
                f"{entry.dtype}{entry.shape} is stored, to be loaded into {wanted}", tensor=path
            )
        targets[index] = tensor
    return targets


def _placement(map_location: MapLocation) -> Callable[[str], Any]:
    """Maps the name of a device to a device, or to a function that moves a storage."""
    if map_location is None:
        return torch.device
    if isinstance(map_location, str | torch.device):
        device = torch.device(map_location)
        return lambda _: device
    if isinstance(map_location, Mapping):
        return lambda name: torch.device(map_location.get(name, name))
    if callable(map_location):
        return lambda name: _Mover(map_location, name)
    raise TypeError(f"map_location must be a device, a dict or a function, not {type(map_location).__name__}")


class _Mover:
    def __init__(self, function: Callable[[torch.UntypedStorage, str], Any], name: str) -> None:
        self._function = function
        self._name = name

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        moved = self._function(tensor.untyped_storage(), self._name)
        if moved is None:
            return tensor.to(self._name)
        storage = moved if isinstance(moved, torch.UntypedStorage) else moved.untyped_storage()
        found = torch.empty(0, dtype=tensor.dtype, device=storage.device)
        return found.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())


def placed(record: torch.Tensor, where: Any) -> torch.Tensor:
    return where(record) if isinstance(where, _Mover) else record.to(where)


def _read(
    view: View,
    prefix: str,
    skeleton: Skeleton,
    place: Callable[[str], Any],
    targets: dict[int, torch.Tensor],
) -> list[Any]:
    members: dict[int, list[int]] = {}
    for index, entry in enumerate(skeleton.entries):
        members.setdefault(entry.record, []).append(index)
    direct = {
        record: targets[indices[0]].detach()
        for record, indices in members.items()
        if len(indices) == 1 and indices[0] in targets and _reads_in_place(skeleton.entries[indices[0]])
    }
    others = [record for record in members if record not in direct]
    try:
        view.get_many(
            [prefix + skeleton.records[record] for record in direct],
            out=list(direct.values()),
        )
        values = view.get_many([prefix + skeleton.records[record] for record in others])
    except StoreError as error:
        raise about(error, checkpoint=prefix, tensor=_tensor_of_error(error, prefix)) from error
    result: list[Any] = [None] * len(skeleton.entries)
    for record in direct:
        result[members[record][0]] = targets[members[record][0]]
    for record, value in zip(others, values.values(), strict=True):
        _take_apart(value, prefix, members[record], skeleton.entries, place, targets, result)
    return result


def _reads_in_place(entry: Entry) -> bool:
    return entry.offset == 0 and entry.strides is None and entry.kind != "storage"


def _tensor_of_error(error: StoreError, prefix: str) -> str | None:
    name = getattr(error, "name", None)
    return name.removeprefix(prefix) if isinstance(name, str) else None


def _take_apart(
    record: Any,
    prefix: str,
    indices: list[int],
    entries: list[Entry],
    place: Callable[[str], Any],
    targets: dict[int, torch.Tensor],
    result: list[Any],
) -> None:
    """The tensors of one record; those that have a target are copied there."""
    if not isinstance(record, torch.Tensor):
        raise CheckpointDamagedError("its record is no tensor", checkpoint=prefix, tensor=entries[indices[0]].path)
    if any(index not in targets for index in indices):
        record = placed(record, place(entries[indices[0]].device))
    for index in indices:
        try:
            value = tensor_from(record, entries[index])
        except CheckpointDamagedError as error:
            raise about(error, checkpoint=prefix) from error
        if index in targets:
            with torch.no_grad():
                targets[index].copy_(value)
            value = targets[index]
        result[index] = value


def delete(store: Store, prefix: str) -> None:
    """Drops the object that was saved under ``prefix``, in one commit. What else lies under the prefix stays.

    Raises CheckpointNotFoundError.
    """
    records = read_skeleton(store, prefix).records
    with store.transaction() as tx:
        for name in (*records, SKELETON):
            tx.delete(prefix + name, missing_ok=True)
