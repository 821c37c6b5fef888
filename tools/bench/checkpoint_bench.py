#!/usr/bin/env python3
"""Checkpoint and offload against what people use instead, alternating in one run, durable on both sides.

    python tools/bench/checkpoint_bench.py --ceiling build/release/tools/bench/raw_ceiling --folder /nvme/bench save

Each line is a median over the rounds; ratios are medians of each round's own ratio. "raw" is the ceiling: libaio with
O_DIRECT, the same bytes from (into) touched memory of a file that was written before, and fdatasync.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable

import tensorshelf as ts
import torch
import torch.distributed.checkpoint as dcp
from tensorshelf.checkpoint import AsyncSaver, ShelfReader, ShelfWriter, roots

warnings.simplefilter("ignore")


def state_of(size: int, count: int = 290) -> dict[str, torch.Tensor]:
    """A state like a transformer's: nine tenths of the bytes in a few shapes, the rest small."""
    torch.manual_seed(0)
    large = count * 2 // 3
    rows = max(1, size // large // 4096)
    state = {f"layer.{i}.weight": torch.randn(rows, 1024) for i in range(large)}
    return state | {f"layer.{i}.bias": torch.randn(1024) for i in range(count - large)}


def nbytes(state: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in state.values())


def timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def drop_cache(path: pathlib.Path) -> None:
    """Takes a file, or the files of a folder, out of the page cache."""
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        descriptor = os.open(file, os.O_RDONLY)
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


class Raw:
    """The ceiling: a bare libaio loop in a process of its own (raw_ceiling.cc)."""

    def __init__(self, program: str, path: pathlib.Path, size: int) -> None:
        self._size = size >> 20 << 20
        self._process = subprocess.Popen(
            [program, str(path), str(self._size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def _answer(self) -> dict:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def _ask(self, line: str) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()["seconds"]

    def write(self) -> float:
        return self._ask(f"write {self._size}")

    def read(self) -> float:
        return self._ask(f"read {self._size}")

    def close(self) -> None:
        self._process.communicate()


def torch_save(state: dict, path: pathlib.Path) -> None:
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def report(title: str, results: dict[str, list[float]], size: int, against: str) -> None:
    print(f"\n{title}, {size >> 20} MiB")
    for name, seconds in results.items():
        ratio = statistics.median(b / a for a, b in zip(results[against], seconds, strict=True))
        each = " ".join(f"{value:.2f}" for value in seconds)
        print(f"  {name:<34}{statistics.median(seconds):7.3f} s  x{ratio:5.2f}   [{each}]")


def alternating(rounds: int, ways: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Each round runs every way once, each round in another order."""
    names = list(ways)
    results: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            results[name].append(ways[name]())
    return results


def bench_save(folder: pathlib.Path, size: int, rounds: int, ceiling: str) -> None:
    state = state_of(size)
    size = nbytes(state)
    raw = Raw(ceiling, folder / "raw", size)
    ts.create(folder / "shelf", capacity=int(4.2 * size) + (64 << 20), prefill="full")
    writer = ShelfWriter(folder / "root", capacity=int(3.2 * size) + (64 << 20))
    counter = iter(range(1000))
    changed = list(state)[:3]  # one in a hundred
    written: list[float] = []
    with ts.open(folder / "shelf") as store:

        def shelf() -> float:
            for tensor in state.values():
                tensor.add_(1)
            return timed(lambda: ts.checkpoint.save(state, store, "run/"))

        def shelf_new() -> float:
            store.delete_prefix("new/")
            return timed(lambda: ts.checkpoint.save(state, store, "new/"))

        def one_percent() -> float:
            for name in changed:
                state[name].add_(1)
            before = store.stats()["io"]["write_bytes"]
            seconds = timed(lambda: ts.checkpoint.save(state, store, "run/"))
            written.append((store.stats()["io"]["write_bytes"] - before) / size)
            return seconds

        def shelf_dcp() -> float:
            for tensor in state.values():
                tensor.add_(1)
            save = lambda: dcp.save(state, checkpoint_id=f"{next(counter)}", storage_writer=writer)  # noqa: E731
            seconds = timed(save)
            ts.checkpoint.keep(folder / "root", last=1)
            return seconds

        def dcp_files(threads: int) -> Callable[[], float]:
            def save() -> float:
                path = folder / f"dcp{threads}"
                shutil.rmtree(path, ignore_errors=True)
                return timed(lambda: dcp.save(state, storage_writer=dcp.FileSystemWriter(path, thread_count=threads)))

            return save

        ways = {
            "raw": raw.write,
            "checkpoint.save": shelf_new,
            "checkpoint.save, all changed": shelf,
            "checkpoint.save, 1 % changed": one_percent,
            "ShelfWriter, all changed": shelf_dcp,
            "FileSystemWriter, 1 thread": dcp_files(1),
            "FileSystemWriter, 2 threads": dcp_files(2),
            "torch.save + fsync": lambda: timed(lambda: torch_save(state, folder / "state.pt")),
        }
        shelf()
        shelf_new()
        shelf_dcp()
        report("durable save", alternating(rounds, ways), size, "raw")
        print(f"  the save with 1 % changed wrote {100 * statistics.median(written):.2f} % of the bytes")
    roots.close(str(folder / "root"))
    raw.close()


def bench_async(folder: pathlib.Path, size: int, rounds: int, ceiling: str) -> None:
    state = state_of(size)
    size = nbytes(state)
    ts.create(folder / "shelf", capacity=int(4.2 * size) + (64 << 20), prefill="full")
    with ts.open(folder / "shelf") as store, AsyncSaver(store, staging=size + (64 << 20)) as saver:
        blocked: list[float] = []

        def durable() -> float:
            for tensor in state.values():
                tensor.add_(1)
            begun = time.perf_counter()
            saving = saver.save(state, "run/")
            blocked.append(time.perf_counter() - begun)
            saving.wait()
            return time.perf_counter() - begun

        def files() -> float:
            path = folder / "dcp"
            shutil.rmtree(path, ignore_errors=True)
            return timed(lambda: dcp.save(state, storage_writer=dcp.FileSystemWriter(path, thread_count=2)))

        durable()
        blocked.clear()
        results = alternating(rounds, {"FileSystemWriter, 2 threads": files, "save_async until durable": durable})
        results["save_async, blocking part"] = blocked
        report("save in the background", results, size, "FileSystemWriter, 2 threads")


def bench_load(folder: pathlib.Path, size: int, rounds: int, ceiling: str) -> None:
    state = state_of(size)
    size = nbytes(state)
    raw = Raw(ceiling, folder / "raw", size)
    ts.create(folder / "shelf", capacity=int(1.2 * size) + (64 << 20))
    dcp.save(state, checkpoint_id="x", storage_writer=ShelfWriter(folder / "root", capacity=2 * size + (64 << 20)))
    dcp.save(state, storage_writer=dcp.FileSystemWriter(folder / "dcp", thread_count=2))
    torch_save(state, folder / "state.pt")
    target = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    roots.close(str(folder / "root"))

    def copied_out() -> None:
        found = torch.load(folder / "state.pt", mmap=True)
        for name, tensor in target.items():
            tensor.copy_(found[name])

    def cold(path: str, call: Callable[[], object]) -> Callable[[], float]:
        def run() -> float:
            drop_cache(folder / path)
            return timed(call)

        return run

    with ts.open(folder / "shelf") as store:
        ts.checkpoint.save(state, store, "run/")
        del state
        reader = dcp.FileSystemReader(folder / "dcp")
        ways = {
            "raw": raw.read,
            "checkpoint.load(into=)": cold("shelf", lambda: ts.checkpoint.load(store, "run/", into=target)),
            "ShelfReader": cold(
                "root", lambda: dcp.load(target, checkpoint_id="x", storage_reader=ShelfReader(folder / "root"))
            ),
            "FileSystemReader": cold("dcp", lambda: dcp.load(target, storage_reader=reader)),
            "torch.load(mmap=True), copied out": cold("state.pt", copied_out),
        }
        report("cold load into a state", alternating(rounds, ways), size, "raw")
    raw.close()


def bench_optimizer(folder: pathlib.Path, size: int, rounds: int, ceiling: str) -> None:
    """``size`` bytes of parameters; the states are twice that, read and written in each step."""
    shapes = [(1024, 4096)] * max(1, size // (1024 * 4096 * 4))
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    for parameter in params:
        parameter.grad = torch.randn_like(parameter)
    states = 2 * sum(parameter.nbytes for parameter in params)
    raw = Raw(ceiling, folder / "raw", states)
    ts.create(folder / "shelf", capacity=int(2.5 * states) + (64 << 20), prefill="full")
    in_memory = torch.optim.AdamW(params, lr=1e-5)
    in_memory.step()
    with ts.open(folder / "shelf", result_pool="256MiB") as store:
        optimizer = ts.offload.OffloadedOptimizer(
            params, torch.optim.AdamW, store=store, prefix="opt/", window_bytes="256MiB", lr=1e-5
        )
        optimizer.step()
        optimizer.flush()

        def step() -> None:
            optimizer.step()
            optimizer.flush()

        ways = {
            "compute alone": lambda: timed(in_memory.step),
            "raw read and write of the states": lambda: raw.read() + raw.write(),
            "OffloadedOptimizer": lambda: timed(step),
        }
        report("AdamW step, states", alternating(rounds, ways), states, "raw read and write of the states")
    raw.close()


def bench_accelerate(folder: pathlib.Path, size: int, rounds: int, ceiling: str) -> None:
    from accelerate.hooks import attach_align_device_hook, remove_hook_from_submodules
    from accelerate.utils import OffloadedWeightsLoader, offload_state_dict

    width = 2048
    count = max(1, size // (4 * width * width))
    with torch.device("meta"):
        model = torch.nn.Sequential(*[torch.nn.Linear(width, width) for _ in range(count)])
    state = {name: torch.randn(value.shape) for name, value in model.state_dict().items()}
    size = nbytes(state)
    offload_state_dict(folder / "accelerate", state)
    ts.create(folder / "shelf", capacity=int(1.2 * size) + (64 << 20))
    with ts.open(folder / "shelf") as store:
        store.put_many(state, prefix="m/")
    del state
    inputs = torch.randn(1, width)

    @torch.no_grad()
    def forward(weights_map) -> None:
        attach_align_device_hook(model, execution_device=torch.device("cpu"), offload=True, weights_map=weights_map)
        model(inputs)
        remove_hook_from_submodules(model)

    with ts.open(folder / "shelf", "r") as store:

        def shelf() -> float:
            drop_cache(folder / "shelf")
            return timed(lambda: forward(store.mapping("m/")))

        def files() -> float:
            drop_cache(folder / "accelerate")
            return timed(lambda: forward(OffloadedWeightsLoader(save_folder=folder / "accelerate")))

        ways = {"accelerate's disk folder": files, "store.mapping": shelf}
        report("cold forward through accelerate", alternating(rounds, ways), size, "accelerate's disk folder")


BENCHES = {
    "save": bench_save,
    "async": bench_async,
    "load": bench_load,
    "optimizer": bench_optimizer,
    "accelerate": bench_accelerate,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="on the disk to be measured")
    parser.add_argument("--ceiling", required=True, help="the raw_ceiling program")
    parser.add_argument("--size-mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("benches", nargs="*", default=list(BENCHES), metavar="BENCH", help=", ".join(BENCHES))
    options = parser.parse_args()
    for name in options.benches:
        folder = options.folder / f"checkpoint-bench-{os.getpid()}"
        folder.mkdir(parents=True)
        try:
            BENCHES[name](folder, options.size_mib << 20, options.rounds, options.ceiling)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
