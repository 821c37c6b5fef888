"""Stores for tests, on a real file system (build/) where possible: direct I/O is half of what is tested."""

from __future__ import annotations

import inspect
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest
import tensorshelf as ts
import torch

BUILD = pathlib.Path(__file__).resolve().parents[2] / "build"


@pytest.fixture
def shelf_dir(tmp_path: pathlib.Path):
    """A path at which nothing is yet."""
    if not os.access(BUILD, os.W_OK):
        yield tmp_path / "shelf"
        return
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pytest-shelf-", dir=BUILD))
    yield folder / "shelf"
    shutil.rmtree(folder)


@pytest.fixture
def shelf(shelf_dir: pathlib.Path) -> pathlib.Path:
    """An empty store of 64 MiB, closed."""
    ts.create(shelf_dir, capacity="64MiB", prefill="none")
    return shelf_dir


@pytest.fixture
def store(shelf: pathlib.Path):
    with ts.open(shelf) as opened:
        yield opened


@pytest.fixture
def raw():
    """The bytes of a tensor: equality that holds for NaN, for float8 and for everything else."""

    def bytes_of(tensor: torch.Tensor) -> bytes:
        flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
        return bytes(flat.view(torch.uint8).numpy()) if flat.numel() else b""

    return bytes_of


@pytest.fixture
def python():
    """Starts another Python with a program and arguments; the caller waits for it."""

    def start(program: str, *arguments: object, **keywords) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-u", "-c", program, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **keywords,
        )

    return start


@pytest.fixture(scope="session")
def rank_server():
    server = subprocess.Popen(
        [sys.executable, "-u", str(pathlib.Path(__file__).parent / "rank_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield server
    server.stdin.close()
    server.wait(60)


@pytest.fixture
def ranks(rank_server):
    """Runs a function of the test file, ``function(rank, *arguments)``, on ranks of a gloo process group.

    World size 0: one process without a process group. Returns the exit codes; with ``check`` a failure is one here.
    """

    def run(function, world: int, *arguments: object, check: bool = True, timeout: float = 240) -> list[int]:
        request = {"file": inspect.getfile(function), "function": function.__name__, "world": world}
        request |= {"arguments": [str(a) if isinstance(a, os.PathLike) else a for a in arguments], "timeout": timeout}
        rank_server.stdin.write(json.dumps(request) + "\n")
        rank_server.stdin.flush()
        answer = json.loads(rank_server.stdout.readline())
        if check:
            assert answer["codes"] == [0] * max(world, 1), "\n".join(answer["errors"])
        return answer["codes"]

    return run
