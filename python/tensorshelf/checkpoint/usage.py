"""What checkpoints cost: bytes that they hold alone, and bytes that they share."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from .._reading import Reader
from . import manifest, roots


@dataclass(frozen=True)
class Usage:
    """What a prefix, or a checkpoint under a root, holds."""

    prefix: str
    #: how many names
    names: int
    #: bytes of all its objects, each once
    nbytes: int
    #: bytes of objects that no other prefix of the report has: what deleting it alone would give back
    own_bytes: int


def df(where: Reader | str | os.PathLike[str], prefixes: Iterable[str] = ()) -> list[Usage]:
    """What each checkpoint holds, and what it shares with the other ones of the list. Reads the index, no data.

    ``df(store, ["run/", "step-100/", "step-200/"])``: of prefixes in a store. The sum of ``own_bytes`` is what the
    snapshots cost beyond what they have in common. Give every prefix that shares objects; a name under two of them
    counts for both. ``df(root)``: of the checkpoints under a root, over all ranks; ``prefix`` is then the id.
    """
    if isinstance(where, Reader):
        return _usages(where, {prefix: prefix for prefix in prefixes})
    root = os.path.abspath(where)
    infos = manifest.list_checkpoints(root)
    total = {info.id: Usage(info.id, 0, 0, 0) for info in infos}
    for rank in sorted({rank for info in infos for rank in info.tokens}):
        with roots.reading(root, rank) as store:
            tokens = {info.id: f"data/{info.tokens[rank]}/" for info in infos if rank in info.tokens}
            for use in _usages(store, tokens):
                sums = total[use.prefix]
                total[use.prefix] = Usage(
                    use.prefix, sums.names + use.names, sums.nbytes + use.nbytes, sums.own_bytes + use.own_bytes
                )
    return list(total.values())


def _usages(store: Reader, prefixes: dict[str, str]) -> list[Usage]:
    """The usage of each prefix, under its key."""
    sizes: dict[str, dict[int, int]] = {}
    counts: dict[str, int] = {}
    for key, prefix in prefixes.items():
        infos = [store.stat(name) for name in store.keys(prefix)]
        counts[key] = len(infos)
        sizes[key] = {info.generation: info.stored_bytes for info in infos}
    holders = Counter(generation for objects in sizes.values() for generation in objects)
    return [
        Usage(
            key,
            counts[key],
            sum(objects.values()),
            sum(size for generation, size in objects.items() if holders[generation] == 1),
        )
        for key, objects in sizes.items()
    ]
