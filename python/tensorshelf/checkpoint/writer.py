"""``ShelfWriter``: ``torch.distributed.checkpoint`` saves into one store per rank."""

from __future__ import annotations

import dataclasses
import io
import os
import uuid
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem, WriteItemType
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from .._values import parse_size
from ..errors import StoreError, StoreFullError, UnsupportedTensorError
from ..store import Store, Transaction
from . import manifest, roots
from .chunks import ShelfChunk, ShelfItem, item_names, pickle_metadata, records_of
from .errors import CheckpointError, about

DEFAULT_ID = "default"


def checkpoint_name(root: str, checkpoint_id: str | os.PathLike | None) -> str:
    """The id under the root: ids that are paths below the root are taken as such."""
    if checkpoint_id is None:
        return DEFAULT_ID
    name = os.fspath(checkpoint_id)
    if os.path.isabs(name) and name.startswith(root + os.sep):
        name = name[len(root) + 1 :]
    if not name or len(name.encode()) > 1024:
        raise ValueError(f"a checkpoint id must have 1 to 1024 bytes, not {len(name.encode())}")
    return name


class ShelfWriter(StorageWriter):
    """Saves checkpoints of ``torch.distributed.checkpoint`` under a root directory::

        writer = ShelfWriter("/nvme/run-7", capacity="200GiB")
        dcp.save(state, checkpoint_id="step-100", storage_writer=writer)
        dcp.async_save(state, checkpoint_id="step-200", storage_writer=writer)

    root            a directory on a disk of this machine, or of each machine; made at the first save, with one store
                    for each rank that runs there
    capacity        bytes for each rank's store when it is made; None: four times the rank's first save. Earlier
                    checkpoints take what differs from the later ones; ``keep`` and ``remove`` give it back
    incremental     compare with the previous save by fingerprint, and write only what differs
    window          tensors are taken from the planner this many bytes at a time
    lock_patience   seconds to wait for another process that has the rank's store open

    A rank's items are one commit in its store. The last step, one commit of rank 0, makes the checkpoint visible, on
    all ranks or, when anything failed before, on none; the previous one of the same id is there until then. Without
    collectives a checkpoint is there when the last rank has finished.

    Picklable and cheap: it holds no store. A process that saved keeps its store open for some seconds; another one
    that wants it waits. Not for use by several threads at once.

    Errors are CheckpointError and its subclasses, naming checkpoint, rank and tensor; DCP wraps those of other
    ranks into its CheckpointException.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        capacity: int | str | None = None,
        incremental: bool = True,
        window: int | str = "512MiB",
        lock_patience: float = 60.0,
    ) -> None:
        super().__init__()
        self.root = os.path.abspath(root)
        self.capacity = None if capacity is None else parse_size(capacity, "capacity")
        self.incremental = incremental
        self.window = parse_size(window, "window")
        self.lock_patience = lock_patience
        self.checkpoint_id: str = DEFAULT_ID
        self._rank = 0
        self._use_collectives = True
        self._save_id = ""
        self._token = ""
        self._save_count = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_token": "", "_save_id": ""}

    # DCP's calls, in their order

    def reset(self, checkpoint_id: str | os.PathLike | None = None) -> None:
        if checkpoint_id is not None:
            self.checkpoint_id = checkpoint_name(self.root, checkpoint_id)

    def storage_meta(self) -> StorageMeta | None:
        if not self._save_id:
            self._save_id = str(uuid.uuid4())
        return StorageMeta(checkpoint_id=self.checkpoint_id, save_id=self._save_id)

    # DCP looks for a parameter of the name kwargs before it passes any.
    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        self._rank = kwargs.get("rank", 0 if is_coordinator else self._rank)
        self._use_collectives = kwargs.get("use_collectives", True)
        self._token = manifest.new_token()
        self._save_count += 1
        manifest.begin(self, self._token)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        future: Future[list[WriteResult]] = Future()
        future.set_result(self._write(plan, planner))
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        items = {result.index: result.storage_data for rank_results in results for result in rank_results}
        self._check_that_all_reported(metadata, items)
        metadata = dataclasses.replace(
            metadata,
            storage_data={index: item.chunk for index, item in items.items()},
            storage_meta=self.storage_meta(),
        )
        info = manifest.CheckpointInfo(
            id=self.checkpoint_id,
            saved_ns=manifest.now_ns(),
            world_size=len(results) if self._use_collectives else _world_size(),
            nbytes=sum(item.chunk.nbytes for item in items.values()),
            tokens={item.chunk.rank: item.token for item in items.values()},
            key=None if self._use_collectives else self._common_key(),
        )
        self._save_id = ""
        rank = 0 if self._use_collectives else self._rank
        try:
            roots.ensure(self.root, rank, self.capacity, info.nbytes)
            with roots.writing(self.root, rank, self.lock_patience) as store:
                pickled, records = pickle_metadata(metadata), records_of(metadata)
                if self._use_collectives:
                    manifest.publish(self.root, store, info, pickled, records)
                else:
                    manifest.publish_part(self.root, store, rank, info, pickled, records)
        except StoreError as error:
            raise about(error, checkpoint=self.checkpoint_id, rank=rank) from error

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike) -> bool:
        return "://" not in os.fspath(checkpoint_id)

    # Writing

    def _write(self, plan: SavePlan, planner: SavePlanner) -> list[WriteResult]:
        if not plan.items:
            return []
        indices = [item.index for item in plan.items]
        names = item_names(indices, [item.type == WriteItemType.SHARD for item in plan.items])
        try:
            roots.ensure(self.root, self._rank, self.capacity, sum(map(_planned_bytes, plan.items)))
            with roots.writing(self.root, self._rank, self.lock_patience) as store:
                manifest.collect(store, self.root, self._rank)
                sizes = self._write_items(store, plan.items, names, planner)
        except StoreFullError as error:
            room = "choose a larger capacity= for new roots, or remove checkpoints with keep() or remove()"
            raise about(StoreFullError(f"{error}; {room}"), **self._here()) from error
        except StoreError as error:
            raise about(error, **self._here()) from error
        return [
            WriteResult(index, size, ShelfItem(ShelfChunk(self._rank, self._data_name(name), size), self._token))
            for index, name, size in zip(indices, names, sizes, strict=True)
        ]

    def _write_items(self, store: Store, items: list[WriteItem], names: list[str], planner: SavePlanner) -> list[int]:
        """One commit: the items under live/, where they are compared with the last save, and under data/<token>/."""
        sizes: list[int] = []
        with store.transaction() as tx:
            for start, end in _windows(items, self.window):
                values = [_resolved(planner, item) for item in items[start:end]]
                sizes.extend(len(v) if isinstance(v, bytes) else v.nbytes for v in values)
                self._put(tx, names[start:end], values)
            # Dropped last: after a drop a transaction compares nothing any more.
            current = {"live/" + name for name in names}
            for name in store.keys("live/"):
                if name not in current:
                    tx.delete(name, missing_ok=True)
            for name in names:
                tx.clone("live/" + name, self._data_name(name))
            manifest.mark(tx, self._token, self.checkpoint_id)
            tx.put("live-token", self._token.encode())
        return sizes

    def _put(self, tx: Transaction, names: list[str], values: list[Any]) -> None:
        try:
            tx.put_many(zip(names, values, strict=True), prefix="live/", skip_unchanged=self.incremental)
        except UnsupportedTensorError as error:
            bad = next((name for name in names if f"live/{name}" in str(error)), None)
            raise CheckpointError(str(error), **self._here(), tensor=bad) from error

    def _data_name(self, name: str) -> str:
        return f"data/{self._token}/{name}"

    def _here(self) -> dict[str, Any]:
        return {"checkpoint": self.checkpoint_id, "rank": self._rank}

    def _check_that_all_reported(self, metadata: Metadata, items: dict) -> None:
        found = {(index.fqn, index.offset) for index in items}
        for fqn, entry in metadata.state_dict_metadata.items():
            for chunk in entry.chunks if isinstance(entry, TensorStorageMetadata) else ():
                if (fqn, chunk.offsets) not in found:
                    raise CheckpointError("no rank reported that it stored it", **self._here(), tensor=fqn)

    def _common_key(self) -> str:
        """The same text on all ranks for one save, another for each save; agreed through the job's store."""
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return self._token
        store = dist.distributed_c10d._get_default_store()
        where = f"tensorshelf/{self.root}/{self.checkpoint_id}/{self._save_count}"
        return store.compare_set(where, "", self._token).decode()


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _resolved(planner: SavePlanner, item: WriteItem) -> torch.Tensor | bytes:
    value = planner.resolve_data(item)
    return value.getvalue() if isinstance(value, io.BytesIO) else value.detach()


def _planned_bytes(item: WriteItem) -> int:
    if item.tensor_data is None:
        return item.bytes_io_data.nbytes if item.bytes_io_data is not None else 0
    return torch.Size(item.tensor_data.chunk.sizes).numel() * item.tensor_data.properties.dtype.itemsize


def _windows(items: list[WriteItem], bytes_max: int) -> Iterator[tuple[int, int]]:
    """Runs [start, end) of items of up to ``bytes_max`` bytes, or of one."""
    start, size = 0, 0
    for end, item in enumerate(items):
        nbytes = _planned_bytes(item)
        if end > start and size + nbytes > bytes_max:
            yield start, end
            start, size = end, 0
        size += nbytes
    if start < len(items):
        yield start, len(items)
