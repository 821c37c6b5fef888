"""The pages of python/examples do what they say: each is run as a user would run it, and what it prints is compared
with what must come out.
"""

from __future__ import annotations

import importlib.util
import pathlib
import signal
import subprocess
import sys

import pytest
import tensorshelf as ts

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "python" / "examples"


def run(name: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def output(name: str, *arguments: object) -> str:
    done = run(name, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_train_crash_resume(shelf_dir, tmp_path):
    crashed = run("train_crash_resume.py", shelf_dir, "--steps", 14, "--crash-at", 8)
    assert crashed.returncode == -signal.SIGKILL
    assert crashed.stdout in ("from the start\n", "")
    resumed = output("train_crash_resume.py", shelf_dir, "--steps", 14).splitlines()
    assert resumed[0].startswith("from step ")
    assert 1 <= int(resumed[0].split()[-1]) <= 8
    whole = output("train_crash_resume.py", tmp_path / "whole", "--steps", 14).splitlines()
    assert whole[0] == "from the start"
    assert resumed[1] == whole[1]  # the same loss as without the crash
    with ts.open(shelf_dir, "r") as store:
        assert ts.checkpoint.load(store, "step-10/")["step"] == 10


def train_on_ranks(rank: int, root: str, until: int, losses: str) -> None:
    spec = importlib.util.spec_from_file_location("fsdp_resume", EXAMPLES / "fsdp_resume.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loss = module.train(root, until)
    if rank == 0:
        with open(losses, "a") as file:
            file.write(f"{loss}\n")


def test_fsdp_resume(shelf_dir, ranks, tmp_path):
    losses, alone = tmp_path / "losses", tmp_path / "alone"
    for world, until in ((2, 10), (1, 15), (4, 25)):
        ranks(train_on_ranks, world, shelf_dir, until, losses)
    assert [info.id for info in ts.checkpoint.list_checkpoints(shelf_dir)] == ["step-20", "step-25"]
    ranks(train_on_ranks, 1, shelf_dir.parent / "whole", 25, alone)
    resumed = [float(line) for line in losses.read_text().split()]
    assert len(resumed) == 3
    # Sums over another number of ranks round differently.
    assert resumed[-1] == pytest.approx(float(alone.read_text()), rel=1e-3)


def test_optimizer_on_shelf(shelf_dir):
    lines = output("optimizer_on_shelf.py", shelf_dir).splitlines()
    assert lines[-1] == "16 MiB of states on the shelf; the second half again: equal"


def test_model_larger_than_memory(shelf_dir):
    pytest.importorskip("accelerate")
    text = output("model_larger_than_memory.py", shelf_dir, "--size-mib", 320, "--limit-mib", 200)
    assert text == "79 layers, 316 MiB, in 200 MiB of memory: equal\n"
