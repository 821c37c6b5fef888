"""Runs programs in the environment of the DeepSpeed under test, with tensorshelf.aio installed there."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build"


def run(*command: object, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        cwd=HERE,
        timeout=300,
    )
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


def run_python(program: str, *arguments: object, **environment: str) -> str:
    return run(sys.executable, "-c", program, *arguments, **environment).stdout


@pytest.fixture(scope="module")
def installed():
    """Route A, for what follows in a module: the tests of installing begin and end without."""
    run(sys.executable, "-m", "tensorshelf.aio", "install", "--accelerator", "cpu")
    yield
    run(sys.executable, "-m", "tensorshelf.aio", "uninstall")


@pytest.fixture
def folder():
    # In the build tree: /tmp may be a tmpfs.
    path = pathlib.Path(tempfile.mkdtemp(prefix="deepspeed-", dir=BUILD))
    yield path
    shutil.rmtree(path)


def train(mode: str, folder: pathlib.Path, action: str = "") -> dict:
    output = run(sys.executable, HERE / "train.py", mode, folder, *([action] if action else [])).stdout
    results = [line for line in output.splitlines() if line.startswith("RESULT ")]
    assert results, output
    return json.loads(results[-1].removeprefix("RESULT "))
