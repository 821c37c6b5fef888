"""What checkpoints cost: bytes that they hold alone, and bytes that they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from .._reading import Reader


@dataclass(frozen=True)
class Usage:
    """What the names under one prefix hold."""

    prefix: str
    #: how many names
    names: int
    #: bytes of all its objects, each once
    nbytes: int
    #: bytes of objects that no other prefix of the report has: what deleting it alone would give back
    own_bytes: int


def df(store: Reader, prefixes: Iterable[str]) -> list[Usage]:
    """What each prefix holds, and what it shares with the other ones of the list. Reads the index, no data.

    With ``df(store, ["run/", "step-100/", "step-200/"])`` the sum of ``own_bytes`` is what the snapshots cost beyond
    what they have in common. Give every prefix that shares objects; a name under two of them counts for both.
    """
    wanted = list(dict.fromkeys(prefixes))
    sizes: dict[str, dict[int, int]] = {}
    counts: dict[str, int] = {}
    for prefix in wanted:
        names = list(store.keys(prefix))
        counts[prefix] = len(names)
        infos = (store.stat(name) for name in names)
        sizes[prefix] = {info.generation: info.stored_bytes for info in infos}
    holders = Counter(generation for objects in sizes.values() for generation in objects)
    return [
        Usage(
            prefix,
            counts[prefix],
            sum(objects.values()),
            sum(size for generation, size in objects.items() if holders[generation] == 1),
        )
        for prefix, objects in sizes.items()
    ]
