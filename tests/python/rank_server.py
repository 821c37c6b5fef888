"""Runs functions of test files in groups of forked ranks, for tests of torch.distributed.

A process of its own that imports everything once and never opens a store, so that its children start at once and in a
clean state. Reads requests from standard input, one JSON object a line; answers with one line each.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import signal
import sys
import tempfile
import time
import traceback
import warnings

import tensorshelf  # noqa: F401
import torch
import torch.distributed as dist
import torch.distributed.checkpoint
import torch.distributed.fsdp


def load(path: str):
    spec = importlib.util.spec_from_file_location(os.path.basename(path).removesuffix(".py"), path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run_rank(function, rank: int, world: int, arguments: list, store: str, errors: str) -> None:
    status = 1
    try:
        os.dup2(2, 1)
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        os.environ.update(MASTER_ADDR="127.0.0.1", LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE=str(world))
        if world > 0:
            dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
        function(rank, *arguments)
        status = 0
    except BaseException:
        with open(errors, "w") as file:
            file.write(traceback.format_exc())
    sys.stderr.flush()
    os._exit(status)


def run(request: dict) -> dict:
    module = load(request["file"])
    function = getattr(module, request["function"])
    world = request["world"]
    with tempfile.TemporaryDirectory() as folder:
        pids = []
        for rank in range(max(world, 1)):
            pid = os.fork()
            if pid == 0:
                run_rank(function, rank, world, request["arguments"], f"{folder}/store", f"{folder}/{rank}")
            pids.append(pid)
        codes = wait(pids, request["timeout"])
        files = [pathlib.Path(folder, str(rank)) for rank in range(len(pids))]
        texts = [file.read_text() if file.exists() else "" for file in files]
    return {"codes": codes, "errors": texts}


def wait(pids: list[int], timeout: float) -> list[int]:
    codes: dict[int, int] = {}
    end = time.monotonic() + timeout
    while len(codes) < len(pids):
        for pid in pids:
            if pid not in codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[pid] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            for pid in pids:
                if pid not in codes:
                    os.kill(pid, signal.SIGKILL)
            end = float("inf")
        time.sleep(0.01)
    return [codes[pid] for pid in pids]


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
