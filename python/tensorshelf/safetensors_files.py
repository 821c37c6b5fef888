"""Tensors from and to safetensors files, without ever holding more than one file's window in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from ._reading import ObjectInfo, Reader
from .errors import UnsupportedTensorError
from .store import Commit, Store

_WINDOW_BYTES = 256 << 20
# https://huggingface.co/docs/safetensors: names of dtypes in the header
_NAMES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "uint16": "U16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint64": "U64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
}


def import_safetensors(
    store: Store,
    files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    prefix: str = "",
    *,
    skip_unchanged: bool = False,
) -> Commit:
    """Stores the tensors of safetensors files under a prefix, all with one commit.

    files  one file, several shards, or an ``…index.json`` that names them. The metadata of the files becomes the
           metadata of each object

    Raises ValueError (a name is in two files), what the safetensors package raises for a bad file, and the errors
    of ``Store.put``. Then nothing is stored. Needs the package ``safetensors``.
    """
    from safetensors import safe_open

    seen: set[str] = set()
    with store.transaction() as tx:
        for path in _shards(files):
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                names = list(file.keys())
                twice = seen.intersection(names)
                if twice:
                    raise ValueError(f"the tensor {min(twice)!r} is in more than one file, the last of which is {path}")
                seen.update(names)
                for window in _windows((name, file.get_tensor(name)) for name in names):
                    tx.put_many(window, prefix=prefix, metadata=metadata, skip_unchanged=skip_unchanged)
    assert tx.result is not None
    return tx.result


def _shards(files: Any) -> list[str]:
    if not isinstance(files, str | os.PathLike):
        return [os.fspath(path) for path in files]
    path = os.fspath(files)
    if not path.endswith(".json"):
        return [path]
    with open(path) as file:
        shards = json.load(file)["weight_map"].values()
    return [os.path.join(os.path.dirname(path), shard) for shard in dict.fromkeys(shards)]


def _windows(tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[dict[str, torch.Tensor]]:
    window: dict[str, torch.Tensor] = {}
    for name, tensor in tensors:
        if window and sum(value.nbytes for value in window.values()) + tensor.nbytes > _WINDOW_BYTES:
            yield window
            window = {}
        window[name] = tensor
    if window:
        yield window


def export_safetensors(
    store: Reader,
    file: str | os.PathLike[str],
    prefix: str = "",
    *,
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Writes the tensors under a prefix to a safetensors file, names without the prefix. Returns how many.

    The file is there whole or not at all, and durable when this returns. Bytes objects are left out. Raises
    UnsupportedTensorError for a dtype that safetensors has no name for, the errors of ``get``, and OSError.
    """
    path = os.fspath(file)
    infos = [info for info in map(store.stat, store.keys(prefix)) if info.kind == "tensor"]
    infos.sort(key=lambda info: -(info.torch_dtype or torch.uint8).itemsize)  # which keeps all of them aligned
    header = _header(infos, prefix, metadata)
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as out:
            out.write(header)
            for info in infos:
                tensor = store.get(info.name)
                if tensor.nbytes:
                    out.write(tensor.reshape(-1).view(torch.uint8).numpy())
            out.flush()
            os.fsync(out.fileno())
        os.rename(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    directory = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return len(infos)


def _header(infos: list[ObjectInfo], prefix: str, metadata: Mapping[str, str] | None) -> bytes:
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for info in infos:
        if info.dtype not in _NAMES:
            raise UnsupportedTensorError(f"{info.name!r}: safetensors has no dtype {info.dtype}")
        entries[info.name[len(prefix) :]] = {
            "dtype": _NAMES[info.dtype],
            "shape": list(info.shape or ()),
            "data_offsets": [offset, offset + info.nbytes],
        }
        offset += info.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
