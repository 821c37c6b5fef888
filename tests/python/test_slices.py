"""Parts of stored tensors equal the same parts of the tensor in memory.
Random shapes and indices from a seed, torch's own indexing as the reference; the seed is in the failure message.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
import tensorshelf as ts
import torch


def random_index(rng: random.Random, shape: tuple[int, ...]):
    components = []
    for size in shape[: rng.randint(0, len(shape))]:
        kind = rng.random()
        if kind < 0.3 and size:
            components.append(rng.randrange(-size, size))
        else:
            bounds = [None, *range(-size - 2, size + 3)]
            components.append(slice(rng.choice(bounds), rng.choice(bounds), rng.choice([None, 1, 1, 2, 3, 50])))
    if rng.random() < 0.3:
        components.insert(rng.randint(0, len(components)), None)
    if rng.random() < 0.3:
        components.append(...)
    if len(components) == 1 and rng.random() < 0.5:
        return components[0]
    return tuple(components)


@pytest.mark.parametrize("seed", range(6))
def test_against_torch(store, seed):
    rng = random.Random(seed)
    shapes = [(), (17,), (0, 3), (5, 7), (3, 1, 4), (300, 200), (4, 5, 6, 7), (40, 30, 50)]
    tensors = {
        f"t{i}": torch.randn(shape).to(rng.choice([torch.float32, torch.bfloat16, torch.int8]))
        for i, shape in enumerate(shapes)
    }
    store.put_many(tensors, block_size=rng.choice([4096, "64KiB"]))
    requests = []
    for _ in range(150):
        name = rng.choice(list(tensors))
        index = random_index(rng, tuple(tensors[name].shape))
        requests.append((name, index))
        expected = tensors[name][index]
        got = store.slice(name)[index]
        assert got.shape == expected.shape, (seed, name, index)
        assert torch.equal(got, expected), (seed, name, index)
        assert got.is_contiguous()
        assert got.untyped_storage().nbytes() == expected.numel() * expected.element_size(), (seed, name, index)
        out = torch.zeros_like(expected.contiguous())
        store.slice(name).read(index, out=out)
        assert torch.equal(out, expected), (seed, name, index)
    many = store.read_slices(requests)
    for (name, index), got in zip(requests, many, strict=True):
        assert torch.equal(got, tensors[name][index]), (seed, name, index)


@pytest.mark.parametrize("make", [list, torch.tensor, np.array, lambda rows: torch.tensor(rows, dtype=torch.int32)])
def test_rows(store, make):
    table = torch.randn(500, 33)
    store.put("table", table, block_size=4096)
    rows = [7, 7, -1, 0, 1, 2, 499, 250]
    part = store.slice("table")
    assert torch.equal(part[make(rows)], table[rows])
    assert torch.equal(part[make(rows), 3:30:2], table[rows, 3:30:2])
    assert torch.equal(part[make(rows), ..., None], table[rows][..., None])
    assert torch.equal(store.read_slices([("table", make(rows)), ("table", 3)])[0], table[rows])
    assert part[[]].shape == (0, 33)
    out = torch.zeros(33, len(rows)).T
    part.read(make(rows), out=out)
    assert torch.equal(out, table[rows])


def test_mask(store):
    table = torch.randn(50, 3)
    store.put("table", table)
    mask = torch.arange(50) % 7 == 0
    assert torch.equal(store.slice("table")[mask], table[mask])
    with pytest.raises(IndexError, match="mask of 49"):
        store.slice("table")[mask[:49]]


def test_reads_only_what_it_needs(store):
    store.put("table", torch.zeros(4096, 1024))  # 16 MiB
    before = store.stats()["io"]["read_bytes"]
    store.slice("table")[100:116]  # one block of 64 KiB, unaligned: two
    assert store.stats()["io"]["read_bytes"] - before <= 2 * 65536


def test_many_slices_into_targets(store):
    table = torch.randn(1000, 64)
    store.put("table", table)
    out = [torch.zeros(10, 64), torch.zeros(64, 5).T, torch.zeros(())]
    got = store.read_slices([("table", slice(5, 15)), ("table", slice(0, 10, 2)), ("table", (3, 4))], out=out)
    assert all(a is b for a, b in zip(got, out, strict=True))
    assert torch.equal(out[0], table[5:15])
    assert torch.equal(out[1], table[0:10:2])
    assert torch.equal(out[2], table[3, 4])


@pytest.mark.parametrize(
    ("index", "error", "words"),
    [
        (5, IndexError, "out of bounds for dimension 0 with size 5"),
        (-6, IndexError, "out of bounds"),
        ((0, 0, 0), IndexError, "too many indices"),
        ((slice(None, None, 0),), ValueError, "step must be greater than zero"),
        ((slice(None, None, -1),), ValueError, "step must be greater than zero"),
        ((..., ...), ValueError, "single ellipsis"),
        ("x", TypeError, "not str"),
        (True, TypeError, "not bool"),
        ((slice(None), [0]), TypeError, "not list"),
        ([5], IndexError, "out of bounds"),
        ([0.5], IndexError, "integers"),
        ([[0]], IndexError, "1-D"),
        (2**70, IndexError, "cannot fit"),
    ],
)
def test_bad_indices(store, index, error, words):
    store.put("t", torch.zeros(5, 4))
    with pytest.raises(error, match=words):
        store.slice("t")[index]


def test_bad_targets_and_requests(store):
    store.put("t", torch.zeros(5, 4))
    with pytest.raises(ValueError, match=r"float32\(2, 4\)"):
        store.slice("t").read(slice(0, 2), out=torch.zeros(3, 4))
    with pytest.raises(ValueError, match="as many tensors"):
        store.read_slices([("t", 0)], out=[])
    with pytest.raises(KeyError):
        store.read_slices([("t", 0), ("missing", 0)])
    with pytest.raises(KeyError):
        store.slice("missing")


def test_keeps_its_version(store):
    old = torch.randn(100, 100)
    store.put("t", old)
    part = store.slice("t")
    store.put("t", torch.zeros(100, 100))
    for _ in range(20):
        store.put("other", torch.ones(1 << 20))
    assert torch.equal(part[...], old)
    assert (len(part), part.ndim, part.nbytes, part.dtype) == (100, 2, 40000, torch.float32)
    del store["t"]
    assert torch.equal(part[3], old[3])


def test_after_close(shelf):
    with ts.open(shelf) as store:
        store.put("t", torch.zeros(5, 4))
        part = store.slice("t")
    with pytest.raises(ts.ClosedError):
        part[0]
