"""Checkpoints: state in a store, whole or not at all, at the cost of what changed.

One process::

    ts.checkpoint.save({"model": model.state_dict(), "step": 100}, store, "run/")      # instead of torch.save
    state = ts.checkpoint.load(store, "run/")                                          # instead of torch.load
    saving = ts.checkpoint.save_async(state, store, "run/", snapshot="step-100/")      # returns when it is copied
    saving.wait()                                                                      # until it is durable

Many processes, with ``torch.distributed.checkpoint`` (each rank has a store of its own under one root)::

    dcp.save(state, checkpoint_id="step-100", storage_writer=ts.checkpoint.ShelfWriter("/nvme/run-7"))
    dcp.load(state, checkpoint_id="step-100", storage_reader=ts.checkpoint.ShelfReader("/nvme/run-7"))
    ts.checkpoint.latest("/nvme/run-7"); ts.checkpoint.keep("/nvme/run-7", last=5, every=1000)

Errors are CheckpointError and its subclasses; see ``tensorshelf.checkpoint.errors``.
"""

from typing import TYPE_CHECKING, Any

from .errors import *  # noqa: F403
from .errors import __all__ as _errors
from .lazy import LazyTensor
from .manifest import CheckpointInfo, keep, latest, list_checkpoints, remove
from .objects import Saved, delete, load, save
from .staging import AsyncSave, AsyncSaver, save_async
from .usage import Usage, df

if TYPE_CHECKING:
    from .reader import ShelfReader
    from .writer import ShelfWriter

__all__ = [
    "AsyncSave",
    "AsyncSaver",
    "CheckpointInfo",
    "LazyTensor",
    "Saved",
    "ShelfReader",
    "ShelfWriter",
    "Usage",
    "delete",
    "df",
    "keep",
    "latest",
    "list_checkpoints",
    "load",
    "remove",
    "save",
    "save_async",
    *_errors,
]


def __getattr__(name: str) -> Any:
    """``torch.distributed.checkpoint`` takes a while to import: only those who use it pay."""
    if name == "ShelfWriter":
        from .writer import ShelfWriter

        return ShelfWriter
    if name == "ShelfReader":
        from .reader import ShelfReader

        return ShelfReader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
