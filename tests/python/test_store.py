"""The store as a mapping and as a transactional store: names, prefixes, preconditions, transactions, views, reports.
Expectations come from a plain dict that gets the same changes.
"""

from __future__ import annotations

import inspect
import logging
import pickle
import random
import re
from collections.abc import MutableMapping

import pytest
import tensorshelf as ts
import torch


def number(value: int) -> torch.Tensor:
    return torch.tensor([value])


# Mapping


def test_mutable_mapping(store):
    assert isinstance(store, MutableMapping)
    store["a"] = number(1)
    store.update({"b": number(2), "c": number(3)}, d=number(4))
    assert len(store) == 4
    assert list(store) == ["a", "b", "c", "d"]
    assert "a" in store
    assert "z" not in store
    assert "" not in store
    assert 3 not in store
    assert {name: value.item() for name, value in store.items()} == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert [value.item() for value in store.values()] == [1, 2, 3, 4]
    assert store.pop("a").item() == 1
    assert store.pop("a", None) is None
    assert store.setdefault("b", number(9)).item() == 2
    assert store.get("missing", None) is None
    del store["b"]
    with pytest.raises(KeyError):
        del store["b"]
    with pytest.raises(KeyError):
        store["b"]
    assert store == store
    assert store != {"c": number(3), "d": number(4)}
    assert len({store}) == 1
    store.clear()
    assert len(store) == 0
    assert list(store) == []


def test_keys_are_a_set_in_byte_order(store):
    names = ["b", "a", "a/1", "a/2", "é", "Z", "a\0b", "\U0001f600", "a" * 4096]
    store.put_many({name: number(0) for name in names})
    assert list(store.keys()) == sorted(names, key=str.encode)
    assert list(store.keys("a/")) == ["a/1", "a/2"]
    assert store.keys("a/") & {"a/2", "b"} == {"a/2"}
    assert "b" not in store.keys("a/")
    assert len(store.keys("a/")) == 2
    assert "a/" in repr(store.keys("a/"))


def test_more_names_than_a_page(store):
    names = [f"n{i:05}" for i in range(9000)]
    store.put_many({name: number(i) for i, name in enumerate(names)})
    assert list(store) == names
    assert [value.item() for value in store.get_many(prefix="n0").values()] == list(range(9000))


@pytest.mark.parametrize("name", ["", "x" * 4097, "\ud800"])
def test_names_that_are_refused(store, name):
    for call in (
        lambda: store.put(name, number(1)),
        lambda: store.put_many({"good": number(1), name: number(1)}),
        lambda: store.put_async(name, number(1)).result(),
    ):
        with pytest.raises(ValueError):
            call()
    assert len(store) == 0


@pytest.mark.parametrize("name", [3, b"x", None])
def test_names_that_are_no_str(store, name):
    with pytest.raises(TypeError, match="name must be a str"):
        store.put(name, number(1))
    with pytest.raises(TypeError, match="name must be a str"):
        store.get(name)


def test_odd_names(store):
    for name in ["a b", "a\nb", "\0", "../x", "/", "ü" * 2048]:
        store.put(name, number(1))
        assert store.get(name).item() == 1
        with pytest.raises(ts.NameNotFoundError, match="missing"):
            store.get(name + "missing" if len(name) < 100 else "missing")


# Many


def test_prefix_comes_off_again(store):
    state = {"weight": torch.rand(3, 4), "bias": torch.rand(4), "config": b"{}"}
    commit = store.put_many(state, prefix="model/")
    assert len(commit.generations) == 3
    assert set(store) == {"model/weight", "model/bias", "model/config"}
    got = store.get_many(prefix="model/")
    assert list(got) == ["bias", "config", "weight"]
    assert torch.equal(got["weight"], state["weight"])
    assert list(store.get_many(["weight", "bias"], prefix="model/")) == ["weight", "bias"]
    assert store.get_many(["model/config"]) == {"model/config": b"{}"}
    assert store.get_many(prefix="nothing/") == {}
    assert store.get_many([]) == {}
    with pytest.raises(KeyError, match="model/absent"):
        store.get_many(["weight", "absent"], prefix="model/")
    with pytest.raises(TypeError, match="iterable"):
        store.get_many("weight")


def test_get_many_into_targets(store):
    state = {"a": torch.rand(3, 4), "b": torch.rand(4, 5), "c": torch.rand(1 << 19)}
    store.put_many(state, prefix="m/")
    model = {"b": torch.zeros(5, 4).T, "c": torch.zeros(1 << 19), "a": torch.zeros(3, 4)}
    got = store.get_many(prefix="m/", out=model)
    assert list(got) == ["b", "c", "a"]
    assert all(got[name] is model[name] for name in model)
    assert all(torch.equal(model[name], state[name]) for name in model)
    target = torch.zeros(3, 4)
    assert store.get_many(["m/a"], out=[target])["m/a"] is target
    with pytest.raises(ValueError, match="2 tensors for 1 names"):
        store.get_many(["m/a"], out=[target, target])


def test_put_many_of_pairs_and_module(store):
    module = torch.nn.Linear(3, 2)
    store.put_many(module.named_parameters(), prefix="p/")
    store.put_many(module.state_dict(), prefix="s/")
    assert torch.equal(store["p/weight"], store["s/weight"])
    empty = store.put_many({})
    assert empty.generations == []


# Name operations


def test_rename_clone_delete(store):
    store.put_many({"a": number(1), "b": number(2), "m/x": number(3), "m/y": number(4)})
    store.rename("a", "c")
    assert "a" not in store
    assert store["c"].item() == 1
    with pytest.raises(ts.NameExistsError, match="b"):
        store.rename("c", "b")
    store.rename("c", "b", replace=True)
    assert store["b"].item() == 1
    store.clone("b", "d")
    store.put("b", number(9))
    assert store["d"].item() == 1
    assert store.clone_prefix("m/", "n/") == 2
    assert store.rename_prefix("m/", "o/") == 2
    assert sorted(store) == ["b", "d", "n/x", "n/y", "o/x", "o/y"]
    assert store.delete_prefix("n/") == 2
    assert store.delete("d") is True
    assert store.delete("d", missing_ok=True) is False
    for call in (store.delete, lambda n: store.rename(n, "z"), lambda n: store.clone(n, "z")):
        with pytest.raises(ts.NameNotFoundError, match="nobody"):
            call("nobody")
    assert sorted(store) == ["b", "o/x", "o/y"]


def test_clone_shares_bytes(store):
    store.put("a", torch.zeros(1 << 20))
    live = store.stats()["space"]["live"]
    store.clone_prefix("a", "snapshot/a")
    assert store.stats()["space"]["live"] == live
    assert store.stat("a").generation == store.stat("snapshot/a").generation


# Preconditions, unchanged values, ephemeral objects


def test_preconditions(store):
    first = store.put("a", number(1), if_absent=True)
    for bad in ({"if_absent": True}, {"if_generation": first + 1}):
        with pytest.raises(ts.PreconditionError, match="a"):
            store.put("a", number(2), **bad)
    with pytest.raises(ts.PreconditionError, match="b"):
        store.put("b", number(2), if_exists=True)
    assert store["a"].item() == 1
    second = store.put("a", number(2), if_generation=first)
    assert second > first
    assert store.put("a", number(3), if_exists=True) > second
    with pytest.raises(ValueError, match="exclude"):
        store.put("a", number(1), if_absent=True, if_exists=True)


def test_skip_unchanged(store):
    value = torch.rand(1000, 100)
    first = store.put("a", value)
    written = store.stats()["io"]["write_bytes"]
    assert store.put("a", value.clone(), skip_unchanged=True) == first
    assert store.stats()["io"]["write_bytes"] - written < value.nbytes
    assert store.stats()["unchanged_puts"] == 1
    commit = store.put_many({"a": value, "b": value}, skip_unchanged=True)
    assert commit.unchanged == 1
    assert commit.generations[0] == first
    assert store.put("a", value + 1, skip_unchanged=True) != first


def test_ephemeral(shelf):
    with ts.open(shelf) as store:
        store.put("e", torch.rand(100_000), ephemeral=True)
        store.put("d", number(1))
        assert store.stat("e").ephemeral
        assert not store.stat("d").ephemeral
        assert store.get("e").shape == (100_000,)
        assert store.stats()["space"]["scratch"] > 0
    with ts.open(shelf) as store:
        assert list(store) == ["d"]


def test_metadata(store):
    store.put("a", number(1), metadata={"step": "100", "üñ": ""})
    assert store.stat("a").metadata == {"step": "100", "üñ": ""}
    assert store.stat("a") == store.stat("a")
    with pytest.raises(ValueError, match="metadata"):
        store.put("b", number(1), metadata={"k": "x" * 70_000})
    with pytest.raises(TypeError):
        store.put("b", number(1), metadata={"k": 3})


@pytest.mark.parametrize("block_size", [4096, "64KiB", "1MiB"])
def test_block_size(store, block_size):
    value = torch.rand(70, 1000)
    store.put("a", value, block_size=block_size)
    assert torch.equal(store["a"], value)
    assert store.stat("a").block_size in (4096, 65536, 1 << 20)


@pytest.mark.parametrize("block_size", [0, 2048, 5000, "2MiB"])
def test_bad_block_size(store, block_size):
    with pytest.raises(ValueError, match="power of two"):
        store.put("a", number(1), block_size=block_size)


# Transactions


def test_transaction(store):
    store.put_many({"a": number(1), "b": number(2)})
    with store.transaction() as tx:
        tx.put("c", number(3), metadata={"k": "v"})
        tx.put_many({"x": number(4), "y": b"5"}, prefix="m/")
        tx.delete("a")
        tx.rename("b", "bb")
        tx.clone("c", "cc")
        tx.clone_prefix("m/", "n/")
        tx.rename_prefix("m/", "o/")
        tx.delete_prefix("n/x")
        tx.delete("nobody", missing_ok=True)
        tx.require("zzz", absent=True)
        assert sorted(store) == ["a", "b"]
    assert sorted(store) == ["bb", "c", "cc", "n/y", "o/x", "o/y"]
    assert tx.result.commit > 0
    assert len(tx.result.generations) == 3
    with pytest.raises(ts.ClosedError, match="transaction"):
        tx.put("late", number(1))


def test_transaction_that_fails_changes_nothing(store):
    store.put("a", number(1))
    free = store.stats()["space"]["free"]
    with pytest.raises(RuntimeError, match="mine"), store.transaction() as tx:
        tx.put("b", torch.rand(100_000))
        raise RuntimeError("mine")
    with pytest.raises(ts.NameNotFoundError, match="nobody"), store.transaction() as tx:
        tx.put("b", torch.rand(100_000))
        tx.delete("nobody")
    with pytest.raises(ts.PreconditionError), store.transaction() as tx:
        tx.put("b", torch.rand(100_000))
        tx.require("a", absent=True)
    with pytest.raises(ts.PreconditionError), store.transaction() as tx:
        tx.put("b", torch.rand(100_000), if_exists=True)
    with pytest.raises(ValueError, match="absent=True"), store.transaction() as tx:
        tx.require("a")
    assert list(store) == ["a"]
    assert store.stats()["space"]["free"] == free


def test_transaction_goes_on_after_a_refused_value(store):
    with store.transaction() as tx:
        tx.put("a", number(1))
        with pytest.raises(ts.UnsupportedTensorError):
            tx.put("b", torch.empty(1, device="meta"))
        tx.put("c", number(3))
    assert sorted(store) == ["a", "c"]


def test_transaction_outlives_store(shelf):
    with ts.open(shelf) as store:
        tx = store.transaction()
        tx.put("a", number(1))
    with pytest.raises(ts.ClosedError):
        tx.commit()
    with ts.open(shelf) as store:
        assert len(store) == 0


# Views


def test_view(store):
    store.put_many({"a": number(1), "b": torch.arange(100), "d/1": b"x"})
    with store.view() as view:
        store.put("a", number(2))
        store.delete("b")
        store.put("c", number(3))
        for _ in range(10):
            store.put("filler", torch.zeros(1 << 20))
        assert list(view) == ["a", "b", "d/1"]
        assert list(view.keys("d")) == ["d/1"]
        assert len(view) == 3
        assert "b" in view
        assert "c" not in view
        assert view.get("a").item() == 1
        assert view["b"].sum().item() == 4950
        assert view.get_many(["a", "b"])["a"].item() == 1
        assert view.get_many(prefix="d/") == {"1": b"x"}
        assert view.slice("b")[10:12].tolist() == [10, 11]
        assert view.read_slices([("b", 5)])[0].item() == 5
        assert view.stat("b").shape == (100,)
        assert view.get("c", None) is None
        with pytest.raises(KeyError):
            view.get("c")
        assert view.commit < store.info()["commit"]
    view.close()
    with pytest.raises(ts.ClosedError, match="view"):
        view.get("a")


def test_view_ends_with_its_store(shelf):
    store = ts.open(shelf)
    view = store.view()
    store.close()
    with pytest.raises(ts.ClosedError):
        view.get("a")
    view.close()


# A model


@pytest.mark.parametrize("seed", range(3))
def test_against_a_dict(shelf, seed):
    rng = random.Random(seed)
    model: dict[str, torch.Tensor] = {}
    for _ in range(3):
        with ts.open(shelf) as store:
            for _ in range(60):
                name = f"{rng.choice('ab')}/{rng.randrange(6)}"
                other = f"{rng.choice('ab')}/{rng.randrange(6)}"
                kind = rng.randrange(6)
                if kind <= 2:
                    model[name] = torch.rand(rng.choice([0, 3, 1000, 30_000, 400_000]))
                    store.put(name, model[name], skip_unchanged=rng.random() < 0.5)
                elif kind == 3:
                    assert store.delete(name, missing_ok=True) == (model.pop(name, None) is not None)
                elif kind == 4 and name in model and name != other:
                    store.clone(name, other, replace=True)
                    model[other] = model[name]
                elif name in model and name != other:
                    store.rename(name, other, replace=True)
                    model[other] = model.pop(name)
            assert list(store) == sorted(model), seed
            got = store.get_many()
            assert all(torch.equal(got[name], model[name]) for name in model), seed
            space = store.stats()["space"]
            states = ("reserved", "live", "parked", "free", "scratch", "limbo", "bad")
            assert sum(space[state] for state in states) == space["capacity"], seed


# Reports, life


def test_reports(store):
    store.put("a", torch.rand(100_000))
    store.get("a")
    stats, info = store.stats(), store.info()
    assert stats["names"] == 1
    assert stats["puts"] == 1
    assert stats["put_bytes"] == 400_000
    assert stats["reads"] >= 1
    assert set(stats["space"]) == {"capacity", "reserved", "live", "parked", "free", "scratch", "limbo", "bad"}
    assert stats["space"]["capacity"] == 64 << 20
    assert info["path"] == store.path
    assert info["mode"] == "read-write"
    assert info["format"] == 1
    assert len(info["files"]) == 1
    assert re.fullmatch("[0-9a-f]{32}", info["store_uuid"])
    stat = store.stat("a")
    assert stat.placement == "extents"
    assert sum(length for _, _, length in stat.extents) >= 400_000
    assert re.fullmatch("[0-9a-f]{32}", stat.fingerprint)
    assert stat.created_ns > 1_600_000_000_000_000_000
    assert "64" in repr(store.slice("a")) or "a" in repr(store.slice("a"))


def test_flush_backup_catch_up(store, tmp_path):
    store.put("a", number(1))
    store.flush()
    store.backup(tmp_path / "backup")
    assert any((tmp_path / "backup").iterdir())
    store.catch_up()


def test_close(shelf):
    store = ts.open(shelf)
    store.put("a", number(1))
    tensor = store["a"]
    store.close()
    store.close()
    assert store.closed
    assert "closed" in repr(store)
    assert tensor.item() == 1
    for call in (
        lambda: store.get("a"),
        lambda: store.put("a", number(1)),
        lambda: list(store),
        lambda: len(store),
        lambda: store.stats(),
        lambda: store.view(),
        lambda: store.transaction(),
        lambda: store.get_async("a"),
        lambda: store.event_fd(),
        lambda: store.__enter__(),
    ):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_pickling_of_writers_is_refused(store):
    with pytest.raises(TypeError, match="mode='r'"):
        pickle.dumps(store)


def test_sizes_as_text(shelf_dir):
    ts.create(shelf_dir, capacity="64 MiB", prefill="none")
    with ts.open(shelf_dir, memory="100MiB", result_pool="8MiB", staging="8MiB", async_copies_max=10**6) as store:
        assert store.info()["files"][0]["data_end"] - store.info()["files"][0]["data_begin"] >= 64 << 20
    for bad in ("64 XiB", "", "-3", "GiB", "1e400GiB"):
        with pytest.raises(ValueError, match="memory"):
            ts.open(shelf_dir, memory=bad)
    for bad in (1.5, True, b"1"):
        with pytest.raises(TypeError, match="memory"):
            ts.open(shelf_dir, memory=bad)


def test_full_prefill_reports_progress(shelf_dir):
    seen = []
    ts.create(shelf_dir, capacity="16MiB", prefill="full", progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] >= 16 << 20


def test_verify_setting(shelf):
    with ts.open(shelf, verify="never") as store:
        store.put("a", torch.arange(100_000))
        assert store.get("a", verify="always")[3].item() == 3
        assert store.get("a").sum().item() == 4999950000
        with pytest.raises(ValueError, match="verify"):
            store.get("a", verify="sometimes")


def test_notices_go_to_logging(shelf, caplog):
    with caplog.at_level(logging.WARNING, logger="tensorshelf"), ts.open(shelf) as store:
        locked = store.info()["page_locked"]
    assert locked or any("lock" in record.message for record in caplog.records)


def test_help_reads_like_a_manual():
    for thing in (ts, ts.Store, ts.View, ts.Transaction, ts.StoredTensor, ts.ObjectInfo, ts.create, ts.open, ts.empty):
        assert len(inspect.getdoc(thing)) > 50
    for cls in (ts.Store, ts.View, ts.Transaction, ts.StoredTensor):
        for name, member in inspect.getmembers(cls, callable):
            if not name.startswith("_") and name not in dir(MutableMapping):
                assert inspect.getdoc(member), f"{cls.__name__}.{name}"
