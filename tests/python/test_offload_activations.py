"""save_on_store against the same forward and backward pass without it: gradients are equal bit for bit, whatever kind
of tensor is saved, and the shelf is empty again when the graph is gone.
"""

from __future__ import annotations

import gc
import threading
import time

import pytest
import tensorshelf as ts
import torch
from tensorshelf.offload import no_offload, save_on_store
from torch.utils.checkpoint import checkpoint

WIDTH = 256


def everything(store, **options) -> save_on_store:
    return save_on_store(store, **{"which": "all", "cpu": True, "min_bytes": 1024, **options})


class Layers(torch.nn.Module):
    def __init__(self, count: int = 4, checkpointed: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.GELU(), torch.nn.Linear(WIDTH, WIDTH))
            for _ in range(count)
        )
        self.checkpointed = checkpointed

    def forward(self, x):
        for layer in self.layers:
            x = x + (checkpoint(layer, x, use_reentrant=False) if self.checkpointed else layer(x))
        return x


def batch() -> torch.Tensor:
    return torch.randn(32, WIDTH, generator=torch.Generator().manual_seed(1))


def gradients(model, loss) -> list[torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def assert_equal(a, b) -> None:
    assert len(a) == len(b)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def wait_until_empty(store, offload) -> None:
    gc.collect()
    end = time.monotonic() + 30
    while offload.stats()["stored_bytes"] or list(store.keys("offload/")):
        assert time.monotonic() < end, (offload.stats(), list(store))
        time.sleep(0.01)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_inputs_of_checkpointed_layers(store, use_reentrant):
    model = Layers()
    plain = gradients(model, model(batch()).square().sum())
    offload = save_on_store(store, cpu=True, min_bytes=1024)
    for _ in range(3):
        x = batch().requires_grad_()
        with offload:
            hidden = x * 1
            for layer in model.layers:
                hidden = hidden + checkpoint(layer, hidden, use_reentrant=use_reentrant)
            loss = hidden.square().sum()
        assert_equal(gradients(model, loss), plain)
        del loss, hidden
        wait_until_empty(store, offload)
    stats = offload.stats()
    assert stats["packed"] == 3 * 4  # one hidden state per layer, nothing else
    assert stats["bytes_written"] + stats["forwarded"] * 32 * WIDTH * 4 >= stats["packed"] * 32 * WIDTH * 4


@pytest.mark.parametrize("checkpointed", [False, True])
def test_everything(store, checkpointed):
    model = Layers(checkpointed=checkpointed)
    plain = gradients(model, model(batch()).square().sum())
    offload = everything(store, window=100_000, staging=200_000)
    with offload:
        loss = model(batch()).square().sum()
    assert offload.stats()["packed"] > 0
    assert offload.stats()["staged_bytes"] <= 200_000
    assert_equal(gradients(model, loss), plain)
    del loss
    wait_until_empty(store, offload)


def test_backward_within_the_block_and_again(store):
    x = torch.randn(64, 64, requires_grad=True)
    offload = everything(store)
    with offload:
        y = (x.exp() * x.sin()).sum()
        (first,) = torch.autograd.grad(y, x, retain_graph=True, create_graph=True)
        (second,) = torch.autograd.grad(y, x, retain_graph=True)
        (twice,) = torch.autograd.grad(first.sum(), x)
    plain = (x.exp() * x.sin()).sum()
    (expected,) = torch.autograd.grad(plain, x, create_graph=True)
    assert_equal([first, second], [expected, expected])
    assert torch.allclose(twice, torch.autograd.grad(expected.sum(), x)[0])
    del y, first, plain
    wait_until_empty(store, offload)


def saved(value: torch.Tensor, offload) -> torch.Tensor:
    """What unpacking gives of a packed tensor."""
    packed = offload._pack(value)
    assert packed is not value
    return offload._unpack(packed)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.randn(50, 60),
        lambda: torch.randn(50, 60).t(),
        lambda: torch.randn(50, 60)[::2, 10:50],
        lambda: torch.randn(1, 6000).expand(100, 6000),
        lambda: torch.randn(50, 1, 60).expand(50, 7, 60).permute(2, 0, 1),
        lambda: torch.tensor(1.5).expand(1000, 3),
        lambda: torch.randn(2, 3, 20, 20).to(memory_format=torch.channels_last),
        lambda: torch.randn(3000).to(torch.bfloat16),
        lambda: torch.randn(3000).to(torch.float8_e4m3fn),
        lambda: torch.randint(0, 9, (40, 40)),
        lambda: torch.randn(400, dtype=torch.complex64),
    ],
)
def test_views_and_strides_come_back_exactly(store, make):
    offload = everything(store)
    value = make()
    for wait in (False, True):
        packed = offload._pack(value)
        if wait:
            packed.bytes.written.result()
        for _ in range(2):
            found = offload._unpack(packed)
            assert (found.dtype, found.shape, found.device) == (value.dtype, value.shape, value.device)
            assert found.stride() == value.stride()
            assert found.data_ptr() != value.data_ptr()
            assert torch.equal(found.contiguous().view(torch.uint8), value.contiguous().view(torch.uint8))


def test_repetitions_are_not_stored(store):
    offload = everything(store)
    packed = offload._pack(torch.randn(1, 6000).expand(100, 6000))
    packed.bytes.written.result()
    assert offload.stats()["bytes_written"] == 24000


def test_what_is_left_alone(store):
    module = torch.nn.Linear(100, 100)
    flat = torch.zeros(20_000)
    module.register_buffer("view", flat[:10_000].view(100, 100))
    offload = everything(store, modules=module, predicate=lambda tensor: tensor.dtype != torch.float64)
    overlapping = torch.zeros(5000).as_strided((100, 100), (10, 1))
    leaf = torch.zeros(100, 100, requires_grad=True)
    with torch.no_grad():
        of_parameter = module.weight.t()
    left_alone = {
        "parameter": module.weight,
        "view of a parameter": module.weight.t(),
        "view without grad": of_parameter,
        "buffer": module.view,
        "other part of a buffer's storage": flat[10_000:],
        "leaf": leaf,
        "view of a leaf": leaf[10:],
        "small": torch.zeros(10),
        "predicate": torch.zeros(5000, dtype=torch.float64),
        "sparse": torch.eye(300).to_sparse(),
        "overlapping": overlapping,
        "conj": torch.zeros(5000, dtype=torch.complex64).conj(),
        "meta": torch.zeros(5000, device="meta"),
    }
    for name, tensor in left_alone.items():
        with offload:
            assert offload._pack(tensor) is tensor, name
    with no_offload():
        value = torch.zeros(5000)
        assert offload._pack(value) is value
    assert offload._pack(value) is not value
    gpu_only = save_on_store(store, which="all", min_bytes=1)
    assert gpu_only._pack(value) is value
    assert not list(store.keys("offload/"))[1:]


def test_equal_tensors_are_stored_once_while_they_live(store):
    offload = everything(store)
    value = torch.randn(5000)
    first, second = offload._pack(value), offload._pack(value)
    assert first.bytes is second.bytes
    value.add_(1)  # another version
    third = offload._pack(value)
    assert third.bytes is not first.bytes
    assert torch.equal(offload._unpack(third), value)
    assert torch.equal(offload._unpack(second) + 1, value)
    address = value.data_ptr()
    storage = offload._known
    del value
    again = torch.zeros(5000)
    fourth = offload._pack(again)  # perhaps at the same address
    assert torch.equal(offload._unpack(fourth), again), address
    assert storage


def test_graph_without_backward_and_exceptions_leave_nothing(store):
    model = Layers(checkpointed=False)
    offload = everything(store)
    with offload:
        loss = model(batch()).sum()
    del loss
    wait_until_empty(store, offload)
    with pytest.raises(RuntimeError, match="stop"), offload:
        loss = model(batch()).sum()
        raise RuntimeError("stop")
    assert all(b.written is None or b.written.done() for b in list(offload._live.values()))
    del loss
    wait_until_empty(store, offload)
    plain = gradients(model, model(batch()).sum())
    with offload:
        loss = model(batch()).sum()
    assert_equal(gradients(model, loss), plain)


def test_queued_write_is_served_from_staging(store, monkeypatch):
    go = threading.Event()
    put = ts.Store.put

    def waiting(self, *arguments, **keywords):
        assert go.wait(60)
        return put(self, *arguments, **keywords)

    monkeypatch.setattr(ts.Store, "put", waiting)
    offload = everything(store)
    values = [torch.full((5000,), float(i)) for i in range(6)]
    packed = [offload._pack(value) for value in values]
    for value, handle in zip(values, packed, strict=True):
        assert torch.equal(offload._unpack(handle), value)
    assert offload.stats()["forwarded"] == 6
    go.set()
    for handle in packed:
        if handle.bytes.written is not None:
            handle.bytes.written.result()
    for value, handle in zip(values, packed, strict=True):
        assert torch.equal(offload._unpack(handle), value)
    assert offload.stats()["bytes_written"] <= 2 * 20_000  # those that had begun; the others were cancelled


def test_reads_ahead_last_in_first_out(store):
    offload = everything(store, window=45_000)
    values = [torch.full((5000,), float(i)) for i in range(6)]
    packed = [offload._pack(value) for value in values]
    for handle in packed:
        handle.bytes.written.result()
    offload._unpack(packed[5])
    assert [handle.bytes.reading is not None for handle in packed] == [False, False, False, True, True, False]
    for i in reversed(range(5)):
        assert torch.equal(offload._unpack(packed[i]), values[i])
    assert offload.stats()["bytes_read"] == 6 * 20_000


@pytest.mark.parametrize("limit", ["capacity", "store"])
def test_full(store, limit, caplog):
    room = {"capacity": 50_000} if limit == "capacity" else {}
    if limit == "store":
        size = store.stats()["space"]["free"] - (4 << 20)
        store.put("ballast", torch.zeros(size, dtype=torch.uint8))
    values = [torch.full((5000 if limit == "capacity" else 1 << 19,), float(i)) for i in range(8)]
    keeping = everything(store, **room)
    packed = []
    for value in values:
        packed.append(keeping._pack(value))
        if packed[-1] is not value:
            packed[-1].bytes.written.result()
    for value, handle in zip(values, packed, strict=True):
        assert torch.equal(keeping._unpack(handle), value)
    assert keeping.stats()["kept_full"] >= 1
    assert caplog.text.count("activations stay in memory") == 1
    del packed, handle
    keeping.close()
    raising = everything(store, when_full="raise", **room)
    with pytest.raises(ts.StoreFullError), raising:
        packed = []
        for value in values:
            packed.append(raising._pack(value))
            packed[-1].bytes.written.result()
    with pytest.raises(ts.StoreFullError, match="are free"), everything(store, capacity="1GiB"):
        pass


def test_use_after_close_and_bad_options(shelf):
    with ts.open(shelf) as store:
        offload = everything(store)
        packed = offload._pack(torch.zeros(5000))
        packed.bytes.written.result()
        for options in ({"which": "some"}, {"when_full": "wait"}, {"min_bytes": "x"}):
            with pytest.raises(ValueError, match=next(iter(options))):
                save_on_store(store, **options)
    with pytest.raises(ts.ClosedError):
        offload._unpack(packed)
    with pytest.raises(ValueError, match="closed"), offload:
        pass
    with ts.open(shelf) as store:
        assert len(store) == 0
