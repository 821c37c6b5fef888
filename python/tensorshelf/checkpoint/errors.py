"""Errors of checkpoints. Each names what it is about: ``checkpoint``, ``rank`` and ``tensor``, None where unknown.

::

    CheckpointError (StoreError)
    ├── CheckpointNotFoundError   (KeyError)            no such checkpoint, or none that is complete
    ├── CheckpointMismatchError   (ValueError)          what is stored does not fit what it is to be loaded into
    ├── WorldSizeError            (ValueError)          saved by other ranks, and cannot be put together here
    ├── CheckpointDamagedError    (CorruptionError)     stored bytes are damaged, or a record is missing
    ├── CheckpointFullError       (StoreFullError)      no space for it
    └── UnsafeObjectError         (UnpicklingError)     a pickled object asks for code that is not on the allow-list
"""

from __future__ import annotations

import pickle
from typing import Any

from ..errors import CorruptionError, NameNotFoundError, StoreError, StoreFullError, StoreReadOnlyError


class CheckpointError(StoreError):
    """A checkpoint could not be saved, found or loaded."""

    def __init__(
        self,
        message: str,
        *,
        checkpoint: str | None = None,
        rank: int | None = None,
        tensor: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.checkpoint = checkpoint
        self.rank = rank
        self.tensor = tensor

    def __str__(self) -> str:
        about = [
            f"{what} {value!r}"
            for what, value in (("checkpoint", self.checkpoint), ("rank", self.rank), ("tensor", self.tensor))
            if value is not None
        ]
        return f"{', '.join(about)}: {self.message}" if about else self.message

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self.message, self.checkpoint, self.rank, self.tensor)


def _rebuild(kind: type[CheckpointError], message: str, checkpoint: Any, rank: Any, tensor: Any) -> CheckpointError:
    return kind(message, checkpoint=checkpoint, rank=rank, tensor=tensor)


class CheckpointNotFoundError(CheckpointError, NameNotFoundError):
    """There is no such checkpoint, or no rank set of it is complete."""

    __str__ = CheckpointError.__str__


class CheckpointMismatchError(CheckpointError, ValueError):
    """A tensor has another shape or dtype than the one it is to be loaded into, or has no counterpart."""


class WorldSizeError(CheckpointError, ValueError):
    """The checkpoint was saved by ranks that cannot be put together for this number of ranks."""


class CheckpointDamagedError(CheckpointError, CorruptionError):
    """Stored bytes do not match their sums, a record is missing, or a description contradicts itself."""

    def __init__(self, message: str, **about: Any) -> None:
        CheckpointError.__init__(self, message, **about)
        self.name = self.block = self.file = self.offset = None


class CheckpointFullError(CheckpointError, StoreFullError):
    """There is no space for the checkpoint. Those that were there are as before."""


class UnsafeObjectError(CheckpointError, pickle.UnpicklingError):
    """A pickled object asks for a class or function that is not on the allow-list. Nothing of it was called."""


def about(error: StoreError, **names: Any) -> CheckpointError:
    """The same trouble as an error of a checkpoint, to be raised ``from error``."""
    if isinstance(error, CheckpointError):
        for key, value in names.items():
            if getattr(error, key) is None:
                setattr(error, key, value)
        return error
    if isinstance(error, StoreFullError):
        return CheckpointFullError(f"no space left: {error}", **names)
    if isinstance(error, CorruptionError):
        found = CheckpointDamagedError(str(error), **names)
        found.name, found.block, found.file, found.offset = error.name, error.block, error.file, error.offset
        return found
    if isinstance(error, NameNotFoundError):
        return CheckpointDamagedError(f"a record is missing: {error}", **names)
    if isinstance(error, StoreReadOnlyError):
        return CheckpointError(f"the store takes no changes: {error}", **names)
    return CheckpointError(str(error), **names)


__all__ = [
    "CheckpointDamagedError",
    "CheckpointError",
    "CheckpointFullError",
    "CheckpointMismatchError",
    "CheckpointNotFoundError",
    "UnsafeObjectError",
    "WorldSizeError",
]
