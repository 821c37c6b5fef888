"""Whole operations of tensorshelf beside a raw libaio loop and other ways to store tensors.

Every case alternates its contenders in each round on the same bytes, touches every byte, and is durable on all sides
where it writes. Quoted are medians over the rounds, the ratio to the ceiling of the same round, CPU seconds per GiB.
"Cold" means dropped from the page cache before each measurement; what is behind this machine may still cache.

``.venv/bin/python tools/bench/bench.py --help``
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import importlib.util
import json
import os
import pathlib
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import safetensors.torch
import tensorshelf as ts
import torch

GIB = 1 << 30
Contender = Callable[[], tuple[float, float]]  # (seconds, CPU seconds)


class Ceiling:
    """The raw loop, one long-lived process; each call returns (seconds, CPU seconds)."""

    def __init__(self, program: str, folder: pathlib.Path, size: int) -> None:
        self._process = subprocess.Popen(
            [program, str(folder / "ceiling"), str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the raw loop ended")
        return json.loads(line)

    def __call__(self, command: str) -> tuple[float, float]:
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        return answer["seconds"], answer["cpu"]

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def drop_page_cache() -> None:
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("1")


def measured(call: Callable[[], object]) -> tuple[float, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    begin = time.perf_counter()
    call()
    seconds = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_SELF)
    return seconds, after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime


def fsync_path(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def save_safetensors(state: dict, path: pathlib.Path) -> None:
    safetensors.torch.save_file(state, path)
    fsync_path(path)


def save_torch(state: dict, path: pathlib.Path) -> None:
    torch.save(state, path)
    fsync_path(path)


def random_tensor(size: int) -> torch.Tensor:
    """``size`` bytes of ordinary torch memory that no file system can make small."""
    return torch.randint(0, 1 << 62, (size // 8,)).view(torch.uint8)


def checkpoint_sizes(total: int) -> list[int]:
    """290 sizes from 8 KiB to 128 MiB (scaled with ``total``) that look like a transformer's."""
    layer = [8 << 10, 8 << 10, 4 << 20, 4 << 20, 8 << 20, 12 << 20, 12 << 20, 64 << 10, 64 << 10]
    sizes = layer * 32 + [128 << 20, 128 << 20]
    scale = total / sum(sizes)
    return [max(8192, int(size * scale) // 4096 * 4096) for size in sizes]


# Each is a process of its own: the memory that it reads into has never been touched. Prints (seconds, CPU seconds) of
# the load alone, without importing and opening, after which every byte is in memory.
FIRST_LOADS = {
    "tensorshelf": """
import tensorshelf as ts
store = ts.open(sys.argv[1], mode="r")
names = list(store.keys(prefix="f/"))
begin()
tensors = store.get_many(names)
end()
""",
    "Run:ai streamer": """
from runai_model_streamer import SafetensorsStreamer
with SafetensorsStreamer() as streamer:
    begin()
    streamer.stream_file(sys.argv[2])
    tensors = dict(streamer.get_tensors())
    end()
""",
    "safetensors, mapped and cloned": """
import safetensors
begin()
with safetensors.safe_open(sys.argv[2], "pt") as file:
    tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
end()
""",
}
FIRST_LOAD_CLOCK = """
import resource, sys, time
import torch
def begin():
    global start, usage
    usage = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
def end():
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(seconds, after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime)
"""


def first_load(contender: str, shelf: pathlib.Path, file: pathlib.Path) -> tuple[float, float]:
    drop_page_cache()
    script = FIRST_LOAD_CLOCK + FIRST_LOADS[contender]
    done = subprocess.run(
        [sys.executable, "-c", script, shelf, file], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"{contender}: the process ended with status {done.returncode}")
    seconds, cpu = done.stdout.split()[-2:]
    return float(seconds), float(cpu)


class Bench:
    def __init__(self, arguments: argparse.Namespace, folder: pathlib.Path) -> None:
        self.rounds = arguments.rounds
        self.size = arguments.size
        self.folder = folder
        self.ceiling = Ceiling(arguments.ceiling, folder, max(self.size, 2 * arguments.size))
        self.results: list[dict] = []
        self.shelf = folder / "shelf"
        ts.create(self.shelf, capacity=int(6 * self.size + (1 << 30)), prefill="full")
        self.store = ts.open(self.shelf)

    def compare(
        self, case: str, size: int, target: str, contenders: dict[str, Callable[[], tuple[float, float]]]
    ) -> None:
        """Runs the contenders in turn; the first one is what the others are divided by."""
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
        for contender in contenders.values():  # once to warm up
            contender()
        for _ in range(self.rounds):
            for name, contender in contenders.items():
                times[name].append(contender())
        reference = next(iter(contenders))
        print(f"\n{case} ({target})")
        for name, samples in times.items():
            ratios = [base[0] / own[0] for base, own in zip(times[reference], samples, strict=True)]
            seconds = [sample[0] for sample in samples]
            row = {
                "case": case,
                "contender": name,
                "target": target,
                "reference": reference,
                "seconds_median": statistics.median(seconds),
                "seconds_min": min(seconds),
                "seconds_max": max(seconds),
                "ratio_median": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "cpu_seconds_per_gib": statistics.median(sample[1] for sample in samples) / (size / GIB),
            }
            self.results.append(row)
            print(
                f"  {name:34} {row['seconds_median']:9.4f} s  x{row['ratio_median']:5.2f}"
                f" ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})  {row['cpu_seconds_per_gib']:7.3f} CPU s/GiB"
            )

    # Each case says in its title what is wanted. It leaves nothing in the store.

    def large_put(self) -> None:
        quarter = self.size // 4
        ordinary = {f"t{i}": random_tensor(quarter) for i in range(4)}
        aligned = {name: ts.empty(quarter, torch.uint8).copy_(tensor) for name, tensor in ordinary.items()}
        self.compare(
            "durable put, 4 tensors",
            self.size,
            "ordinary memory >= 0.85, ts.empty >= 0.95",
            {
                "raw write + fdatasync": lambda: self.ceiling(f"write {self.size}"),
                "tensorshelf, ordinary memory": lambda: measured(lambda: self.store.put_many(ordinary, prefix="o/")),
                "tensorshelf, ts.empty": lambda: measured(lambda: self.store.put_many(aligned, prefix="a/")),
                "safetensors + fsync": lambda: measured(lambda: save_safetensors(ordinary, self.folder / "st")),
            },
        )
        self.store.delete_prefix("o/")
        self.store.delete_prefix("a/")

    def large_get(self) -> None:
        quarter = self.size // 4
        self.store.put_many({f"t{i}": random_tensor(quarter) for i in range(4)}, prefix="g/")
        names = [f"g/t{i}" for i in range(4)]
        outs = {name: ts.empty(quarter, torch.uint8).zero_() for name in names}
        ordinary = {name: torch.zeros(quarter, dtype=torch.uint8) for name in names}
        state = self.store.get_many(names)
        save_safetensors(state, self.folder / "st")
        del state

        def get(**keywords) -> tuple[float, float]:
            return measured(lambda: self.store.get_many(names, **keywords))

        def load_file() -> None:
            drop_page_cache()
            with safetensors.safe_open(self.folder / "st", "pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    file.get_tensor(name).clone()

        self.compare(
            "get, 4 tensors, cold",
            self.size,
            "out= >= 0.95, new tensors from the pool >= 0.9; verify=False CPU <= 0.014 s/GiB",
            {
                "raw read": lambda: self.ceiling(f"read {self.size}"),
                "tensorshelf, out= aligned": lambda: get(out=outs),
                "tensorshelf, out= ordinary": lambda: get(out=ordinary),
                "tensorshelf, out= aligned, verify=False": lambda: get(out=outs, verify=False),
                "tensorshelf, new tensors": lambda: get(),
                "safetensors, mapped and cloned": lambda: measured(load_file),
            },
        )
        self.store.delete_prefix("g/")

    def first_load(self) -> None:
        quarter = self.size // 4
        state = {f"f/t{i}": random_tensor(quarter) for i in range(4)}
        self.store.put_many(state)
        save_safetensors(state, self.folder / "st")
        del state
        contenders = {"raw read": lambda: self.ceiling(f"read {self.size}")}
        for name in FIRST_LOADS:
            if name == "Run:ai streamer" and importlib.util.find_spec("runai_model_streamer") is None:
                print("first load: Run:ai's streamer is left out; pip install runai-model-streamer adds it")
                continue
            contenders[name] = functools.partial(first_load, name, self.shelf, self.folder / "st")
        self.compare("first load in a process, 4 new tensors, cold", self.size, ">= Run:ai's streamer", contenders)
        self.store.delete_prefix("f/")

    def checkpoint(self) -> None:
        state = {f"layer.{i:03}": random_tensor(size) for i, size in enumerate(checkpoint_sizes(2 * self.size))}
        total = sum(tensor.nbytes for tensor in state.values())
        self.compare(
            "checkpoint of 290 tensors, durable save",
            total,
            ">= 0.8",
            {
                "raw write + fdatasync": lambda: self.ceiling(f"write {total}"),
                "tensorshelf": lambda: measured(lambda: self.store.put_many(state, prefix="c/")),
                "safetensors + fsync": lambda: measured(lambda: save_safetensors(state, self.folder / "st")),
                "torch.save + fsync": lambda: measured(lambda: save_torch(state, self.folder / "pt")),
            },
        )
        (self.folder / "pt").unlink()

        def load_safetensors() -> None:
            drop_page_cache()
            with safetensors.safe_open(self.folder / "st", "pt") as file:
                for name, tensor in state.items():
                    tensor.copy_(file.get_tensor(name))

        out = {f"c/{name}": tensor for name, tensor in state.items()}
        self.compare(
            "checkpoint of 290 tensors, cold load into existing tensors",
            total,
            ">= 0.9",
            {
                "raw read": lambda: self.ceiling(f"read {total}"),
                "tensorshelf": lambda: measured(lambda: self.store.get_many(list(out), out=out)),
                "safetensors": lambda: measured(load_safetensors),
            },
        )
        self.store.delete_prefix("c/")

    def small_many(self) -> None:
        count, size = 10_000, 4096
        state = {f"s/{i:05}": random_tensor(size) for i in range(count)}
        files = self.folder / "files"

        def one_file_each() -> None:
            shutil.rmtree(files, ignore_errors=True)
            files.mkdir()
            for name, tensor in state.items():
                descriptor = os.open(files / name[2:], os.O_WRONLY | os.O_CREAT, 0o600)
                os.write(descriptor, memoryview(tensor.numpy()))
                os.fsync(descriptor)
                os.close(descriptor)

        self.compare(
            "put_many of 10 000 x 4 KiB, one durable commit",
            count * size,
            ">= 15 x one file each, >= 2 x safetensors",
            {
                "one file each + fsync": lambda: measured(one_file_each),
                "safetensors + fsync": lambda: measured(lambda: save_safetensors(state, self.folder / "st")),
                "tensorshelf": lambda: measured(lambda: self.store.put_many(state)),
            },
        )
        shutil.rmtree(files)
        names = list(state)
        random.Random(1).shuffle(names)

        def pread() -> None:
            drop_page_cache()
            with safetensors.safe_open(self.folder / "st", "pt") as file:
                for name in names:
                    file.get_tensor(name).clone()

        self.compare(
            "get_many of 10 000 x 4 KiB in random order",
            count * size,
            ">= 1.3 x the best peer cold; >= 150 000/s",
            {
                "safetensors, cold": lambda: measured(pread),
                "tensorshelf": lambda: measured(lambda: self.store.get_many(names)),
            },
        )
        self.store.delete_prefix("s/")

    def small_single(self) -> None:
        count = 400
        tensor = random_tensor(4096)
        path = self.folder / "files"

        def one_file_each() -> None:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
            for i in range(count):
                descriptor = os.open(path / str(i), os.O_WRONLY | os.O_CREAT, 0o600)
                os.write(descriptor, memoryview(tensor.numpy()))
                os.fsync(descriptor)
                os.close(descriptor)

        def puts(threads: int) -> None:
            def some(first: int) -> None:
                for i in range(first, count, threads):
                    self.store.put(f"one/{i}", tensor)

            with concurrent.futures.ThreadPoolExecutor(threads) as pool:
                list(pool.map(some, range(threads)))

        self.compare(
            f"{count} single durable puts of 4 KiB",
            count * 4096,
            "1 thread >= 1.0, 16 threads >= 4 x of 1 thread",
            {
                "one file each + fsync": lambda: measured(one_file_each),
                "tensorshelf, 1 thread": lambda: measured(lambda: puts(1)),
                "tensorshelf, 16 threads": lambda: measured(lambda: puts(16)),
            },
        )
        self.store.delete_prefix("one/")

    def slices(self) -> None:
        rows = self.size // 65536
        self.store.put("rows", random_tensor(self.size).view(rows, 65536))
        picked = torch.tensor([random.Random(2).randrange(rows) for _ in range(1000)])
        self.compare(
            "1000 random rows of 64 KiB in one call",
            1000 * 65536,
            ">= 0.8",
            {
                "raw random reads, depth 64": lambda: self.ceiling("random 1000 65536 64 3"),
                "tensorshelf": lambda: measured(lambda: self.store.slice("rows")[picked]),
            },
        )

    def close(self) -> None:
        self.store.close()
        self.ceiling.close()


CASES = ("large_put", "large_get", "first_load", "checkpoint", "small_many", "small_single", "slices")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ceiling", required=True, help="the raw_ceiling program")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path.cwd(), help="on the device to measure")
    parser.add_argument("--size", type=int, default=GIB, help="bytes of the large cases (default: 1 GiB)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=CASES, action="append", help="one case; may be repeated")
    parser.add_argument("--json", type=pathlib.Path, help="where the results are written")
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tensorshelf-bench-", dir=arguments.folder))
    try:
        bench = Bench(arguments, folder)
        for case in arguments.only or CASES:
            getattr(bench, case)()
        bench.close()
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(bench.results, indent=1) + "\n")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
