"""Goal: DeepSpeed's own benchmark runs on tensorshelf.aio as it is. Method: ds_io as a user starts it, its numbers
printed and its files of the size asked for."""

from __future__ import annotations

import pathlib
import re
import sys

import pytest
from conftest import run


@pytest.mark.parametrize("options", [[], ["--sequential_requests", "--single_submit"], ["--multi_process", "2"]])
def test_ds_io_writes_and_reads(installed, folder, options):
    ds_io = pathlib.Path(sys.executable).parent / "ds_io"
    common = [sys.executable, ds_io, "--folder", folder, "--io_size", "16M", "--loops", "2", "--io_parallel", "2"]
    for direction in ([], ["--read"]):
        output = run(*common, *direction, *options, DS_ACCELERATOR="cpu").stdout
        speeds = re.findall(r"([0-9.]+) GB/s", output)
        assert speeds, output
        assert all(float(speed) > 0 for speed in speeds)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert all(path.stat().st_size == 16 << 20 for path in files)
