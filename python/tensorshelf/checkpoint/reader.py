"""``ShelfReader``: ``torch.distributed.checkpoint`` loads what ``ShelfWriter`` saved, into any number of ranks."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import os
import uuid
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from .._values import parse_size
from ..errors import NameNotFoundError, StoreError, StoreNotFoundError
from ..store import Store
from . import manifest, roots
from .chunks import ShelfChunk, unpickle_metadata
from .errors import CheckpointDamagedError, CheckpointMismatchError, CheckpointNotFoundError, WorldSizeError, about
from .writer import DEFAULT_ID, checkpoint_name

_log = logging.getLogger("tensorshelf")


@dataclasses.dataclass
class _Wanted:
    """A box of a stored chunk, and everything that it is to be read into."""

    index: tuple[slice, ...]
    whole: bool
    items: list[tuple[ReadItem, torch.Tensor]]

    @property
    def nbytes(self) -> int:
        return self.items[0][1].nbytes


class ShelfReader(StorageReader):
    """Loads checkpoints that ``ShelfWriter`` saved under a root::

        dcp.load(state, checkpoint_id="step-100", storage_reader=ShelfReader("/nvme/run-7"))

    root          the writer's. The stores of all ranks must be reachable here, as far as this rank needs them
    window        memory for what cannot be read in place (another dtype, several targets), bytes at a time
    weights_only  False: the planner's part of the metadata may be of any class, and run any code when it is read

    Any number of ranks loads a checkpoint, whatever number saved it: only the parts that a rank needs are read, each
    once, straight into its tensors. Checkpoints that were saved without collectives know only each rank's own view;
    those with sharded tensors load with the same number of ranks, others with any up to that: else WorldSizeError.

    Picklable; holds no store. Errors are CheckpointError and its subclasses, naming checkpoint, rank and tensor.
    DCP hides errors of ``read_metadata``; they are logged too.
    """

    def __init__(
        self, root: str | os.PathLike[str], *, window: int | str = "256MiB", weights_only: bool = True
    ) -> None:
        super().__init__()
        self.root = os.path.abspath(root)
        self.window = parse_size(window, "window")
        self.weights_only = weights_only
        self.checkpoint_id: str = DEFAULT_ID
        self._rank = 0
        self._metadata: Metadata | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_metadata": None}

    def reset(self, checkpoint_id: str | os.PathLike | None = None) -> None:
        if checkpoint_id is not None:
            self.checkpoint_id = checkpoint_name(self.root, checkpoint_id)
        self._metadata = None

    # DCP looks for a parameter of the name kwargs before it asks for the metadata of a rank.
    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The metadata of the checkpoint; with ``rank=`` that rank's, where it was saved without collectives."""
        try:
            metadata = self._read_metadata(kwargs.get("rank"))
        except StoreError as error:
            _log.warning("%s", error)
            raise
        load_id = str(uuid.uuid4())
        if metadata.storage_meta is None:
            metadata.storage_meta = StorageMeta(load_id=load_id)
        else:
            metadata.storage_meta = dataclasses.replace(metadata.storage_meta, load_id=load_id)
        return metadata

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        self._rank = kwargs.get("rank", 0 if is_coordinator else self._rank)
        self._metadata = metadata

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        by_rank: dict[int, list[ReadItem]] = {}
        for item in plan.items:
            by_rank.setdefault(self._chunk_of(item).rank, []).append(item)
        for rank, items in sorted(by_rank.items()):
            with self._store(rank) as store:
                self._read_bytes(store, [i for i in items if i.type == LoadItemType.BYTE_IO], planner)
                self._read_tensors(store, [i for i in items if i.type != LoadItemType.BYTE_IO], planner)
        future: Future[None] = Future()
        future.set_result(None)
        return future

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike) -> bool:
        return "://" not in os.fspath(checkpoint_id)

    # Metadata

    def _read_metadata(self, rank: int | None) -> Metadata:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(StoreNotFoundError):
                stack.enter_context(roots.reading(self.root, 0))  # once for all that follows
            return self._found_metadata(rank)

    def _found_metadata(self, rank: int | None) -> Metadata:
        info = manifest.find(self.root, self.checkpoint_id)
        if info.key is None:
            return self._metadata_at(0, f"metadata/{info.id}")
        if rank is None:
            raise WorldSizeError(
                f"it was saved without collectives by {info.world_size} ranks, each with metadata of its own",
                checkpoint=info.id,
            )
        world_size = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        metadata = None
        if rank < info.world_size:
            metadata = self._metadata_at(rank, f"part-metadata/{info.key}/{info.id}")
        if world_size == info.world_size or (metadata is not None and _covers_all(metadata)):
            assert metadata is not None
            return metadata
        raise WorldSizeError(
            f"it was saved without collectives by {info.world_size} ranks, and cannot be put together for "
            f"{world_size}; save with collectives to load with any number",
            checkpoint=info.id,
            rank=rank,
        )

    def _metadata_at(self, rank: int, name: str) -> Metadata:
        try:
            with roots.reading(self.root, rank) as store:
                return unpickle_metadata(store.get(name), self.weights_only)
        except StoreError as error:
            raise about(error, checkpoint=self.checkpoint_id, rank=rank) from error
        except (EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
            raise CheckpointDamagedError(
                f"its metadata cannot be read: {error}", checkpoint=self.checkpoint_id, rank=rank
            ) from error

    # Data

    @contextlib.contextmanager
    def _store(self, rank: int) -> Iterator[Store]:
        try:
            with roots.reading(self.root, rank) as store:
                yield store
        except StoreNotFoundError as error:
            raise CheckpointNotFoundError(
                f"the store of the rank that saved it is not at {roots.rank_path(self.root, rank)}",
                checkpoint=self.checkpoint_id,
                rank=rank,
            ) from error

    def _chunk_of(self, item: ReadItem) -> ShelfChunk:
        assert self._metadata is not None
        chunk = (self._metadata.storage_data or {}).get(item.storage_index)
        if not isinstance(chunk, ShelfChunk):
            raise CheckpointDamagedError(
                f"the metadata says nothing of where {item.storage_index} lies",
                checkpoint=self.checkpoint_id,
                tensor=item.storage_index.fqn,
            )
        return chunk

    def _read_bytes(self, store: Store, items: list[ReadItem], planner: LoadPlanner) -> None:
        names = [self._chunk_of(item).name for item in items]
        with self._naming(items, names):
            values = store.get_many(dict.fromkeys(names))
        for item, name in zip(items, names, strict=True):
            if not isinstance(values[name], bytes):
                raise CheckpointDamagedError(
                    "it is a tensor where bytes belong", checkpoint=self.checkpoint_id, tensor=item.storage_index.fqn
                )
            planner.load_bytes(item, io.BytesIO(values[name]))

    def _read_tensors(self, store: Store, items: list[ReadItem], planner: LoadPlanner) -> None:
        """Reads each wanted box of each chunk once: in place where one plain tensor wants it."""
        chunks: dict[str, dict[tuple, _Wanted]] = {}
        for item in items:
            target = planner.resolve_tensor(item).detach()
            box = (tuple(item.storage_offsets), tuple(item.lengths))
            wanted = chunks.setdefault(self._chunk_of(item).name, {})
            if box not in wanted:
                index = tuple(slice(start, start + length) for start, length in zip(*box, strict=True))
                wanted[box] = _Wanted(index, self._is_whole(item), [])
            wanted[box].items.append((item, target))
        direct: list[tuple[str, _Wanted]] = []
        staged: list[tuple[str, _Wanted]] = []
        shared: list[tuple[str, list[_Wanted]]] = []
        for name, wanted in chunks.items():
            boxes = list(wanted.values())
            if len(boxes) > 1 and self._better_whole(boxes):
                shared.append((name, boxes))
                continue
            for box in boxes:
                (direct if self._in_place(box) else staged).append((name, box))
        self._read_direct(store, direct)
        self._read_staged(store, staged)
        self._read_shared(store, shared)
        for item, target in (pair for boxes in chunks.values() for box in boxes.values() for pair in box.items):
            planner.commit_tensor(item, target)

    def _entry(self, item: ReadItem) -> TensorStorageMetadata:
        assert self._metadata is not None
        entry = self._metadata.state_dict_metadata.get(item.storage_index.fqn)
        if not isinstance(entry, TensorStorageMetadata):
            raise CheckpointMismatchError(
                "the checkpoint has no such tensor", checkpoint=self.checkpoint_id, tensor=item.storage_index.fqn
            )
        return entry

    def _chunk_sizes(self, item: ReadItem) -> torch.Size:
        entry = self._entry(item)
        offset = item.storage_index.offset
        hint = item.storage_index.index
        if hint is not None and hint < len(entry.chunks) and entry.chunks[hint].offsets == offset:
            return entry.chunks[hint].sizes
        return next((chunk.sizes for chunk in entry.chunks if offset is None or chunk.offsets == offset), entry.size)

    def _is_whole(self, item: ReadItem) -> bool:
        return tuple(item.lengths) == tuple(self._chunk_sizes(item))

    def _better_whole(self, boxes: list[_Wanted]) -> bool:
        """Whether reading the chunk once beats reading its boxes one by one."""
        chunk = self._chunk_sizes(boxes[0].items[0][0]).numel()
        return sum(torch.Size(box.items[0][0].lengths).numel() for box in boxes) >= chunk

    def _in_place(self, box: _Wanted) -> bool:
        (item, target), *more = box.items
        plain = type(target) is torch.Tensor and not (target.is_conj() or target.is_neg())
        return not more and plain and target.dtype == self._entry(item).properties.dtype

    def _read_direct(self, store: Store, wanted: list[tuple[str, _Wanted]]) -> None:
        wholes = [(name, box) for name, box in wanted if box.whole]
        parts = [(name, box) for name, box in wanted if not box.whole]
        with self._naming([box.items[0][0] for _, box in wanted], [name for name, _ in wanted]):
            store.get_many([name for name, _ in wholes], out=[box.items[0][1] for _, box in wholes])
            store.read_slices([(name, box.index) for name, box in parts], out=[box.items[0][1] for _, box in parts])

    def _read_staged(self, store: Store, wanted: list[tuple[str, _Wanted]]) -> None:
        for window in _windows(wanted, self.window):
            with self._naming([box.items[0][0] for _, box in window], [name for name, _ in window]):
                values = store.read_slices([(name, box.index or ...) for name, box in window])
            for (_, box), value in zip(window, values, strict=True):
                for _, target in box.items:
                    target.copy_(value)

    def _read_shared(self, store: Store, wanted: list[tuple[str, list[_Wanted]]]) -> None:
        for name, boxes in wanted:
            with self._naming([boxes[0].items[0][0]], [name]):
                chunk = store.get(name)
            for box in boxes:
                for _, target in box.items:
                    target.copy_(chunk[box.index])

    @contextlib.contextmanager
    def _naming(self, items: list[ReadItem], names: list[str]) -> Iterator[None]:
        """Errors of the store, with the checkpoint's names in them."""
        try:
            yield
        except (StoreError, ValueError, TypeError, IndexError) as error:
            text = str(getattr(error, "name", None) or error)
            found = [(i, n) for i, n in zip(items, names, strict=True) if n in text]
            item, name = max(found, key=lambda pair: len(pair[1]), default=(None, None))
            rank = self._chunk_of(items[0]).rank if items else None
            where = {"checkpoint": self.checkpoint_id, "rank": rank, "tensor": item and item.storage_index.fqn}
            if isinstance(error, NameNotFoundError):
                raise CheckpointDamagedError(
                    f"the record {name!r} is missing: the checkpoint was removed or replaced while it was loaded, "
                    "or the store of the rank is not the one that saved it",
                    **where,
                ) from error
            if isinstance(error, StoreError):
                raise about(error, **where) from error
            raise CheckpointMismatchError(str(error), **where) from error


def _windows(wanted: list[tuple[str, _Wanted]], bytes_max: int) -> Iterator[list[tuple[str, _Wanted]]]:
    window: list[tuple[str, _Wanted]] = []
    size = 0
    for name, box in wanted:
        if window and size + box.nbytes > bytes_max:
            yield window
            window, size = [], 0
        window.append((name, box))
        size += box.nbytes
    if window:
        yield window


def _covers_all(metadata: Metadata) -> bool:
    """Whether the chunks of each tensor are the whole tensor."""
    return all(
        sum(chunk.sizes.numel() for chunk in entry.chunks) == entry.size.numel()
        for entry in metadata.state_dict_metadata.values()
        if isinstance(entry, TensorStorageMetadata)
    )
