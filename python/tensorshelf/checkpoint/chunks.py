"""Where DCP's items lie: the types of ``Metadata.storage_data``, and ``Metadata`` as plain records."""

from __future__ import annotations

import collections
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.checkpoint import metadata as dcp
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata

from .allowed import unpickle
from .errors import CheckpointDamagedError

_NAME_BYTES_MAX = 3900


@dataclass(frozen=True)
class ShelfChunk:
    """One item: a record in the store of a rank."""

    rank: int
    name: str
    nbytes: int


@dataclass(frozen=True)
class ShelfItem:
    """What a rank reports of an item that it stored."""

    chunk: ShelfChunk
    token: str


def item_names(indices: Sequence[MetadataIndex], is_shard: Sequence[bool]) -> list[str]:
    """A name for each item: its FQN, and the offsets of a shard. The same from save to save."""
    used: set[str] = set()
    names = []
    for index, shard in zip(indices, is_shard, strict=True):
        name = index.fqn
        if shard and index.offset is not None:
            name += "@" + ",".join(map(str, index.offset))
        if not name or len(name.encode()) > _NAME_BYTES_MAX:
            name = name[:100] + f"~{len(used)}"
        while name in used:
            name += f"~{len(used)}"
        used.add(name)
        names.append(name)
    return names


def records_of(metadata: Metadata) -> bytes:
    """The metadata as JSON: {"tensors": {fqn: {"dtype", "shape", "chunks": [...]}}, "bytes": {fqn: ...}}."""
    tensors: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for fqn, entry in metadata.state_dict_metadata.items():
        if isinstance(entry, TensorStorageMetadata):
            tensors[fqn] = {
                "dtype": str(entry.properties.dtype).removeprefix("torch."),
                "shape": list(entry.size),
                "chunks": [],
            }
    for index, chunk in (metadata.storage_data or {}).items():
        place = {"rank": chunk.rank, "name": chunk.name, "nbytes": chunk.nbytes}
        if index.fqn in tensors:
            tensors[index.fqn]["chunks"].append({"offsets": list(index.offset or ()), **place})
        else:
            values[index.fqn] = place
    return json.dumps({"format": 1, "tensors": tensors, "bytes": values}, separators=(",", ":")).encode()


def pickle_metadata(metadata: Metadata) -> bytes:
    return pickle.dumps(metadata, protocol=pickle.HIGHEST_PROTOCOL)


_CLASSES: dict[tuple[str, str], Any] = {
    **{
        (kind.__module__, kind.__qualname__): kind
        for kind in (
            dcp.Metadata,
            dcp.MetadataIndex,
            dcp.TensorStorageMetadata,
            dcp.BytesStorageMetadata,
            dcp.ChunkStorageMetadata,
            dcp.TensorProperties,
            dcp.StorageMeta,
            dcp._MEM_FORMAT_ENCODING,
            ShelfChunk,
            collections.ChainMap,
        )
    },
    ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
}


def _no_reference(key: Any) -> Any:
    raise CheckpointDamagedError(f"the metadata has an unknown reference {key!r}")


def unpickle_metadata(data: bytes, weights_only: bool) -> Metadata:
    """Raises UnsafeObjectError, CheckpointDamagedError."""
    found = unpickle(data, _no_reference, weights_only, _CLASSES)
    if not isinstance(found, Metadata):
        raise CheckpointDamagedError(f"its metadata is a {type(found).__name__}")
    return found
