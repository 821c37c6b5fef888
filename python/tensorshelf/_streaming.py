"""Reading ahead of a loop: groups of names that follow each other, read in the background within a window of bytes."""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ._async import Background, Future

# So much that a group keeps the device busy, so little that the loop gets its first values soon.
_GROUP_BYTES_MAX = 64 << 20
_GROUP_NAMES_MAX = 1024
_GROUPS_PER_WINDOW = 4


@dataclass
class Group:
    """Names that are read with one call."""

    names: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)  # bytes; 0 where it is not known
    future: Future[list[Any]] | None = None

    @property
    def nbytes(self) -> int:
        return sum(self.sizes)


@dataclass(frozen=True)
class Calls:
    """What a stream asks of its store. All take names as the loop has them."""

    full_names: Callable[[list[str]], list[str]]
    sizes_of: Callable[[list[str]], list[int]]  # bytes of the values; 0 where there is none
    read: Callable[[list[str]], list[Any]]  # from any thread


def groups_of(
    names: Iterable[str], sizes_of: Callable[[list[str]], list[int]], group_bytes_max: int
) -> Iterator[Group]:
    """Cuts ``names`` into groups of at most ``group_bytes_max``, or of one name that has more. Asks for the sizes of
    some hundred names at a time, and for more only when a group needs them.
    """
    names = iter(names)
    group = Group()
    while page := list(itertools.islice(names, _GROUP_NAMES_MAX)):
        for name, size in zip(page, sizes_of(page), strict=True):
            full = len(group.names) == _GROUP_NAMES_MAX or group.nbytes + size > group_bytes_max
            if group.names and full:
                yield group
                group = Group()
            group.names.append(name)
            group.sizes.append(size)
    if group.names:
        yield group


def stream_values(
    background: Background,
    names: Iterable[str],
    window: int,
    priority: str,
    calls: Calls,
) -> Generator[tuple[str, Any], None, None]:
    """(name, value) in the order of ``names``. What is read, or waits to be taken, has at most ``window`` bytes, or is
    one value that has more. Whatever ends it, nothing of it is in flight afterwards.
    """
    groups = groups_of(names, calls.sizes_of, min(_GROUP_BYTES_MAX, max(1, window // _GROUPS_PER_WINDOW)))
    ahead: deque[Group] = deque()  # started
    held = 0  # bytes, of what was started and not taken
    upcoming: Group | None = next(groups, None)

    def start_what_fits() -> None:
        nonlocal held, upcoming
        while upcoming is not None and (not ahead or held + upcoming.nbytes <= window):
            group = upcoming
            reading = functools.partial(calls.read, group.names)
            group.future = background.submit(reading, calls.full_names(group.names), priority=priority)
            ahead.append(group)
            held += group.nbytes
            upcoming = next(groups, None)

    try:
        start_what_fits()
        while ahead:
            values = _values_of(ahead[0], calls.read)
            for name, size in zip(ahead[0].names, ahead[0].sizes, strict=True):
                # Nothing here refers to the value any more when the loop has it, so that its memory is used again as
                # soon as the loop drops it. Its room goes to the next ones before it is handed out.
                held -= size
                start_what_fits()
                yield name, _take(values)
            ahead.popleft()
            start_what_fits()
    finally:
        under_way = [group.future for group in ahead if group.future is not None and not group.future.cancel()]
        concurrent.futures.wait(under_way)


def _values_of(group: Group, read: Callable[[list[str]], list[Any]]) -> deque[Any]:
    """The values; at the end a _Failure, where one cannot be read."""
    try:
        values = deque(group.future.result())
    except Exception:
        values = deque(_one_by_one(group, read))
    group.future = None  # it refers to the values
    return values


def _one_by_one(group: Group, read: Callable[[list[str]], list[Any]]) -> Iterator[Any]:
    """One name of the group cannot be read: those before it can, and it says itself why."""
    for name in group.names:
        try:
            yield read([name])[0]
        except Exception as error:
            yield _Failure(error)
            return


@dataclass
class _Failure:
    error: Exception


def _take(values: deque[Any]) -> Any:
    value = values.popleft()
    if isinstance(value, _Failure):
        raise value.error
    return value
