"""tensorshelf.aio beside DeepSpeed's own async_io, compiled from the sources of the installed DeepSpeed.

In each round both move the same bytes of the same files through the same calls, one after the other, and the order
changes from round to round. Printed are medians, the ratio of throughputs (ours to stock) and of CPU seconds per GiB.
Stock gets the settings that were best for it in a sweep just before; ours has one setting for everything.

    tests/deepspeed/run                       # makes the environments
    build/deepspeed-0.19.8/bin/python tools/bench/ds_io_bench.py --folder /nvme/scratch
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pathlib
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable

import torch
from tensorshelf import aio as ours

MIB = 1 << 20
GIB = 1 << 30
OUR_SETTINGS = (MIB, 32, False, True, 1)


def load_stock(folder: pathlib.Path):
    """DeepSpeed's module, compiled once into ``folder``."""
    os.environ["TORCH_EXTENSIONS_DIR"] = str(folder)
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.ops.op_builder import AsyncIOBuilder

    module = AsyncIOBuilder().load()
    if module.aio_handle.__module__.startswith("tensorshelf"):
        raise SystemExit("this DeepSpeed uses tensorshelf.aio; run `python -m tensorshelf.aio uninstall` first")
    return module


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measured(call: Callable[[], None]) -> tuple[float, float]:
    cpu, begin = cpu_seconds(), time.perf_counter()
    call()
    return time.perf_counter() - begin, cpu_seconds() - cpu


class Contender:
    """One module with a handle and the tensors that it moves."""

    def __init__(self, module, settings: tuple, size: int) -> None:
        self.handle = module.aio_handle(*settings)
        self.settings = settings
        self.pinned = self.handle.new_cpu_locked_tensor(size, torch.empty(0, dtype=torch.uint8))
        self.pinned.random_(0, 256)
        self.plain = self.pinned.clone()

    def write(self, path: str, pinned: bool) -> None:
        assert self.handle.async_pwrite(self.pinned if pinned else self.plain, path, 0) == 0
        assert self.handle.wait() == 1

    def read(self, path: str, pinned: bool) -> None:
        assert self.handle.async_pread(self.pinned if pinned else self.plain, path, 0) == 0
        assert self.handle.wait() == 1

    def write_files(self, folder: pathlib.Path, count: int) -> None:
        for i in range(count):
            assert self.handle.async_pwrite(self.pinned[i * MIB : (i + 1) * MIB], f"{folder}/{i}", 0) == 0
        assert self.handle.wait() == count

    def small_reads(self, path: str, count: int) -> None:
        page = self.pinned[:4096]
        for _ in range(count):
            assert self.handle.sync_pread(page, path, 0) == 1

    def close(self) -> None:
        self.handle.free_cpu_locked_tensor(self.pinned)


def best_settings(module, path: str, size: int, read: bool, sweep: list[tuple]) -> tuple:
    """Stock's fastest of the sweep, with pinned memory; best of two runs each."""
    times = {}
    for settings in sweep:
        contender = Contender(module, settings, size)
        move = contender.read if read else contender.write
        times[settings] = min(measured(lambda move=move: move(path, True))[0] for _ in range(2))
        contender.close()
    return min(times, key=times.get)


class Bench:
    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.results: list[dict] = []

    def compare(
        self,
        case: str,
        size: int,
        stock: Callable[[], None],
        mine: Callable[[], None],
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        """``prepare`` comes before each call and is not measured."""
        calls = {"stock": stock, "ours": mine}
        for call in calls.values():
            prepare()
            call()  # files, page tables and queues are warm for both
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
        for i in range(self.rounds):
            for name in list(calls) if i % 2 == 0 else list(calls)[::-1]:
                prepare()
                runs[name].append(measured(calls[name]))
        gib = size / GIB
        seconds = {name: statistics.median(run[0] for run in runs[name]) for name in calls}
        cpu = {name: statistics.median(run[1] for run in runs[name]) / gib for name in calls}
        ratios = [s[0] / o[0] for s, o in zip(runs["stock"], runs["ours"], strict=True)]
        result = {
            "case": case,
            "stock_gib_s": gib / seconds["stock"],
            "ours_gib_s": gib / seconds["ours"],
            "throughput_ratio": statistics.median(ratios),
            "throughput_ratio_min": min(ratios),
            "throughput_ratio_max": max(ratios),
            "stock_cpu_s_gib": cpu["stock"],
            "ours_cpu_s_gib": cpu["ours"],
            "cpu_ratio": cpu["ours"] / cpu["stock"] if cpu["stock"] else float("nan"),
        }
        self.results.append(result)
        print(
            f"{case:34} {result['stock_gib_s']:7.2f} {result['ours_gib_s']:7.2f} GiB/s  "
            f"x{result['throughput_ratio']:.2f} ({min(ratios):.2f}..{max(ratios):.2f})   "
            f"{cpu['stock']:.3f} {cpu['ours']:.3f} CPU s/GiB  x{result['cpu_ratio']:.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("build"), help="where the files go")
    parser.add_argument("--size", type=int, default=GIB, help="bytes of the large tensor (default: 1 GiB)")
    parser.add_argument("--files", type=int, default=1000, help="files of 1 MiB written at once")
    parser.add_argument("--small", type=int, default=20_000, help="reads of 4 KiB")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", default=["large", "files", "small"], choices=["large", "files", "small"])
    parser.add_argument("--json", type=pathlib.Path, help="results go there too")
    arguments = parser.parse_args()
    stock = load_stock(pathlib.Path("build/torch_extensions").resolve())
    arguments.folder.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ds-io-", dir=arguments.folder))
    bench = Bench(arguments.rounds)
    path = str(folder / "large")
    print(f"{'':34}   stock    ours")
    try:
        if "large" in arguments.only:
            sweep = list(itertools.product((MIB, 8 * MIB), (32, 128), (False,), (True, False), (1, 2)))
            size = arguments.size
            Contender(ours, OUR_SETTINGS, size).write(path, True)
            for read in (False, True):
                settings = best_settings(stock, path, size, read, sweep)
                print(f"stock's best settings for {'reads' if read else 'writes'}: {settings}")
                theirs, mine = Contender(stock, settings, size), Contender(ours, OUR_SETTINGS, size)
                for pinned in (True, False):
                    name = f"{'read' if read else 'write'} {size // MIB} MiB, {'pinned' if pinned else 'ordinary'}"
                    pair = [
                        (lambda c=c, p=pinned: (c.read if read else c.write)(path, p))  # noqa: B023
                        for c in (theirs, mine)
                    ]
                    bench.compare(name, size, *pair)
                theirs.close()
                mine.close()
        if "files" in arguments.only or "small" in arguments.only:
            size = arguments.files * MIB
            settings = (MIB, 32, False, True, 1)
            theirs, mine = Contender(stock, settings, size), Contender(ours, settings, size)
        if "files" in arguments.only:
            count = arguments.files
            (folder / "files").mkdir()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            mine.write_files(folder / "files", count)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            print(f"memory of ours for {count} pending writes: {grown / 1024:.1f} MiB more")
            bench.compare(
                f"{count} files of 1 MiB, in place",
                size,
                lambda: theirs.write_files(folder / "files", count),
                lambda: mine.write_files(folder / "files", count),
            )

            def no_files() -> None:
                shutil.rmtree(folder / "fresh", ignore_errors=True)
                (folder / "fresh").mkdir()

            bench.compare(
                f"{count} new files of 1 MiB",
                size,
                lambda: theirs.write_files(folder / "fresh", count),
                lambda: mine.write_files(folder / "fresh", count),
                prepare=no_files,
            )
        if "small" in arguments.only:
            mine.write(path, True)
            bench.compare(
                f"{arguments.small} reads of 4 KiB",
                arguments.small * 4096,
                lambda: theirs.small_reads(path, arguments.small),
                lambda: mine.small_reads(path, arguments.small),
            )
    finally:
        shutil.rmtree(folder)
    if arguments.json:
        arguments.json.write_text(json.dumps(bench.results, indent=2) + "\n")


if __name__ == "__main__":
    main()
