"""The memory tier: hits beside plain memory copies, leases, many small hits, and a sweep over twice the tier.

Contenders of one case alternate in each round on the same bytes; quoted are medians over the rounds. Nothing here
touches the device except the reads that a sweep needs.

``.venv/bin/python tools/bench/memory_bench.py --help``
"""

from __future__ import annotations

import argparse
import ctypes
import json
import pathlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable

import tensorshelf as ts
import torch

MIB = 1 << 20


def seconds_of(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def random_tensor(size: int) -> torch.Tensor:
    return torch.randint(0, 1 << 62, (size // 8,)).view(torch.uint8)


class Bench:
    def __init__(self, folder: pathlib.Path, tier: int, rounds: int) -> None:
        self.tier = tier
        self.rounds = rounds
        self.results: list[dict] = []
        ts.create(folder / "shelf", capacity=4 * tier + (256 << 20), prefill="none")
        self.store = ts.open(folder / "shelf", memory=tier)

    def report(self, case: str, **values: float | int) -> None:
        self.results.append({"case": case, **values})
        text = "  ".join(f"{key} {value:.3g}" for key, value in values.items())
        print(f"{case:40} {text}", flush=True)

    def copies(self, size: int) -> None:
        """A hit into the caller's tensor beside memcpy from one tensor into another."""
        source = random_tensor(size)
        self.store.put("hit", source, cache="keep")
        ours, theirs = ts.empty(size, torch.uint8), torch.empty(size, dtype=torch.uint8)
        target, origin = theirs.data_ptr(), source.data_ptr()
        repeats = max(1, (64 * MIB) // size)

        def hit() -> None:
            for _ in range(repeats):
                self.store.get("hit", out=ours)

        def memcpy() -> None:
            for _ in range(repeats):
                ctypes.memmove(target, origin, size)

        hit(), memcpy()
        before = self.store.stats()["io"]["read_ops"]
        times = [(seconds_of(hit), seconds_of(memcpy)) for _ in range(self.rounds)]
        assert self.store.stats()["io"]["read_ops"] == before
        assert torch.equal(ours, source)
        self.report(
            f"hit of {size // 1024} KiB into out=",
            ratio_to_memcpy=statistics.median(b / a for a, b in times),
            hit_GB_s=size * repeats / statistics.median(a for a, _ in times) / 1e9,
            memcpy_GB_s=size * repeats / statistics.median(b for _, b in times) / 1e9,
        )
        self.store.delete("hit")

    def leases(self, count: int = 2000) -> None:
        """The latency of get(copy=False) of what is there."""
        self.store.put("leased", random_tensor(MIB), cache="keep")

        def lease() -> None:
            for _ in range(count):
                self.store.get("leased", copy=False)

        lease()
        times = [seconds_of(lease) / count for _ in range(self.rounds)]
        self.report("leased hit of 1 MiB", microseconds=statistics.median(times) * 1e6)
        self.store.delete("leased")

    def small(self, count: int = 4096) -> None:
        """Many objects of 4 KiB in one call."""
        self.store.put_many({f"small/{i}": random_tensor(4096) for i in range(count)}, cache="keep")
        names = [f"small/{i}" for i in range(count)]
        out = [torch.empty(4096, dtype=torch.uint8) for _ in names]
        contenders = {
            "new tensors": lambda: self.store.get_many(names),
            "into out=": lambda: self.store.get_many(names, out=out),
            "leased": lambda: self.store.get_many(names, copy=False),
        }
        for call in contenders.values():
            call()
        before = self.store.stats()["io"]["read_ops"]
        times = {name: [] for name in contenders}
        for _ in range(self.rounds):
            for name, call in contenders.items():
                times[name].append(seconds_of(call))
        assert self.store.stats()["io"]["read_ops"] == before
        for name, measured in times.items():
            self.report(f"4 KiB hits in one get_many, {name}", per_second=count / statistics.median(measured))
        self.store.delete_prefix("small/")

    def sweep(self, order: str) -> None:
        """The share of hits of a list of twice the tier that is read again and again."""
        count = 64
        size = 2 * self.tier // count // 4096 * 4096
        names = [f"layer/{i:03}" for i in range(count)]
        for name in names:
            self.store.put(name, random_tensor(size), cache="once")
        buffer = ts.empty(size, torch.uint8)

        def go_round() -> None:
            for name in names:
                self.store.get(name, out=buffer, order=order)

        go_round()
        before = self.store.stats()["memory"]["hits"]
        seconds = [seconds_of(go_round) for _ in range(self.rounds)]
        hits = self.store.stats()["memory"]["hits"] - before
        self.report(
            f"sweep over twice the tier, order={order!r}",
            hit_share=hits / (self.rounds * count),
            GB_s=count * size / statistics.median(seconds) / 1e9,
        )
        self.store.delete_prefix("layer/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("build"), help="where the store goes")
    parser.add_argument("--tier-mib", type=int, default=1024, help="size of the tier")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=pathlib.Path, help="write the results there as well")
    options = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tensorshelf-memory-bench-", dir=options.folder))
    try:
        bench = Bench(folder, options.tier_mib * MIB, options.rounds)
        with bench.store:
            memory = bench.store.stats()["memory"]
            print(f"tier {options.tier_mib} MiB, page-locked {memory['page_locked']}, huge {memory['huge_pages']}")
            for size in (64 << 10, MIB, 16 * MIB, 256 * MIB):
                if size <= bench.tier // 2:
                    bench.copies(size)
            bench.leases()
            bench.small()
            bench.sweep("sweep")
            bench.sweep("any")
        if options.json:
            options.json.write_text(json.dumps(bench.results, indent=1))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
