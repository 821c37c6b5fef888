"""The compiled core. Not an interface: use tensorshelf."""

from collections.abc import Callable
from typing import Any, TypedDict

import torch

__version__: str

class CreateOptions(TypedDict, total=False):
    capacity: int
    devices: list[str]
    prefill: str  # "background", "full", "none"
    group_readable: bool
    tune: bool
    progress: Callable[[int, int], None] | None

class OpenOptions(TypedDict, total=False):
    read_only: bool
    devices: list[str]
    degraded: bool
    staging_bytes: int
    result_pool_bytes: int
    memory_bytes: int
    page_locked: bool
    inline_bytes_max: int
    background_fill: bool
    record_cache_bytes: int
    worker_count: int
    queue_depth: int
    io_size: int
    use_tuning: bool
    trailers: str  # "large", "all", "none"

#: (commit, generations, names_changed, unchanged_count)
_CommitResult = tuple[int, list[int], int, int]
_Value = torch.Tensor | bytes | bytearray | memoryview

def create(path: str, options: CreateOptions) -> None: ...
def empty(dtype: int, shape: list[int]) -> torch.Tensor: ...
def auto_memory() -> int: ...  # bytes
def dtypes() -> list[tuple[int, str, int]]: ...  # (number, name, bytes of an item)

class Object:
    def describe(self) -> dict[str, Any]: ...
    def read_part(self, index: Any, out: torch.Tensor | None, verify: bool, /) -> torch.Tensor: ...

class View:
    @property
    def commit(self) -> int: ...
    def close(self) -> None: ...

# precondition: "", "absent", "exists", "generation"; cache: "none", "keep", "once"; order: "any", "sweep";
# priority: "high", "normal", "background"
class Transaction:
    def put(
        self,
        names: list[str],
        values: list[_Value],
        metadata: dict[str, str],
        precondition: str,
        generation: int,
        block_log2: int,
        skip_unchanged: bool,
        ephemeral: bool,
        cache: str,
        priority: str,
        /,
    ) -> None: ...
    def delete(self, name: str, missing_ok: bool, /) -> None: ...
    def rename(self, old: str, new: str, replace: bool, /) -> None: ...
    def clone(self, source: str, target: str, replace: bool, /) -> None: ...
    def delete_prefix(self, prefix: str, /) -> None: ...
    def rename_prefix(self, old: str, new: str, replace: bool, /) -> None: ...
    def clone_prefix(self, source: str, target: str, replace: bool, /) -> None: ...
    def require(self, name: str, precondition: str, generation: int, /) -> None: ...
    def commit(self) -> _CommitResult: ...
    def abort(self) -> None: ...

class Store:
    def __init__(self, path: str, options: OpenOptions) -> None: ...
    @property
    def forked(self) -> bool: ...
    def close(self) -> None: ...
    def flush(self) -> None: ...
    def catch_up(self) -> None: ...
    def backup(self, destination: str, /) -> None: ...
    # objects_moved, bytes_moved, skipped, damaged, damage; before and after: fragmentation, free, largest_free,
    # free_runs
    def compact(self, rate: int, dry_run: bool, progress: Callable[[int, int], None] | None, /) -> dict[str, Any]: ...
    # files, capacity, commit
    def grow(self, capacity: int, devices: list[str], /) -> dict[str, Any]: ...
    # files, objects_moved, bytes_moved, commit
    def drain(self, device: str, rate: int, progress: Callable[[int, int], None] | None, /) -> dict[str, Any]: ...
    def put(
        self,
        names: list[str],
        values: list[_Value],
        metadata: dict[str, str],
        precondition: str,
        generation: int,
        block_log2: int,
        skip_unchanged: bool,
        ephemeral: bool,
        cache: str,
        priority: str,
        /,
    ) -> _CommitResult: ...
    def get(
        self,
        name: str,
        out: torch.Tensor | None,
        as_bytes: bool,
        verify: bool,
        view: View | None,
        cache: str,
        order: str,
        copy: bool,
        priority: str,
        /,
    ) -> torch.Tensor | bytes: ...
    def get_many(
        self,
        names: list[str],
        out: list[torch.Tensor] | None,
        as_bytes: bool,
        verify: bool,
        view: View | None,
        cache: str,
        order: str,
        copy: bool,
        priority: str,
        /,
    ) -> list[torch.Tensor | bytes]: ...
    def prefetch(self, names: list[str], cache: str, order: str, /) -> None: ...
    def wait_for_prefetch(self) -> None: ...
    def read_parts(
        self,
        requests: list[tuple[str, Any]],
        out: list[torch.Tensor] | None,
        verify: bool,
        view: View | None,
        /,
    ) -> list[torch.Tensor]: ...
    def find(self, name: str, view: View | None, /) -> Object: ...
    def contains(self, name: str, view: View | None, /) -> bool: ...
    def names(self, prefix: str, start: str, limit: int, view: View | None, /) -> list[str]: ...
    def sizes(self, names: list[str], view: View | None, /) -> list[int]: ...  # bytes; 0 where there is no such name
    def view(self) -> View: ...
    def begin(self) -> Transaction: ...
    def check(self, names: list[str], values: list[_Value], /) -> int: ...  # bytes of all values
    def copy(self, value: _Value, /) -> torch.Tensor | bytes: ...
    def stats(self) -> dict[str, Any]: ...
    def metrics(self) -> str: ...
    def start_trace(self, events: int, /) -> None: ...
    def stop_trace(self) -> str: ...  # JSON
    def info(self) -> dict[str, Any]: ...
