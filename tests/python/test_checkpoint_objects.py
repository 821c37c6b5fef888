"""checkpoint.save and load against torch.save and torch.load: the same objects come back, bit for bit, with their
aliases; then every way in which a stored object can be wrong, hostile, missing or a bad fit is tried.
"""

from __future__ import annotations

import collections
import copy
import datetime
import enum
import io
import json
import os
import pathlib
import pickle

import numpy as np
import pytest
import tensorshelf as ts
import torch
from tensorshelf.checkpoint import codec

DTYPES = ["float32", "bfloat16", "float16", "int64", "uint8", "bool", "complex64", "float8_e4m3fn", "uint16"]


def same(a, b) -> bool:
    """Equal structures with equal tensors (bits, dtype, strides of dense tensors, parameter or not)."""
    if isinstance(a, torch.Tensor):
        bits = [t.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
        return (
            type(a) is type(b)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and a.requires_grad == b.requires_grad
            and torch.equal(*bits)
        )
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return a == b


def test_training_state_as_torch_save_keeps_it(store):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(40, 30), torch.nn.ReLU(), torch.nn.Linear(30, 5))
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    for _ in range(4):
        model(torch.randn(8, 40)).square().sum().backward()
        optimizer.step()
        scheduler.step()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "rng": torch.get_rng_state(),
        "step": 4,
    }
    ts.checkpoint.save(state, store, "run/")
    found = ts.checkpoint.load(store, "run/")
    assert same(found, state)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    assert same(found, torch.load(file, weights_only=False))
    assert torch.equal(store["run/model/0.weight"], model[0].weight)
    optimizer.load_state_dict(found["optimizer"])


def test_every_kind_of_value(store):
    torch.manual_seed(0)
    obj = {
        "plain": [1, 2.5, None, True, "text", b"bytes", 1 + 2j, {1, 2}, frozenset({3}), (4, (5,))],
        "containers": [collections.OrderedDict(a=1), collections.deque([1]), collections.Counter("aab"), range(3)],
        "factory": collections.defaultdict(list, {"k": [torch.ones(2)]}),
        "torch": [torch.float32, torch.device("cpu"), torch.Size([1, 2]), torch.strided],
        "time": [datetime.datetime(2026, 1, 2), datetime.timedelta(3)],
        "path": pathlib.PurePosixPath("a/b"),
        "numpy": [np.arange(6).reshape(2, 3), np.float32(1.5), np.int64(7), np.zeros((0, 4)), np.array(["a", "bc"])],
        "numpy order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "bytearray": bytearray(b"xyz"),
        3: torch.ones(1),
        "": torch.ones(2),
        ("odd", "key"): torch.ones(3),
        "a/b": torch.ones(4),
        "a": {"b": torch.ones(5)},
        ".object": torch.ones(6),
        "x" * 5000: torch.ones(7),
    }
    for dtype in DTYPES:
        obj[dtype] = torch.randint(0, 2, (3, 5)).to(getattr(torch, dtype))
        obj["empty " + dtype] = torch.empty(0, 3, dtype=getattr(torch, dtype))
        obj["scalar " + dtype] = torch.ones((), dtype=getattr(torch, dtype))
    ts.checkpoint.save(obj, store, "")
    assert same(ts.checkpoint.load(store, ""), obj)


def test_aliases_views_and_identity(store):
    base = torch.arange(24.0).reshape(4, 6)
    tied = torch.nn.Parameter(torch.randn(3, 3))
    obj = {
        "base": base,
        "again": base,
        "row": base[1],
        "column": base[:, 2],
        "transposed": base.t(),
        "as bytes": base.view(torch.uint8),
        "parameter": tied,
        "data": tied.data,
        "parts": list(torch.arange(10).split(3)),
    }
    storage = torch.arange(100, dtype=torch.int16)
    obj["overlapping"] = [storage[10:30], storage[20:40]]
    ts.checkpoint.save(obj, store, "o/")
    found = ts.checkpoint.load(store, "o/")
    assert same(found, obj)
    assert found["again"] is found["base"]
    assert isinstance(found["parameter"], torch.nn.Parameter)
    assert found["transposed"].stride() == (1, 6)
    found["base"][1, 2] = -1
    assert found["row"][2] == found["column"][1] == found["transposed"][2, 1] == -1
    found["data"][0, 0] = 7
    assert found["parameter"][0, 0] == 7
    found["overlapping"][0][15] = -5
    assert found["overlapping"][1][5] == -5
    found["parts"][0][0] = 100
    assert found["parts"][1][0] == 3
    # The shared range is stored once, and no more of the storage than the object uses.
    assert store.stat("o/base").nbytes == base.nbytes
    assert sum(store.stat(name).nbytes for name in store.keys("o/overlapping")) == 30 * 2


def test_strides(store):
    obj = {
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
        "expanded": torch.randn(1, 6).expand(10_000, 6),
        "scalar expanded": torch.tensor(3).expand(50),
        "every other": torch.arange(10)[::2],
        "conj": torch.randn(4, dtype=torch.complex64).conj(),
    }
    saved = ts.checkpoint.save(obj, store, "o/")
    found = ts.checkpoint.load(store, "o/")
    assert same(found, obj)
    for name in ("channels last", "permuted", "expanded", "scalar expanded"):
        assert found[name].stride() == obj[name].stride(), name
    assert store.stat("o/expanded").nbytes == 6 * 4
    assert store.stat("o/every other").nbytes == 5 * 8
    assert saved.tensors == 6


def test_storages_and_cycles(store):
    tensor = torch.arange(6)
    cycle: dict = {"t": tensor, "storage": tensor.untyped_storage()}
    cycle["self"] = cycle
    ts.checkpoint.save(cycle, store, "o/")
    found = ts.checkpoint.load(store, "o/")
    assert found["self"] is found
    found["t"][0] = 9
    assert found["storage"][0] == 9


def test_second_save_replaces_only_its_own(store):
    ts.checkpoint.save({"a": torch.ones(3), "b": torch.ones(4)}, store, "run/")
    store.put("run/other", torch.zeros(1))
    ts.checkpoint.save({"x": torch.ones(1)}, store, "run/nested/")
    state = {"a": torch.zeros(3), "c": torch.ones(5)}
    assert ts.checkpoint.save({**state, "b": torch.ones(4)}, store, "run/").unchanged == 1
    assert ts.checkpoint.save(state, store, "run/").unchanged == 2  # although another is dropped
    assert list(store) == ["run/.object", "run/a", "run/c", "run/nested/.object", "run/nested/x", "run/other"]
    assert same(ts.checkpoint.load(store, "run/"), {"a": torch.zeros(3), "c": torch.ones(5)})
    ts.checkpoint.delete(store, "run/")
    assert list(store) == ["run/nested/.object", "run/nested/x", "run/other"]
    with pytest.raises(ts.checkpoint.CheckpointNotFoundError, match="run/"):
        ts.checkpoint.delete(store, "run/")


def test_unchanged_tensors_and_snapshots_cost_nothing(store):
    state = {f"layer {i}": torch.full((64, 1024), float(i)) for i in range(20)}
    first = ts.checkpoint.save(state, store, "run/", snapshot="step-0/")
    assert first.unchanged == 0
    written = store.stats()["space"]["live"]
    for step in range(1, 30):
        state[f"layer {step % 20}"] += 1
        saved = ts.checkpoint.save(state, store, "run/", snapshot=f"step-{step}/")
        assert saved.unchanged == 19
        assert same(ts.checkpoint.load(store, f"step-{step}/"), state)
    one = written / 20
    assert store.stats()["space"]["live"] < written + 30 * one
    usage = {use.prefix: use for use in ts.checkpoint.df(store, [f"step-{i}/" for i in range(30)] + ["run/"])}
    assert all(use.nbytes > 20 * 64 * 1024 * 4 for use in usage.values())
    # The first layer as it was at the start is in the first snapshots only; the newest state has all of its bytes
    # in common with the working prefix.
    assert usage["step-29/"].own_bytes < 16384
    assert sum(use.own_bytes for use in usage.values()) < written + 30 * one
    assert usage["step-0/"].own_bytes >= 64 * 1024 * 4
    ts.checkpoint.save({**state}, store, "full/", skip_unchanged=False)
    assert ts.checkpoint.save(state, store, "full/", skip_unchanged=False).unchanged == 0


def test_into(store):
    model = torch.nn.Linear(7, 5)
    state = {"model": model.state_dict(), "extra": [torch.arange(4), torch.randn(3, 4).t()], "step": 3}
    ts.checkpoint.save(state, store, "run/")
    target = copy.deepcopy(state)
    with torch.no_grad():
        for _, tensor in codec.walk(target):
            tensor.zero_()
    pointers = [tensor.data_ptr() for _, tensor in codec.walk(target)]
    found = ts.checkpoint.load(store, "run/", into=target)
    assert same(found, state)
    assert same(target["model"], state["model"])
    assert [tensor.data_ptr() for _, tensor in codec.walk(found)] == pointers
    partly = {"model": {"weight": torch.zeros(5, 7)}}
    found = ts.checkpoint.load(store, "run/", into=partly)
    assert found["model"]["weight"] is partly["model"]["weight"]
    assert same(found["model"]["bias"], state["model"]["bias"])


@pytest.mark.parametrize(
    ("into", "error"),
    [
        ({"w": torch.zeros(2, 3)}, r"tensor 'w'.*float32\[3, 2\].*float32\[2, 3\]"),
        ({"w": torch.zeros(3, 2, dtype=torch.float64)}, r"tensor 'w'.*float64"),
        ({"w": torch.zeros(3, 2), "v": torch.zeros(1)}, r"tensor 'v'.*no such tensor"),
    ],
)
def test_into_that_does_not_fit(store, into, error):
    ts.checkpoint.save({"w": torch.ones(3, 2)}, store, "run/")
    with pytest.raises(ts.checkpoint.CheckpointMismatchError, match=error) as caught:
        ts.checkpoint.load(store, "run/", into=into)
    assert caught.value.tensor in ("w", "v")
    assert same(into["w"], torch.zeros_like(into["w"]))


def test_map_location(store):
    state = {"w": torch.arange(6.0), "n": 1}
    state["v"] = state["w"][2:]
    ts.checkpoint.save(state, store, "run/")
    assert same(ts.checkpoint.load(store, "run/", map_location="cpu"), state)
    assert ts.checkpoint.load(store, "run/", map_location="meta")["w"].device.type == "meta"
    assert ts.checkpoint.load(store, "run/", map_location={"cpu": "meta"})["w"].device.type == "meta"
    seen = []

    def function(storage, location):
        seen.append((location, storage.nbytes()))

    found = ts.checkpoint.load(store, "run/", map_location=function)
    assert same(found, state)
    assert seen == [("cpu", 24)]
    found["w"][2] = -1
    assert found["v"][0] == -1
    with pytest.raises(TypeError, match="map_location"):
        ts.checkpoint.load(store, "run/", map_location=3)


# Lazy


def test_lazy_reads_when_touched(store):
    state = {"a": torch.randn(300, 200), "b": torch.arange(5), "p": torch.nn.Parameter(torch.randn(4))}
    state["view"] = state["a"][10]
    ts.checkpoint.save(state, store, "run/")
    found = ts.checkpoint.load(store, "run/", lazy=True)
    assert found["a"].shape == (300, 200)
    assert found["b"].dtype == torch.int64
    assert found["p"].requires_grad
    assert all(tensor._value is None for tensor in found.values())
    # A save in between does not change what they read.
    ts.checkpoint.save({"a": torch.zeros(2)}, store, "run/")
    module = torch.nn.Linear(200, 300)
    module.load_state_dict({"weight": found["a"], "bias": torch.zeros(300)})
    assert torch.equal(module.weight, state["a"])
    assert torch.equal(found["a"] @ torch.ones(200), state["a"] @ torch.ones(200))
    assert found["b"].tolist() == [0, 1, 2, 3, 4]
    assert found["b"].numpy().sum() == 10
    assert "Parameter" in repr(found["p"]) or "tensor" in repr(found["p"])
    found["b"].add_(1)
    assert found["b"].sum() == 15
    view = found["a"][10]
    view.zero_()
    assert found["a"][10].sum() == 0
    assert found["view"].sum() == 0
    assert same(copy.deepcopy(found["b"]), torch.arange(5) + 1)
    ts.checkpoint.save(ts.checkpoint.load(store, "run/", lazy=True), store, "copy/")
    assert same(ts.checkpoint.load(store, "copy/"), {"a": torch.zeros(2)})


def test_lazy_after_close(shelf):
    with ts.open(shelf) as store:
        ts.checkpoint.save({"a": torch.ones(100_000), "b": torch.ones(1)}, store, "run/")
        found = ts.checkpoint.load(store, "run/", lazy=True)
        kept = found["b"].materialize()
    assert kept == 1
    with pytest.raises(ts.StoreError, match="closed"):
        found["a"].sum()


# What is refused


class Custom:
    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return self.value == other.value


class Hostile:
    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize(
    "hostile",
    [
        Hostile(os.system, "echo never"),
        Hostile(eval, "1"),
        Hostile(getattr, "text", "format"),
        Hostile(bytearray, 1 << 40),
        Hostile(torch.load, "x"),
        Hostile(np.load, "x"),
        Hostile(print, "x"),
        Hostile(np.ndarray, (1 << 40,)),
        Hostile(np.ndarray, (1,), "O", b"x" * 8),
        Hostile(np.float64(0).__reduce__()[0], np.dtype("O"), b"x" * 8),
        torch.nn.Linear(1, 1),
    ],
    ids=lambda value: str(getattr(value, "reduced", ("Linear",))[0]),
)
def test_hostile_object_is_refused(store, hostile):
    ts.checkpoint.save({"w": torch.ones(1), "evil": [hostile]}, store, "run/")
    with pytest.raises(ts.checkpoint.UnsafeObjectError, match=r"object (asks|calls|makes)") as caught:
        ts.checkpoint.load(store, "run/")
    assert isinstance(caught.value, pickle.UnpicklingError)


def test_custom_class_with_permission(store):
    obj = {"custom": Custom([torch.ones(3)])}
    ts.checkpoint.save(obj, store, "run/")
    with pytest.raises(ts.checkpoint.UnsafeObjectError, match="Custom"):
        ts.checkpoint.load(store, "run/")
    assert torch.equal(ts.checkpoint.load(store, "run/", weights_only=False)["custom"].value[0], torch.ones(3))
    with torch.serialization.safe_globals([Custom]):
        assert torch.equal(ts.checkpoint.load(store, "run/")["custom"].value[0], torch.ones(3))


class Kind(enum.Enum):
    FIRST = 1

    def __reduce_ex__(self, protocol):
        return getattr, (Kind, self.name)  # as Python 3.11.0 to 3.11.3 do it


def test_member_of_an_enumeration(store):
    ts.checkpoint.save({"kind": Kind.FIRST}, store, "run/")
    ts.checkpoint.save({"kind": Hostile(getattr, Kind, "__init__")}, store, "evil/")
    with pytest.raises(ts.checkpoint.UnsafeObjectError, match="Kind"):
        ts.checkpoint.load(store, "run/")
    with torch.serialization.safe_globals([Kind]):
        assert ts.checkpoint.load(store, "run/")["kind"] is Kind.FIRST
        with pytest.raises(ts.checkpoint.UnsafeObjectError, match="'__init__' of <enum 'Kind'>"):
            ts.checkpoint.load(store, "evil/")


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (torch.eye(3).to_sparse(), "sparse"),
        (torch.empty(3, device="meta"), "meta"),
        (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "quantized|qint8"),
        (torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "nested"),
    ],
)
def test_tensor_that_cannot_be_kept(store, value, word):
    ts.checkpoint.save({"ok": torch.ones(1)}, store, "run/")
    with pytest.raises(ts.UnsupportedTensorError, match=f"(?s)run/.*({word})"):
        ts.checkpoint.save({"ok": torch.zeros(1), "layer": {"odd": value}}, store, "run/")
    assert same(ts.checkpoint.load(store, "run/"), {"ok": torch.ones(1)})


def test_store_that_is_full(store):
    ts.checkpoint.save({"ok": torch.ones(1)}, store, "run/")
    with pytest.raises(ts.checkpoint.CheckpointFullError, match="run/") as caught:
        ts.checkpoint.save({"ok": torch.zeros(1), "big": torch.zeros(128 << 20, dtype=torch.uint8)}, store, "run/")
    assert isinstance(caught.value, ts.StoreFullError)
    assert caught.value.checkpoint == "run/"
    assert same(ts.checkpoint.load(store, "run/"), {"ok": torch.ones(1)})


def test_missing_and_damaged(store):
    with pytest.raises(ts.checkpoint.CheckpointNotFoundError, match="'none/'"):
        ts.checkpoint.load(store, "none/")
    assert issubclass(ts.checkpoint.CheckpointNotFoundError, KeyError)
    obj = {"w": torch.ones(4), "v": torch.ones(3)}
    ts.checkpoint.save(obj, store, "run/")
    whole = store["run/.object"]
    store.delete("run/w")
    with pytest.raises(ts.checkpoint.CheckpointDamagedError, match="run/w"):
        ts.checkpoint.load(store, "run/")
    store.put("run/w", b"bytes")
    with pytest.raises(ts.checkpoint.CheckpointDamagedError, match="no tensor"):
        ts.checkpoint.load(store, "run/")
    store.put("run/w", torch.ones(2))
    with pytest.raises(ts.checkpoint.CheckpointDamagedError, match=r"tensor 'w'.*8 bytes"):
        ts.checkpoint.load(store, "run/")
    for cut in (0, 5, 8, 40, len(whole) // 2):
        store.put("run/.object", whole[:cut])
        with pytest.raises((ts.checkpoint.CheckpointDamagedError, pickle.UnpicklingError, EOFError)):
            ts.checkpoint.load(store, "run/")
    store.put("run/.object", torch.ones(1))
    with pytest.raises(ts.checkpoint.CheckpointDamagedError, match="no description"):
        ts.checkpoint.load(store, "run/")


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.update(format=99),
        lambda table: table.pop("records"),
        lambda table: table["tensors"][0].update(record=7),
        lambda table: table["tensors"][0].update(record=-1),
        lambda table: table["tensors"][0].update(offset=1 << 40),
        lambda table: table["tensors"][0].update(offset=-4),
        lambda table: table["tensors"][0].update(shape=[1 << 40]),
        lambda table: table["tensors"][0].update(shape=[-4]),
        lambda table: table["tensors"][0].update(shape=["4"]),
        lambda table: table["tensors"][0].update(strides=[1 << 40]),
        lambda table: table["tensors"][0].update(strides=[1, 1]),
        lambda table: table["tensors"][0].update(dtype="float99"),
        lambda table: table["tensors"][0].update(dtype="load"),
        lambda table: table["tensors"][0].update(kind="code"),
        lambda table: table["tensors"][0].update(more=1),
        lambda table: table["tensors"].clear(),
    ],
)
def test_hostile_description_reads_no_other_memory(store, change):
    ts.checkpoint.save({"w": torch.ones(4)}, store, "run/")
    whole = store["run/.object"]
    length = int.from_bytes(whole[:8], "little")
    table = json.loads(whole[8 : 8 + length])
    change(table)
    text = json.dumps(table).encode()
    store.put("run/.object", len(text).to_bytes(8, "little") + text + whole[8 + length :])
    for lazy in (False, True):
        with pytest.raises(ts.checkpoint.CheckpointDamagedError):
            found = ts.checkpoint.load(store, "run/", lazy=lazy)
            found["w"].sum()


def test_errors_survive_pickling():
    for kind in (ts.checkpoint.CheckpointFullError, ts.checkpoint.CheckpointDamagedError):
        error = pickle.loads(pickle.dumps(kind("why", checkpoint="step-1", rank=3, tensor="w")))
        assert type(error) is kind
        assert str(error) == "checkpoint 'step-1', rank 3, tensor 'w': why"
        assert (error.checkpoint, error.rank, error.tensor) == ("step-1", 3, "w")
