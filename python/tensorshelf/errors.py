"""Exceptions of tensorshelf.

::

    StoreError
    ├── NameNotFoundError     (KeyError)            no such name
    ├── NameExistsError                             a rename or clone would replace a name
    ├── PreconditionError                           if_absent=, if_exists=, if_generation= did not hold
    ├── UnsupportedTensorError (TypeError)          a value that cannot be kept, or a dtype that this torch lacks
    ├── TensorChangedError                          memory changed while it was being stored
    ├── CorruptionError                             bytes that do not match their sums; damaged structures
    ├── StoreFullError        (OSError, ENOSPC)     no space for the data or for the index
    ├── StoreNotFoundError    (FileNotFoundError)   no store at that path
    ├── StoreExistsError      (FileExistsError)     something is at that path already
    ├── StoreLockedError                            another process writes this store
    ├── StoreBusyError        (TimeoutError)        timeout= passed before there was room for the copies of a put
    ├── StoreReadOnlyError                          opened for reading, or read-only after an I/O error
    ├── LostCommitsError                            the index lacks commits that were acknowledged
    ├── MissingDeviceError    (OSError, ENODEV)     a device of the store is not there
    ├── StoreIOError          (OSError)             a device or the system failed
    ├── ClosedError           (ValueError)          used after close()
    └── ForkedError           (RuntimeError)        used in a forked child of the process that opened it

Bad arguments are plain ValueError, TypeError and IndexError. Whatever is raised, the store is as it was before the
call.
"""

from __future__ import annotations


class StoreError(Exception):
    """Base of all errors of a store."""


class NameNotFoundError(StoreError, KeyError):
    """No object has this name."""

    __str__ = Exception.__str__  # KeyError would show the message in quotes


class NameExistsError(StoreError):
    """The new name of a rename or clone is taken, and ``replace=True`` was not given."""


class PreconditionError(StoreError):
    """``if_absent=``, ``if_exists=`` or ``if_generation=`` did not hold when the change was to be committed."""


class UnsupportedTensorError(StoreError, TypeError):
    """The value is no plain dense tensor (the message names the property), or this torch lacks the stored dtype."""


class TensorChangedError(StoreError):
    """The memory of a value changed while it was being stored. Nothing was stored."""


class CorruptionError(StoreError):
    """Stored bytes do not match their sums, or a structure of the store is damaged.

    ``name``    the object, or None when no single object is concerned
    ``block``   which checksum block of the object, from 0, or None
    ``file``    path of the data file, or None
    ``offset``  bytes, in that file, or None
    """

    def __init__(
        self,
        message: str,
        name: str | None = None,
        block: int | None = None,
        file: str | None = None,
        offset: int | None = None,
    ) -> None:
        super().__init__(message)
        self.name = name
        self.block = block
        self.file = file
        self.offset = offset

    def __reduce__(self):
        return type(self), (str(self), self.name, self.block, self.file, self.offset)


class StoreFullError(StoreError, OSError):
    """No space left for the data or for the index; ``errno`` is ENOSPC."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store at this path. ``open`` never creates one; ``create`` does."""


class StoreExistsError(StoreError, FileExistsError):
    """There is a store, or somebody's files, where one was to be created."""


class StoreLockedError(StoreError):
    """Another process has the store open for writing; the message names it."""


class StoreBusyError(StoreError, TimeoutError):
    """``timeout=`` of a put in the background passed before earlier ones had left room for its copy."""


class StoreReadOnlyError(StoreError):
    """The store was opened for reading, or became read-only after an error whose outcome is unknown."""


class LostCommitsError(StoreError):
    """Commits that were acknowledged are missing from the index. ``tensorshelf fsck`` says what can be done."""


class MissingDeviceError(StoreError, OSError):
    """A device of the store is not there, or the object lies on it; ``errno`` is ENODEV."""


class StoreIOError(StoreError, OSError):
    """A device or the operating system failed."""


class ClosedError(StoreError, ValueError):
    """Used after ``close()``."""


class ForkedError(StoreError, RuntimeError):
    """The handle belongs to the parent of this process. Open the store again here, for reading."""


__all__ = [name for name, value in list(globals().items()) if isinstance(value, type) and issubclass(value, StoreError)]
