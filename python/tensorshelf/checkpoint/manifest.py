"""Which checkpoints a root has: manifests, what they refer to, and the removal of what nothing refers to.

A rank's save puts its tensors into its own store under ``data/<token>/``, with a token of its own, in one commit.
Nobody sees them until a manifest names the tokens:

- saved with collectives: one manifest, in the store of rank 0, written last, by one commit. It makes the
  checkpoint visible on all ranks or on none.
- saved without collectives: each rank writes a part, and the checkpoint is there when all parts of one save are.

Names in a rank's store::

    live/<item>                    the newest version of each item, for recognising what did not change
    data/<token>/<item>            the items of one save: the same objects
    token/<token>                  JSON: which checkpoint, which process
    manifest/<id>                  JSON; rank 0 only
    metadata/<id>, records/<id>    DCP's Metadata: pickled, and as JSON for readers that never unpickle
    part/<key>/<id>, part-metadata/<key>/<id>, part-records/<key>/<id>      the same of a part

``latest`` and the order of the list are the order of the commits.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .._reading import Reader
from ..errors import StoreError, StoreLockedError, StoreNotFoundError
from ..store import Store, Transaction
from . import roots
from .errors import CheckpointDamagedError, CheckpointNotFoundError, about


@dataclass(frozen=True)
class CheckpointInfo:
    """One complete checkpoint under a root."""

    id: str
    #: nanoseconds since the Unix epoch; rises from each checkpoint to the next
    saved_ns: int
    #: how many ranks saved it
    world_size: int
    #: bytes of all its items
    nbytes: int
    #: the token of each rank that has items
    tokens: dict[int, str]
    #: None: saved with collectives; else the key that its parts have in common
    key: str | None = None

    def to_json(self) -> bytes:
        fields = {"format": 1, **self.__dict__, "tokens": {str(rank): token for rank, token in self.tokens.items()}}
        return json.dumps(fields).encode()

    @staticmethod
    def from_json(data: bytes, name: str) -> CheckpointInfo:
        try:
            fields = json.loads(data)
            if fields.pop("format") != 1:
                raise ValueError("it has another format than 1")
            fields["tokens"] = {int(rank): token for rank, token in fields["tokens"].items()}
            return CheckpointInfo(**fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointDamagedError(f"{name!r} cannot be read: {error}") from error


# Finding


def _manifests(store: Reader) -> list[CheckpointInfo]:
    return [CheckpointInfo.from_json(data, f"manifest/{i}") for i, data in store.get_many(prefix="manifest/").items()]


def _parts(store: Reader) -> list[CheckpointInfo]:
    return [CheckpointInfo.from_json(data, f"part/{i}") for i, data in store.get_many(prefix="part/").items()]


def _complete_parts(root: str, own: list[CheckpointInfo], rank: int) -> list[CheckpointInfo]:
    """Those of a rank's parts whose other parts are all there, as wholes. Opens the other ranks' stores only if there
    are parts.
    """
    if not own:
        return []
    others: dict[int, dict[tuple, CheckpointInfo]] = {}
    for other in range(max(part.world_size for part in own)):
        if other != rank:
            with contextlib.suppress(StoreNotFoundError), roots.reading(root, other) as store:
                others[other] = {(part.key, part.id): part for part in _parts(store)}
    found = []
    for part in own:
        parts = [others.get(r, {}).get((part.key, part.id)) for r in range(part.world_size) if r != rank]
        if None not in parts:
            found.append(_whole([part, *parts]))
    return found


def _whole(parts: list[CheckpointInfo]) -> CheckpointInfo:
    tokens = {rank: token for part in parts for rank, token in part.tokens.items()}
    first = parts[0]
    saved_ns = max(part.saved_ns for part in parts)
    return CheckpointInfo(first.id, saved_ns, first.world_size, sum(p.nbytes for p in parts), tokens, first.key)


def complete(root: str) -> list[CheckpointInfo]:
    """All complete checkpoints in order, the newest of each id. Empty where there is no root."""
    root = os.fspath(root)
    try:
        with roots.reading(root, 0) as store:
            found = _manifests(store)
            parts = _parts(store)
    except StoreNotFoundError:
        return []
    found += _complete_parts(root, parts, 0)
    newest: dict[str, CheckpointInfo] = {}
    for info in sorted(found, key=lambda info: info.saved_ns):
        newest.pop(info.id, None)
        newest[info.id] = info
    return list(newest.values())


def find(root: str, checkpoint: str) -> CheckpointInfo:
    """Raises CheckpointNotFoundError, which says what there is instead."""
    infos = complete(root)
    for info in infos:
        if info.id == checkpoint:
            return info
    raise CheckpointNotFoundError(_why_missing(root, checkpoint, infos), checkpoint=checkpoint)


def _why_missing(root: str, checkpoint: str, infos: list[CheckpointInfo]) -> str:
    for rank in roots.ranks_of(root):
        with roots.reading(root, rank) as store:
            for data in store.get_many(prefix="token/").values():
                if json.loads(data).get("id") == checkpoint:
                    return f"it is incomplete under {root}: rank {rank} has data of it, but the save did not finish"
    names = ", ".join(repr(info.id) for info in infos[-5:])
    return f"there is no such checkpoint under {root}; " + (f"the newest are {names}" if infos else "there is none")


def list_checkpoints(root: str | os.PathLike[str]) -> list[CheckpointInfo]:
    """The complete checkpoints under a root, oldest first. Empty where there is none."""
    return complete(os.path.abspath(root))


def latest(root: str | os.PathLike[str]) -> str | None:
    """The id of the newest complete checkpoint, or None."""
    infos = list_checkpoints(root)
    return infos[-1].id if infos else None


# Tokens


def new_token() -> str:
    return f"{time.time_ns():016x}-{uuid.uuid4().hex[:8]}"


_lock = threading.Lock()
_under_way: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()  # of this process: saver -> token


def begin(saver: Any, token: str) -> None:
    """The saver's token is spared from collection until its next save, or until the saver is gone."""
    with _lock:
        _under_way[saver] = token


def mark(tx: Transaction, token: str, checkpoint: str) -> None:
    """Writes down whose token it is, with the data."""
    text = json.dumps({"id": checkpoint, "host": socket.gethostname(), "process": _process_name(os.getpid())})
    tx.put(f"token/{token}", text.encode())


def _process_name(pid: int) -> str | None:
    """A name of a process that no later one has; None if there is no such process."""
    with contextlib.suppress(OSError, IndexError):
        with open(f"/proc/{pid}/stat") as file:
            start_ticks = file.read().rpartition(")")[2].split()[19]
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{pid} {start_ticks} {file.read().strip()}"
    return None


def _may_be_under_way(mark: dict[str, Any]) -> bool:
    """Whether the process that saved this lives; it may yet see the checkpoint completed. Its own are known."""
    name = mark.get("process")
    if mark.get("host") != socket.gethostname() or not isinstance(name, str):
        return False
    pid = int(name.split()[0])
    return pid != os.getpid() and _process_name(pid) == name


def drop_token(tx: Transaction, token: str) -> None:
    tx.delete_prefix(f"data/{token}/")
    tx.delete(f"token/{token}", missing_ok=True)


# Collection

_looked: set[tuple[int, str, int]] = set()  # (process, root, rank): stores that were searched since the start


def collect(store: Store, root: str, rank: int) -> int:
    """Deletes what no checkpoint refers to in a rank's store, which is open for writing. Returns how many saves.

    Always those that removal left for this rank; those of saves that died once in the life of a process.
    """
    tokens = set(roots.take_dropped(root, rank))  # of checkpoints that were complete
    here = (os.getpid(), root, rank)
    if here not in _looked:
        _looked.add(here)
        orphans = _orphans(store, root, rank)
        with _lock:
            orphans -= set(_under_way.values())
        tokens |= orphans
    tokens &= {name.removeprefix("token/") for name in store.keys("token/")}
    if not tokens:
        return 0
    with store.transaction() as tx:
        _drop_parts(tx, store, lambda part: part.tokens.get(rank) in tokens)
        for token in tokens:
            drop_token(tx, token)
        if store.get("live-token", b"").decode() in tokens:
            tx.delete_prefix("live/")
            tx.delete("live-token")
    return len(tokens)


def _orphans(store: Store, root: str, rank: int) -> set[str]:
    marks = {name.removeprefix("token/"): json.loads(data) for name, data in store.get_many(prefix="token/").items()}
    if not marks:
        return set()
    if rank == 0:
        used = _tokens_of(_manifests(store), rank)
    else:
        used = set()
        with contextlib.suppress(StoreNotFoundError), roots.reading(root, 0) as first:
            used = _tokens_of(_manifests(first), rank)
    parts = _parts(store)
    if parts:
        used |= _tokens_of(_newest(_complete_parts(root, parts, rank)), rank)
    return {token for token, mark in marks.items() if token not in used and not _may_be_under_way(mark)}


def _newest(infos: Iterable[CheckpointInfo]) -> list[CheckpointInfo]:
    return list({info.id: info for info in sorted(infos, key=lambda info: info.saved_ns)}.values())


def _tokens_of(infos: Iterable[CheckpointInfo], rank: int) -> set[str]:
    return {info.tokens[rank] for info in infos if rank in info.tokens}


def _drop_parts(tx: Transaction, store: Store, which: Callable[[CheckpointInfo], bool]) -> None:
    for part in _parts(store):
        if which(part):
            for kind in ("part", "part-metadata", "part-records"):
                tx.delete(f"{kind}/{part.key}/{part.id}", missing_ok=True)


# Publishing


def now_ns() -> int:
    return time.time_ns()


def publish(root: str, store: Store, info: CheckpointInfo, metadata: bytes, records: bytes) -> CheckpointInfo:
    """The manifest commit, in the store of rank 0: afterwards the checkpoint is there, and it replaces an older one of
    its id.
    """
    old = _manifests(store)
    order = max((other.saved_ns for other in old), default=0) + 1
    info = CheckpointInfo(info.id, max(now_ns(), order), info.world_size, info.nbytes, info.tokens)
    replaced = [other for other in old if other.id == info.id]
    with store.transaction() as tx:
        tx.put(f"manifest/{info.id}", info.to_json())
        tx.put(f"metadata/{info.id}", metadata)
        tx.put(f"records/{info.id}", records)
        _drop_parts(tx, store, lambda part: part.id == info.id)
        for other in replaced:
            if 0 in other.tokens:
                drop_token(tx, other.tokens[0])
    for other in replaced:
        for rank, token in other.tokens.items():
            if rank != 0:
                roots.drop(root, rank, [token])
    return info


def publish_part(root: str, store: Store, rank: int, info: CheckpointInfo, metadata: bytes, records: bytes) -> None:
    """A rank's part of a checkpoint that is saved without collectives. Older parts of the id go, except those of the
    newest set that is complete: it is the checkpoint until this one is.
    """
    own = [part for part in _parts(store) if part.id == info.id]
    keys = {part.key for part in _newest(_complete_parts(root, own, rank))} | {info.key}
    dead = [part for part in own if part.key not in keys]
    with store.transaction() as tx:
        _drop_parts(tx, store, lambda part: part in dead)
        for token in _tokens_of(dead, rank):
            drop_token(tx, token)
        tx.put(f"part/{info.key}/{info.id}", info.to_json())
        tx.put(f"part-metadata/{info.key}/{info.id}", metadata)
        tx.put(f"part-records/{info.key}/{info.id}", records)


# Removal


def remove(root: str | os.PathLike[str], id: str) -> None:
    """Removes a checkpoint: at once and for all ranks as far as anybody can see. The space of ranks whose stores are in
    use by other processes comes back at their next saves.

    Raises CheckpointNotFoundError.
    """
    root = os.path.abspath(root)
    _remove(root, [find(root, id)])


def keep(root: str | os.PathLike[str], last: int = 5, every: int | None = None) -> list[str]:
    """Removes all checkpoints but the newest ``last`` and those whose number, the last one in the id, is a multiple of
    ``every`` (so with every=1000 "step-3000" stays). Returns the ids that were removed.
    """
    if last < 1:
        raise ValueError(f"last must be at least 1, not {last}")
    if every is not None and every < 1:
        raise ValueError(f"every must be at least 1, not {every}")
    root = os.path.abspath(root)
    old = [info for info in complete(root)[:-last] if not _is_multiple(info.id, every)]
    if old:
        _remove(root, old)
    return [info.id for info in old]


def _is_multiple(id: str, every: int | None) -> bool:
    numbers = re.findall(r"\d+", id)
    return every is not None and bool(numbers) and int(numbers[-1]) % every == 0


def _remove(root: str, infos: list[CheckpointInfo]) -> None:
    ids = {info.id for info in infos}
    try:
        with roots.writing(root, 0) as store, store.transaction() as tx:
            for info in infos:
                for kind in ("manifest", "metadata", "records"):
                    tx.delete(f"{kind}/{info.id}", missing_ok=True)
            _drop_parts(tx, store, lambda part: part.id in ids)
    except StoreError as error:
        raise about(error, checkpoint=infos[0].id, rank=0) from error
    for rank in sorted({rank for info in infos for rank in info.tokens} | {0}):
        roots.drop(root, rank, [info.tokens[rank] for info in infos if rank in info.tokens])
        with contextlib.suppress(StoreLockedError, StoreNotFoundError), roots.writing(root, rank, patience=0) as store:
            collect(store, root, rank)
