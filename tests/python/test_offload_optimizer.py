"""OffloadedOptimizer against the optimizer that it runs: the same gradients give bit-equal parameters and state dicts,
with states in many buckets, schedulers, skipped steps, new groups, snapshots and failed writes.
"""

from __future__ import annotations

import copy

import pytest
import tensorshelf as ts
import torch
from tensorshelf.offload import OffloadedOptimizer

CLASSES = {
    "AdamW": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    "AdamW amsgrad": (torch.optim.AdamW, {"lr": 0.01, "amsgrad": True, "foreach": False}),
    "SGD": (torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}),
    "SGD without state": (torch.optim.SGD, {"lr": 0.01}),
    "Adafactor": (torch.optim.Adafactor, {"lr": 0.01}),
    "RMSprop": (torch.optim.RMSprop, {"lr": 0.01}),
}


def parameters(dtype=torch.float32) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(100, 300), (300,), (50, 50), (3,), (200, 100), (64, 64, 2), ()]
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def set_gradients(params, step: int, skip: int | None = None) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for index, parameter in enumerate(params):
        gradient = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        parameter.grad = None if index == skip else gradient


def offloaded(store, params, kind="AdamW", **options) -> OffloadedOptimizer:
    cls, kw = CLASSES[kind]
    options = {"window_bytes": 300_000, "min_bytes": 4096, "prefix": "opt/", **options}
    return OffloadedOptimizer(params, cls, store=store, **options, **kw)


def plain(params, kind="AdamW") -> torch.optim.Optimizer:
    cls, kw = CLASSES[kind]
    return cls(params, **kw)


def assert_same(a, b) -> None:
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("write_policy", ["async", "sync"])
def test_bit_equal_to_the_inner_optimizer(store, kind, write_policy):
    mine, theirs = parameters(), parameters()
    optimizer, reference = offloaded(store, mine, kind, write_policy=write_policy), plain(theirs, kind)
    schedulers = [torch.optim.lr_scheduler.StepLR(o, 2, 0.5) for o in (optimizer, reference)]
    for step in range(6):
        for params in (mine, theirs):
            set_gradients(params, step, skip=step % 3)
        optimizer.step()
        reference.step()
        for scheduler in schedulers:
            scheduler.step()
    assert_same(mine, theirs)
    assert_same(optimizer.state_dict(), reference.state_dict())
    if kind == "AdamW":
        assert store.stat("opt/0/exp_avg").shape == (100, 300)
        assert not list(store.keys("opt/1/"))  # small states stay in memory
        assert len(list(optimizer._buckets())) > 1
    optimizer.zero_grad(set_to_none=True)
    assert all(parameter.grad is None for parameter in mine)


def test_state_dicts_are_exchanged(store):
    mine, theirs = parameters(), parameters()
    optimizer, reference = offloaded(store, mine), plain(theirs)
    for params, o in ((mine, optimizer), (theirs, reference)):
        for step in range(2):
            set_gradients(params, step)
            o.step()
    ts.checkpoint.save(reference.state_dict(), store, "saved/")
    back = offloaded(store, mine, prefix="again/")
    back.load_state_dict(ts.checkpoint.load(store, "saved/", lazy=True))
    reference.load_state_dict(optimizer.state_dict())
    for params, o in ((mine, back), (theirs, reference)):
        set_gradients(params, 7)
        o.step()
    assert_same(mine, theirs)
    assert dict(back.iter_state()).keys() == back.state_dict()["state"].keys()
    with pytest.raises(ValueError, match="groups of"):
        back.load_state_dict(plain(parameters()[:3]).state_dict())
    with pytest.raises(TypeError, match="pickled"):
        copy.copy(back)


def test_closure_groups_and_low_precision(store):
    mine, theirs = parameters(torch.bfloat16), parameters(torch.bfloat16)
    optimizer, reference = offloaded(store, mine[:3]), plain(theirs[:3])
    for o, params in ((optimizer, mine), (reference, theirs)):
        set_gradients(params, 0)
        o.step()
        o.add_param_group({"params": params[3:], "lr": 0.5})
        set_gradients(params, 1)
        assert o.step(lambda: 3.5) == 3.5
        assert [group["lr"] for group in o.param_groups] == [0.01, 0.5]
        o.param_groups[0]["lr"] = 0.125
        set_gradients(params, 2)
        o.step()
    assert_same(mine, theirs)
    assert_same(optimizer.state_dict(), reference.state_dict())


def test_grad_scaler_skips_steps_with_infinities(store):
    params = parameters()[:2]
    optimizer = offloaded(store, params)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = copy.deepcopy(params)
    for bad in (True, False):
        optimizer.zero_grad()
        loss = scaler.scale(sum(parameter.sum() for parameter in params))
        loss.backward()
        if bad:
            params[0].grad[0, 0] = float("inf")
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(params[0], before[0]) == bad
    assert optimizer.state[params[1]]["step"] == 1


def test_snapshot_and_restore_move_no_bytes(store):
    params = parameters()
    optimizer = offloaded(store, params)
    kept: dict[int, tuple] = {}
    for step in range(3):
        set_gradients(params, step)
        optimizer.step()
        optimizer.snapshot(f"step-{step}/")
        kept[step] = (copy.deepcopy(optimizer.state_dict()), [p.detach().clone() for p in params])
    live = store.stats()["space"]["live"]
    optimizer.snapshot("once more/")
    assert store.stats()["space"]["live"] < live + 32768
    fresh = offloaded(store, params, prefix="other/")
    for step in (1, 0, 2):
        for o in (optimizer, fresh):
            o.restore(f"step-{step}/")
            assert_same(o.state_dict(), kept[step][0])
    reference_params = [torch.nn.Parameter(value.clone()) for value in kept[2][1]]
    reference = plain(reference_params)
    reference.load_state_dict(kept[2][0])
    set_gradients(params, 9)
    set_gradients(reference_params, 9)
    optimizer.step()
    reference.step()
    assert_same(params, reference_params)
    with pytest.raises(ts.checkpoint.CheckpointNotFoundError, match="step-9"):
        optimizer.restore("step-9/")
    with pytest.raises(ValueError, match="mix"):
        optimizer.snapshot("opt/x/")
    with pytest.raises(ValueError, match="parameters"):
        offloaded(store, params[:2], prefix="few/").restore("step-1/")


def test_memory_is_bounded_by_the_window(store, monkeypatch):
    params = [torch.nn.Parameter(torch.zeros(64, 1024)) for _ in range(12)]  # 512 KiB of states each
    optimizer = offloaded(store, params, window_bytes="3MiB")
    alive = {"now": 0, "most": 0}
    empty = ts.offload.optimizer.empty

    def counted(shape, dtype):
        import weakref

        made = empty(shape, dtype)
        alive["now"] += made.nbytes
        alive["most"] = max(alive["most"], alive["now"])
        weakref.finalize(made, lambda size: alive.update(now=alive["now"] - size), made.nbytes)
        return made

    monkeypatch.setattr(ts.offload.optimizer, "empty", counted)
    for step in range(3):
        set_gradients(params, step)
        optimizer.step()
    optimizer.flush()
    # The thread that read or wrote a bucket (1 MiB) may hold it a moment longer than the window counts it.
    assert 0 < alive["most"] <= 4 << 20
    assert all(b.state_bytes <= 1 << 20 for b in optimizer._buckets())


def test_failed_write_surfaces(store, monkeypatch):
    params = parameters()
    optimizer = offloaded(store, params)
    set_gradients(params, 0)
    optimizer.step()
    optimizer.snapshot("good/")
    monkeypatch.setattr(ts.Store, "put_many", lambda *a, **k: (_ for _ in ()).throw(ts.StoreFullError("no room")))
    with pytest.raises(ts.StoreFullError, match="no room"):
        set_gradients(params, 1)
        optimizer.step()
        optimizer.flush()
    monkeypatch.undo()
    optimizer.restore("good/")
    assert optimizer.state_dict()["state"][0]["step"] == 1
    with pytest.raises(ValueError, match="write_policy"):
        offloaded(store, params, write_policy="never")
