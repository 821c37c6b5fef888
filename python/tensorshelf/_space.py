"""What the calls report that change where a store's bytes lie."""

from __future__ import annotations

from typing import Any, NamedTuple


class SpaceShape(NamedTuple):
    """How the free space of a store lies."""

    #: 0 (each data file's free space is one piece) to 1 (nothing but single units of 4 KiB)
    fragmentation: float
    #: bytes
    free: int
    #: bytes of the longest free run
    largest_free: int
    #: how many
    free_runs: int


class Compaction(NamedTuple):
    """What ``Store.compact`` did, or with ``dry_run`` would have done."""

    objects_moved: int
    bytes_moved: int
    #: objects that need a newer version of tensorshelf; they stayed where they are
    skipped: int
    #: objects that do not match their checksums or could not be read; they stayed where they are
    damaged: int
    #: messages about the first 100 of them
    damage: list[str]
    before: SpaceShape
    #: as far as readers have let go of the old places
    after: SpaceShape

    @classmethod
    def from_core(cls, report: dict[str, Any]) -> Compaction:
        shapes = {key: SpaceShape(**report[key]) for key in ("before", "after")}
        return cls(**{**report, **shapes})


class Growth(NamedTuple):
    """What ``Store.grow`` added."""

    #: paths of the new data files
    files: list[str]
    #: bytes added
    capacity: int
    #: number of the commit that made them part of the store, all at once
    commit: int


class Drained(NamedTuple):
    """What ``Store.drain`` did."""

    #: paths of the data files that were removed
    files: list[str]
    objects_moved: int
    bytes_moved: int
    #: number of the commit that took the files out
    commit: int


def mean_device_capacity(files: list[dict[str, Any]]) -> int:
    """Bytes for tensors that a device of the store has, on average; from the files of ``Store.info()``."""
    devices = {file["device_uuid"] for file in files}
    return sum(file["data_end"] - file["data_begin"] for file in files) // len(devices)
