"""The memory tier from Python: hits without I/O, hints, lent tensors and their life, memory="auto", prefetch.
What is read from the device is counted in stats(), so that a hit that does I/O fails.
"""

from __future__ import annotations

import gc
import logging
import os
import threading

import pytest
import tensorshelf as ts
import torch


@pytest.fixture
def tiered(shelf):
    with ts.open(shelf, memory="8MiB") as store:
        yield store


def tensor(size: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 255, (size,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def device_reads(store) -> int:
    return store.stats()["io"]["read_ops"]


def test_a_hit_reads_nothing(tiered, raw):
    value = torch.randn(300, 400).to(torch.bfloat16)
    tiered.put("a", value, cache="once")
    assert raw(tiered.get("a")) == raw(value)
    before = device_reads(tiered)
    assert raw(tiered.get("a")) == raw(value)
    assert raw(tiered.get_many(["a"])["a"]) == raw(value)
    assert raw(tiered.slice("a")[10:20]) == raw(value[10:20])
    buffer = torch.empty_like(value)
    tiered.get("a", out=buffer)
    assert raw(buffer) == raw(value)
    assert tiered.get("a", as_bytes=True) == raw(value)
    assert device_reads(tiered) == before
    memory = tiered.stats()["memory"]
    assert memory["capacity"] == 8 << 20
    assert memory["objects"] == 1
    assert memory["hits"] >= 5
    assert memory["misses"] == 1


def test_the_default_is_no_tier(store):
    store.put("a", tensor(100000))
    assert store.stats()["memory"]["capacity"] == 0
    lent = store.get("a", copy=False)
    assert torch.equal(lent, tensor(100000))
    assert store.stats()["memory"]["leases"] == 0
    store.prefetch(["a"])
    store.wait_for_prefetch()


def test_puts_leave_their_bytes(tiered):
    before = device_reads(tiered)
    tiered.put("none", tensor(100000, 1))
    tiered.put("keep", tensor(100000, 2), cache="keep")
    tiered.put_many({"many": tensor(100000, 3)}, cache="keep")
    with tiered.transaction() as tx:
        tx.put("tx", tensor(100000, 4), cache="keep")
    tiered.put_async("async", tensor(100000, 5), cache="keep").result()
    for seed, name in enumerate(("none", "keep", "many", "tx", "async"), 1):
        assert torch.equal(tiered.get(name), tensor(100000, seed))
    assert device_reads(tiered) == before
    assert tiered.stats()["memory"]["kept_objects"] == 4
    tiered.put("once", tensor(100000, 6), cache="once")
    assert torch.equal(tiered.get("once"), tensor(100000, 6))
    assert device_reads(tiered) > before


def test_replaced_and_deleted_values_are_never_served(tiered):
    for version in range(20):
        tiered.put("a", tensor(100000, version), cache="keep")
        assert torch.equal(tiered.get("a"), tensor(100000, version))
    tiered.rename("a", "b")
    tiered.clone("b", "c")
    tiered.put("b", tensor(100000, 99))
    assert torch.equal(tiered.get("b"), tensor(100000, 99))
    assert torch.equal(tiered.get("c"), tensor(100000, 19))
    tiered.delete("c")
    with pytest.raises(KeyError):
        tiered.get("c", copy=False)
    assert tiered.stats()["memory"]["objects"] == 1


def test_a_lent_tensor_is_not_copied(tiered):
    value = torch.randn(500, 300)
    tiered.put("a", value, cache="once")
    first = tiered.get("a", copy=False)
    before = device_reads(tiered)
    second = tiered.get("a", copy=False)
    many = tiered.get_many(["a"], copy=False)["a"]
    assert device_reads(tiered) == before
    for lent in (first, second, many):
        assert torch.equal(lent, value)
        assert lent.is_contiguous()
        assert lent.shape == value.shape
        assert lent.stride() == value.stride()
        assert not lent.requires_grad
    memory = tiered.stats()["memory"]
    assert memory["leases"] == 3
    assert memory["leased_bytes"] == value.nbytes
    assert memory["oldest_lease_seconds"] >= 0
    view = first[10:20].t()
    del first, second, many, lent
    gc.collect()
    assert tiered.stats()["memory"]["leases"] == 1  # the view's
    assert torch.equal(view, value[10:20].t())
    del view
    assert tiered.stats()["memory"]["leases"] == 0


def test_writing_to_a_lent_tensor_changes_nothing_but_it(tiered):
    value = tensor(200000)
    tiered.put("a", value)
    for write in (
        lambda lent: lent.add_(1),
        lambda lent: lent.__setitem__(slice(0, 10), 7),
        lambda lent: lent[5:].zero_(),
        lambda lent: lent.view(1000, 200).fill_(3),
        lambda lent: lent.numpy().fill(9),
        lambda lent: lent.copy_(tensor(200000, 1)),
        lambda lent: torch.add(lent, 1, out=lent),
        lambda lent: tiered.put("other", tensor(200000, 2)) and tiered.get("other", out=lent),
    ):
        lent = tiered.get("a", copy=False)
        neighbour = tiered.get("a", copy=False)
        write(lent)
        assert not torch.equal(lent, value)
        assert torch.equal(neighbour, value)
        assert torch.equal(tiered.get("a"), value)
    del lent, neighbour
    assert tiered.stats()["memory"]["leases"] == 0


def test_lent_tensors_can_be_used_like_others(tiered):
    value = torch.randn(64, 64)
    tiered.put("a", value)
    lent = tiered.get("a", copy=False)
    assert torch.allclose(lent @ lent, value @ value)
    assert torch.equal(lent.clone(), value)
    assert torch.equal(lent.to(torch.float64), value.to(torch.float64))
    tiered.put("b", lent)
    assert torch.equal(tiered.get("b"), value)
    parameter = torch.nn.Parameter(lent)
    (parameter * 2).sum().backward()
    assert torch.equal(parameter.grad, torch.full_like(value, 2))
    with pytest.raises(ValueError, match="copy=False"):
        tiered.get("a", copy=False, out=torch.empty_like(value))
    with pytest.raises(ValueError, match="copy=False"):
        tiered.get_many(["a"], copy=False, as_bytes=True)


def test_what_cannot_be_lent_is_copied(tiered):
    large = tensor(9 << 20)
    tiered.put_many({"scalar": torch.tensor(3.5), "empty": torch.empty(0, 7), "large": large, "bytes": b"abc" * 1000})
    assert tiered.get("scalar", copy=False).item() == 3.5
    assert tiered.get("empty", copy=False).shape == (0, 7)
    assert torch.equal(tiered.get("large", copy=False), large)
    assert tiered.get("bytes", copy=False) == b"abc" * 1000
    values = tiered.get_many(copy=False)
    assert torch.equal(values["large"], large)
    assert values["bytes"] == b"abc" * 1000
    assert tiered.stats()["memory"]["leases"] == 0


def test_lent_tensors_outlive_the_store(shelf, caplog):
    value = tensor(300000)
    store = ts.open(shelf, memory="8MiB", page_locked=False)
    store.put("a", value)
    lent = store.get("a", copy=False)
    with caplog.at_level(logging.INFO, logger="tensorshelf"):
        store.close()
    assert any("1 leases on 300000 bytes" in message for message in caplog.messages)
    assert torch.equal(lent, value)
    del store
    gc.collect()
    assert torch.equal(lent, value)
    thread = threading.Thread(target=lambda box: box.clear(), args=([lent],))
    del lent
    thread.start()
    thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_reads_and_drops_lent_tensors(shelf, python):
    program = """
import os, sys, tensorshelf as ts, torch
torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
store = ts.open(sys.argv[1], memory="8MiB")
value = torch.arange(200000, dtype=torch.float32)
store.put("a", value, cache="keep")
lent = store.get("a", copy=False)
ready, go = os.pipe()
child = os.fork()
if child == 0:
    os.read(ready, 1)  # the parent has reused the memory by now
    same = torch.equal(lent, value)
    try:
        store.get("a", copy=False)
        same = False
    except ts.ForkedError:
        pass
    del lent
    os._exit(0 if same else 1)
del lent
store.delete("a")
for i in range(40):
    store.put(f"other{i}", torch.full((200000,), float(i)), cache="keep")
os.write(go, b"x")
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), store.stats()["memory"]["leases"])
store.close()
"""
    out, err = python(program, shelf).communicate(timeout=120)
    assert out == "0 0\n", err


def test_hints_steer_what_stays(tiered):
    for i in range(8):
        tiered.put(f"keep{i}", tensor(900000, i), cache="keep")
    for i in range(20):
        tiered.put(f"other{i}", tensor(900000, i), cache="once")
        tiered.get(f"other{i}")
    before = device_reads(tiered)
    for i in range(8):
        assert torch.equal(tiered.get(f"keep{i}"), tensor(900000, i))
    assert device_reads(tiered) == before
    evictions = tiered.stats()["memory"]["evictions"]
    tiered.get("other0", cache="keep")
    assert tiered.stats()["memory"]["evictions"] >= evictions
    for call in (
        lambda: tiered.get("keep0", cache="always"),
        lambda: tiered.put("x", tensor(1), cache="Keep"),
        lambda: tiered.prefetch(["keep0"], cache="x"),
        lambda: tiered.get_many(["keep0"], order="random"),
    ):
        with pytest.raises(ValueError, match="must be"):
            call()


def test_a_sweep_over_twice_the_tier(tiered):
    names = [f"layer{i:02}" for i in range(32)]
    tiered.put_many({name: tensor(500000, i) for i, name in enumerate(names)}, cache="once")
    for round_number in range(6):
        if round_number == 1:
            before = tiered.stats()["memory"]["hits"]
        for i, name in enumerate(names):
            assert torch.equal(tiered.get(name, order="sweep"), tensor(500000, i))
    assert tiered.stats()["memory"]["hits"] - before >= 0.45 * 5 * len(names)


def test_prefetch(tiered):
    tiered.put_many({f"n{i}": tensor(300000, i) for i in range(4)}, prefix="p/", cache="once")
    tiered.prefetch(["n0", "missing", "n1"], prefix="p/")
    tiered.wait_for_prefetch()
    assert tiered.stats()["memory"]["prefetch_waiting"] == 0
    before = device_reads(tiered)
    assert torch.equal(tiered.get("p/n0"), tensor(300000, 0))
    assert torch.equal(tiered.get("p/n1", copy=False), tensor(300000, 1))
    assert device_reads(tiered) == before
    tiered.prefetch(prefix="p/", order="sweep")
    tiered.wait_for_prefetch()
    before = device_reads(tiered)
    tiered.get_many(prefix="p/")
    assert device_reads(tiered) == before


def test_views_and_readers_use_the_tier(shelf, tiered):
    tiered.put("a", tensor(300000, 1))
    with tiered.view() as view:
        tiered.put("a", tensor(300000, 2))
        assert torch.equal(view.get("a", copy=False), tensor(300000, 1))
        assert torch.equal(view.get("a"), tensor(300000, 1))
        assert torch.equal(tiered.get("a", copy=False), tensor(300000, 2))
    with ts.open(shelf, "r", memory="8MiB") as reader:
        assert torch.equal(reader.get("a"), tensor(300000, 2))
        assert torch.equal(reader.get("a", copy=False), tensor(300000, 2))
        assert reader.stats()["memory"]["hits"] == 1


def test_memory_auto(shelf):
    with ts.open(shelf, memory="auto", page_locked=False) as store:
        capacity = store.stats()["memory"]["capacity"]
        assert capacity % (2 << 20) == 0
        assert 0 <= capacity <= 64 << 30
        store.put("a", tensor(100000))
        assert torch.equal(store.get("a"), tensor(100000))
