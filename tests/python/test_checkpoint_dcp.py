"""ShelfWriter and ShelfReader under torch.distributed.checkpoint, on real gloo ranks: what is saved by some number of
ranks is loaded by another number and compared bit for bit, and faults are put into every step of a save.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import pathlib
import pickle
import signal
import sys

import pytest
import tensorshelf as ts
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from tensorshelf.checkpoint import ShelfReader, ShelfWriter, manifest, roots
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, ReadItem
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor, init_device_mesh

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
CAPACITY = "64MiB"


@pytest.fixture
def root(shelf_dir) -> pathlib.Path:
    return shelf_dir


def writer(root, **options) -> ShelfWriter:
    return ShelfWriter(root, **{"capacity": CAPACITY, **options})


def full(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def tensors_of(state, prefix="") -> dict[str, torch.Tensor]:
    found = {}
    for key, value in state.items():
        if isinstance(value, dict):
            found |= tensors_of(value, f"{prefix}{key}.")
        elif isinstance(value, torch.Tensor):
            found[prefix + key] = full(value)
    return found


def assert_same_tensors(a, b) -> None:
    a, b = tensors_of(a), tensors_of(b)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


class Trainer:
    """A small sharded model with an optimizer; every rank computes the same full gradient."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = torch.nn.Sequential(torch.nn.Linear(13, 7), torch.nn.Tanh(), torch.nn.Linear(7, 5))
        if dist.is_initialized():
            mesh = init_device_mesh("cpu", (dist.get_world_size(),))
            fully_shard(self.model, mesh=mesh)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.model(torch.linspace(-1, 1, 13)[None]).square().sum().backward()
        self.optimizer.step()

    def state(self) -> dict:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "progress": Progress(self)}

    steps = 0


class Progress:
    """A Stateful."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def state_dict(self) -> dict:
        return {"steps": self.trainer.steps}

    def load_state_dict(self, state: dict) -> None:
        self.trainer.steps = state["steps"]


def expected(root: str, id: str) -> str:
    return f"{root}.{id}.pt"


def write_expected(rank: int, root: str, id: str, trainer: Trainer) -> None:
    tensors = {
        k: v.clone() for k, v in tensors_of({k: v for k, v in trainer.state().items() if k != "progress"}).items()
    }
    if rank == 0:
        torch.save(tensors, expected(root, id))


# Resharding


def save_in_all_ways(rank: int, root: str) -> None:
    trainer = Trainer()
    shelf = writer(root)
    group = dist.new_group(backend="gloo")  # saves in the background must not mix with the training's collectives
    for step, way in enumerate(["sync", "thread", "thread, writer again", "process", "staging future", "alone"], 1):
        trainer.step()
        trainer.steps = step
        id = f"step-{step}"
        write_expected(rank, root, id, trainer)
        state = trainer.state()
        if way == "sync":
            dcp.save(state, checkpoint_id=id, storage_writer=shelf)
        elif way == "process":
            kind = AsyncCheckpointerType.PROCESS
            dcp.async_save(state, checkpoint_id=id, storage_writer=shelf, async_checkpointer_type=kind).result()
        elif way == "staging future":
            stager = DefaultStager(StagingOptions(False, False, True, False))
            answer = dcp.async_save(
                state, checkpoint_id=id, storage_writer=shelf, async_stager=stager, process_group=group
            )
            answer.staging_completion.result()
            trainer.step()  # the staged state must not see this
            answer.upload_completion.result()
            stager.close()
        elif way == "alone":
            dcp.save(state, checkpoint_id=id, storage_writer=shelf, use_collectives=False)
        else:
            saving = dcp.async_save(state, checkpoint_id=id, storage_writer=shelf, process_group=group)
            trainer.step()
            saving.result()
        dist.barrier()
        assert ts.checkpoint.latest(root) == id
        dist.barrier()
    check_loads(rank, root, range(1, 7))


def check_loads(rank: int, root: str, steps) -> None:
    for step in steps:
        trainer = Trainer(seed=99)
        state = trainer.state()
        dcp.load(state, checkpoint_id=f"step-{step}", storage_reader=ShelfReader(root))
        set_state_dict(
            trainer.model, trainer.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
        )
        assert trainer.steps == step
        loaded = tensors_of({"model": state["model"], "optimizer": state["optimizer"]})
        wanted = torch.load(expected(root, f"step-{step}"))
        assert loaded.keys() == wanted.keys()
        for name, tensor in wanted.items():
            assert torch.equal(loaded[name], tensor), (step, name)
        assert_same_tensors(get_model_state_dict(trainer.model), state["model"])


def check_alone_is_refused(rank: int, root: str) -> None:
    with pytest.raises(
        (CheckpointException, AssertionError, ts.checkpoint.WorldSizeError), match="without collectives"
    ):
        dcp.load(Trainer().state(), checkpoint_id="step-6", storage_reader=ShelfReader(root))
    with pytest.raises(ts.checkpoint.WorldSizeError, match=r"'step-6'.*by 2 ranks") as caught:
        reader = ShelfReader(root)
        reader.reset("step-6")
        reader.read_metadata(rank=rank)
    assert caught.value.checkpoint == "step-6"


def test_saved_by_two_ranks_loaded_by_any_number(root, ranks):
    ranks(save_in_all_ways, 2, root)
    for world in (1, 4):
        ranks(check_loads, world, root, [1, 3, 4, 5])
        ranks(check_alone_is_refused, world, root)
    infos = ts.checkpoint.list_checkpoints(root)
    assert [info.id for info in infos] == [f"step-{i}" for i in range(1, 7)]
    assert [info.world_size for info in infos] == [2] * 6
    # The records say without unpickling what there is.
    with ts.open(root / "rank-00000", "r") as store:
        records = json.loads(store["records/step-1"])
    weight = records["tensors"]["model.0.weight"]
    assert weight["shape"] == [7, 13]
    assert [(c["rank"], c["offsets"]) for c in weight["chunks"]] == [(0, [0, 0]), (1, [4, 0])]
    for chunk in weight["chunks"]:
        with ts.open(root / f"rank-{chunk['rank']:05}", "r") as store:
            assert store.stat(chunk["name"]).nbytes == chunk["nbytes"]
    assert "progress.steps" in records["bytes"]
    assert ts.checkpoint.keep(root, last=1, every=3) == ["step-1", "step-2", "step-4", "step-5"]
    assert [info.id for info in ts.checkpoint.list_checkpoints(root)] == ["step-3", "step-6"]
    for rank in range(2):
        with ts.open(root / f"rank-{rank:05}", "r") as store:
            tokens = {name.split("/")[1] for name in store.keys("data/")}
            assert len(tokens) == 2
    ranks(check_loads, 2, root, [3, 6])


# Boxes


def save_boxes(rank: int, root: str) -> None:
    mesh = init_device_mesh("cpu", (2,))
    big = torch.arange(2 * 9 * 5 * 4.0).reshape(9, 10, 4)
    state = {
        "rows": distribute_tensor(big, mesh, [Shard(0)]),
        "columns": distribute_tensor(big, mesh, [Shard(1)]),
        "deep": distribute_tensor(big, mesh, [Shard(2)]),
        "replicated": distribute_tensor(big, mesh, [Replicate()]),
        "half": distribute_tensor(big.to(torch.bfloat16), mesh, [Shard(0)]),
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 4),
        "own": {f"of rank {rank}": torch.full((3,), rank)},
        "object": {"a": [1, 2, {"rank": 0}]},
    }
    dcp.save(state, checkpoint_id="boxes", storage_writer=writer(root))
    dcp.save({}, checkpoint_id="nothing", storage_writer=writer(root))


def load_boxes(rank: int, root: str, world: int) -> None:
    big = torch.arange(2 * 9 * 5 * 4.0).reshape(9, 10, 4)
    if world:
        mesh = init_device_mesh("cpu", (world,))
        kinds = [[Shard(0)], [Shard(1)], [Shard(2)], [Replicate()]]
        meshes = [(mesh, kind) for kind in kinds]
        if world == 4:
            grid = init_device_mesh("cpu", (2, 2))
            meshes += [(grid, [Shard(0), Shard(1)]), (grid, [Shard(2), Shard(0)]), (grid, [Replicate(), Shard(1)])]
    else:
        meshes = [None]
    for target in meshes:

        def zeros(dtype=torch.float32, target=target):
            plain = torch.zeros(9, 10, 4, dtype=dtype)
            return plain if target is None else distribute_tensor(plain, *target)

        state = {name: zeros() for name in ("rows", "columns", "deep", "replicated")}
        state |= {"half": zeros(torch.float32), "scalar": torch.tensor(0), "empty": torch.empty(0, 4)}
        state |= {"object": {"a": [0, 0, {"rank": None}]}}
        dcp.load(state, checkpoint_id="boxes", storage_reader=ShelfReader(root))
        for name in ("rows", "columns", "deep", "replicated"):
            assert torch.equal(full(state[name]), big), (name, target)
        assert torch.equal(full(state["half"]), big.to(torch.bfloat16).float())
        assert state["scalar"] == 3
        assert state["object"] == {"a": [1, 2, {"rank": 0}]}
    dcp.load({}, checkpoint_id="nothing", storage_reader=ShelfReader(root))


def test_boxes_of_every_kind(root, ranks):
    ranks(save_boxes, 2, root)
    for world in (0, 2, 4):
        ranks(load_boxes, world, root, world)
    state = {"own": {"of rank 0": torch.zeros(3), "of rank 1": torch.zeros(3)}}
    dcp.load(state, checkpoint_id="boxes", storage_reader=ShelfReader(root))
    assert state["own"]["of rank 1"].tolist() == [1, 1, 1]


class Targets(dcp.DefaultLoadPlanner):
    """A planner that is nothing but its read items and targets."""

    def __init__(self, targets):
        self.targets = targets
        self.committed = []

    def resolve_tensor(self, item):
        return self.targets[item.dest_index.index]

    def commit_tensor(self, item, tensor):
        self.committed.append(item.dest_index.index)


def test_narrowed_boxes_of_one_chunk_are_relative_and_read_once(root, monkeypatch):
    """A chunk whose own offset is not zero, wanted in parts by several targets of several dtypes and strides."""
    chunk = torch.arange(6 * 8.0).reshape(6, 8)

    shelf = writer(root)
    dcp.save({"w": chunk}, storage_writer=shelf)
    reader = ShelfReader(root)
    metadata = reader.read_metadata()
    entry = metadata.state_dict_metadata["w"]
    (old,) = metadata.storage_data
    moved = MetadataIndex("w", (10, 20))
    metadata.storage_data[moved] = metadata.storage_data.pop(old)
    entry.chunks[0].offsets = torch.Size((10, 20))
    boxes = [((0, 0), (6, 8)), ((2, 0), (3, 8)), ((1, 3), (4, 2)), ((1, 3), (4, 2)), ((5, 7), (1, 1)), ((0, 0), (0, 8))]
    for chosen in (boxes, boxes[1:3], boxes[2:4], boxes[4:], [boxes[0], boxes[0]]):
        for make in (
            lambda size: torch.zeros(size),
            lambda size: torch.zeros(size, dtype=torch.float64),
            lambda size: torch.zeros(size[::-1]).t(),
            lambda size: torch.zeros(size[0], 2 * size[1])[:, ::2],
        ):
            targets = [make(size) for _, size in chosen]
            planner = Targets(targets)
            items = [
                ReadItem(
                    LoadItemType.TENSOR, MetadataIndex("w", index=i), torch.Size((0, 0)), moved,
                    torch.Size(offsets), torch.Size(sizes),
                )
                for i, (offsets, sizes) in enumerate(chosen)
            ]  # fmt: skip
            reader.set_up_storage_reader(metadata, True)
            reads = []
            monkeypatch.setattr(ts.Store, "get", counted(ts.Store.get, reads))
            monkeypatch.setattr(ts.Store, "get_many", counted(ts.Store.get_many, reads))
            monkeypatch.setattr(ts.Store, "read_slices", counted(ts.Store.read_slices, reads))
            reader.read_data(LoadPlan(items), planner).wait()
            monkeypatch.undo()
            assert sorted(planner.committed) == list(range(len(chosen)))
            for ((r, c), (h, w)), target in zip(chosen, targets, strict=True):
                assert torch.equal(target, chunk[r : r + h, c : c + w].to(target.dtype))
            assert sum(reads) <= len(set(chosen))


def counted(method, reads: list[int]):
    def call(self, names=(), *arguments, **keywords):
        names = list(names) if not isinstance(names, str) else [names]
        reads.append(len(names))
        return method(self, names[0] if method.__name__ == "get" else names, *arguments, **keywords)

    return call


# One process


def state_of(step: int) -> dict:
    generator = torch.Generator().manual_seed(step)
    return {f"layer {i}": torch.randn(30, 40, generator=generator) for i in range(8)} | {"step": step}


def loaded(root, id: str | None = None) -> dict:
    state = {name: torch.zeros_like(v) if isinstance(v, torch.Tensor) else None for name, v in state_of(0).items()}
    dcp.load(state, checkpoint_id=id, storage_reader=ShelfReader(root))
    return state


def assert_loads(root, id: str | None, step: int) -> None:
    state = loaded(root, id)
    assert state["step"] == step
    assert_same_tensors(state, state_of(step))


def test_ids(root):
    dcp.save(state_of(1), storage_writer=writer(root))  # the root alone is the id
    assert_loads(root, None, 1)
    shelf = writer(root)
    for step in range(2, 5):
        dcp.save(state_of(step), checkpoint_id="again", storage_writer=shelf)
        assert_loads(root, "again", step)
        assert_loads(root, None, 1)
    dcp.save(state_of(5), checkpoint_id=root / "a" / "path", storage_writer=shelf)
    assert_loads(root, "a/path", 5)
    assert [info.id for info in ts.checkpoint.list_checkpoints(root)] == ["default", "again", "a/path"]
    with ts.open(root / "rank-00000", "r") as store:
        assert len({name.split("/")[1] for name in store.keys("data/")}) == 3
    assert not ShelfWriter.validate_checkpoint_id("s3://bucket/x")
    assert ShelfReader.validate_checkpoint_id("/a/b")
    with pytest.raises(ValueError, match="checkpoint id"):
        shelf.reset("")


def test_metadata_comes_back_whole(root):
    state = {"nested": {"list": [torch.ones(2), {"x": torch.zeros(1)}]}, "n": 3}
    shelf = pickle.loads(pickle.dumps(writer(root)))
    saved = dcp.save(state, checkpoint_id="m", storage_writer=shelf)
    reader = pickle.loads(pickle.dumps(ShelfReader(root)))
    reader.reset("m")
    found = reader.read_metadata()
    assert found.state_dict_metadata == saved.state_dict_metadata
    assert found.planner_data == saved.planner_data
    assert found.storage_meta.checkpoint_id == "m"
    assert found.storage_meta.save_id
    assert set(found.storage_data) == {MetadataIndex(i.fqn, i.offset) for i in found.storage_data}


def test_incremental(root):
    state = {f"layer {i}": torch.randn(256, 256) for i in range(20)}
    shelf = writer(root)
    dcp.save(state, checkpoint_id="0", storage_writer=shelf)
    with roots.writing(str(root), 0) as store:
        first = store.stats()["space"]["live"]
        for step in range(1, 20):
            state[f"layer {step}"] += 1
            dcp.save(state, checkpoint_id=str(step), storage_writer=shelf)
        assert store.stats()["space"]["live"] < first + 19 * (first / 20 + 16384)
        written = store.stats()["io"]["write_bytes"]
        dcp.save({k: v for k, v in state.items() if k != "layer 0"}, checkpoint_id="19", storage_writer=shelf)
        assert store.stats()["io"]["write_bytes"] - written < 256 * 256 * 4
        dcp.save(state, checkpoint_id="19", storage_writer=shelf)
        usage = ts.checkpoint.df(root)
        assert [use.prefix for use in usage] == [str(step) for step in range(20)]
        assert all(use.nbytes >= 20 * 256 * 256 * 4 for use in usage)
        # A layer's first version is shared by the steps before its change, the other one by those after it.
        assert sum(use.own_bytes for use in usage[:19]) == 256 * 256 * 4
        assert usage[10].own_bytes < 1024
        ts.checkpoint.keep(root, last=1)
        assert store.stats()["space"]["live"] < first + 16384
        ts.checkpoint.remove(root, "19")
        assert store.stats()["space"]["live"] < 65536
        assert list(store) == []
    assert ts.checkpoint.latest(root) is None


def test_plan_caching(root):
    planner = dcp.DefaultSavePlanner(enable_plan_caching=True)
    try:
        for step in range(4):
            dcp.save(state_of(step), checkpoint_id=f"{step}", storage_writer=writer(root), planner=planner)
        for step in range(4):
            assert_loads(root, f"{step}", step)
    finally:
        for name in ("_cached_save_plan", "_cached_final_save_plan", "_cached_all_plans", "_cached_global_plan"):
            getattr(dcp.SavePlanner, name).clear()
        dcp.SavePlanner._cached_metadata.clear()


def test_options_of_keep(root):
    for step in range(0, 70, 10):
        dcp.save(state_of(step), checkpoint_id=f"step-{step}", storage_writer=writer(root))
    assert ts.checkpoint.keep(root, last=2, every=30) == ["step-10", "step-20", "step-40"]
    assert [info.id for info in ts.checkpoint.list_checkpoints(root)] == ["step-0", "step-30", "step-50", "step-60"]
    assert ts.checkpoint.keep(root, last=10) == []
    for options in ({"last": 0}, {"every": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            ts.checkpoint.keep(root, **options)
    with pytest.raises(ts.checkpoint.CheckpointNotFoundError, match="'step-10'"):
        ts.checkpoint.remove(root, "step-10")


def test_another_process_may_save_and_remove(root, python):
    dcp.save(state_of(1), checkpoint_id="1", storage_writer=writer(root))
    program = """
import sys, warnings, torch, tensorshelf as ts, torch.distributed.checkpoint as dcp
warnings.simplefilter("ignore")
print(ts.checkpoint.latest(sys.argv[1]), flush=True)
dcp.save({"x": torch.ones(2)}, checkpoint_id="2", storage_writer=ts.checkpoint.ShelfWriter(sys.argv[1]))
ts.checkpoint.remove(sys.argv[1], "1")
"""
    with roots.reading(str(root), 0):  # the write handle of this process, in use
        other = python(program, root)
        assert other.stdout.readline() == "1\n"
        assert_loads(root, "1", 1)
    _, err = other.communicate(timeout=120)
    assert other.returncode == 0, err
    assert [info.id for info in ts.checkpoint.list_checkpoints(root)] == ["2"]


# Errors


def test_missing_incomplete_and_other_shapes(root):
    with pytest.raises(ts.checkpoint.CheckpointNotFoundError, match=r"'none'.*there is none"):
        reader = ShelfReader(root)
        reader.reset("none")
        reader.read_metadata()
    assert ts.checkpoint.list_checkpoints(root) == []
    assert not root.exists()
    dcp.save(state_of(1), checkpoint_id="1", storage_writer=writer(root))

    class Failing(ShelfWriter):
        def finish(self, metadata, results):
            raise RuntimeError("lost the coordinator")

    failing = Failing(root)
    with pytest.raises(CheckpointException, match="lost the coordinator"):
        dcp.save(state_of(2), checkpoint_id="2", storage_writer=failing)
    reader.reset("2")
    with pytest.raises(ts.checkpoint.CheckpointNotFoundError, match=r"'2'.*incomplete.*rank 0"):
        reader.read_metadata()
    reader.reset("3")
    with pytest.raises(ts.checkpoint.CheckpointNotFoundError, match=r"'3'.*newest are '1'"):
        reader.read_metadata()
    assert_loads(root, "1", 1)
    with pytest.raises(CheckpointException, match="layer 0"):
        dcp.load({"layer 0": torch.zeros(3, 3)}, checkpoint_id="1", storage_reader=ShelfReader(root))
    with pytest.raises(CheckpointException, match="nothing"):
        dcp.load({"nothing": torch.zeros(3, 3)}, checkpoint_id="1", storage_reader=ShelfReader(root))
    assert failing is not None


def test_damaged_record_names_checkpoint_rank_and_tensor(root):
    dcp.save(state_of(1), checkpoint_id="1", storage_writer=writer(root))
    token = ts.checkpoint.list_checkpoints(root)[0].tokens[0]
    with roots.writing(str(root), 0) as store:
        for break_it, error in (
            (lambda name: store.put(name, torch.zeros(2, 2)), ts.checkpoint.CheckpointMismatchError),
            (lambda name: store.delete(name), ts.checkpoint.CheckpointDamagedError),
        ):
            break_it(f"data/{token}/layer 3")
            with pytest.raises(CheckpointException) as caught:
                loaded(root, "1")
            (inner, _) = caught.value.failures[0]
            assert isinstance(inner, error)
            assert (inner.checkpoint, inner.rank, inner.tensor) == ("1", 0, "layer 3")
        store.put("metadata/1", b"nonsense")
        with pytest.raises((CheckpointException, AssertionError), match="metadata"):
            loaded(root, "1")
        store.put("manifest/1", b"nonsense")
        with pytest.raises(ts.checkpoint.CheckpointDamagedError, match="manifest/1"):
            ts.checkpoint.list_checkpoints(root)


class Payload:
    def __reduce__(self):
        return os.system, ("echo never",)


def test_hostile_metadata_is_refused(root):
    dcp.save(state_of(1), checkpoint_id="1", storage_writer=writer(root))
    with roots.writing(str(root), 0) as store:
        metadata = pickle.loads(store["metadata/1"])
        metadata.planner_data = Payload()
        store.put("metadata/1", pickle.dumps(metadata))
    reader = ShelfReader(root)
    reader.reset("1")
    with pytest.raises(ts.checkpoint.UnsafeObjectError, match="system"):
        reader.read_metadata()


def test_full_store_keeps_the_last_checkpoint(root):
    dcp.save(state_of(1), checkpoint_id="1", storage_writer=writer(root))
    with pytest.raises(CheckpointException) as caught:
        dcp.save({"big": torch.zeros(80 << 20, dtype=torch.uint8)}, checkpoint_id="2", storage_writer=writer(root))
    (inner, _) = caught.value.failures[0]
    assert isinstance(inner, ts.checkpoint.CheckpointFullError)
    assert (inner.checkpoint, inner.rank) == ("2", 0)
    assert "capacity" in str(inner)
    assert_loads(root, "1", 1)
    dcp.save(state_of(3), checkpoint_id="3", storage_writer=writer(root))
    assert_loads(root, "3", 3)


def test_tensor_that_cannot_be_kept_is_named(root):
    state = {"ok": torch.ones(1), "odd": torch.eye(3).to_sparse()}
    with pytest.raises(CheckpointException) as caught:
        dcp.save(state, checkpoint_id="1", storage_writer=writer(root))
    (inner, _) = caught.value.failures[0]
    assert "odd" in str(inner) or "sparse" in str(inner)
    assert ts.checkpoint.latest(root) is None


# Death


def rank_value(rank: int, step: int) -> torch.Tensor:
    return torch.randn(40, 50, generator=torch.Generator().manual_seed(1000 * step + rank))


def rank_state(rank: int, step: int) -> dict:
    state = {f"of {rank}": rank_value(rank, step), "constant": torch.ones(100), f"step of {rank}": step}
    if step % 2:
        state[f"odd {rank}"] = torch.full((7,), step)
    return state


def count_calls(point: int | None):
    """A profile function that counts calls within tensorshelf, and kills the process at the point-th."""
    count = [0]
    folder = os.path.dirname(ts.__file__)

    def on_event(frame, event, argument):
        if event in ("call", "c_call") and frame.f_code.co_filename.startswith(folder):
            count[0] += 1
            if count[0] == point:
                os.kill(os.getpid(), signal.SIGKILL)

    return count, on_event


def check_last_then_save(rank: int, root: str, victim: int, point: int | None, log: str) -> None:
    """Loads the newest checkpoint and compares it with what its step must be; saves the next; maybe dies of it."""
    last = ts.checkpoint.latest(root)
    dist.barrier()
    step = 0
    if last is not None:
        step = int(last)
        state = {
            key: torch.zeros_like(v) if isinstance(v, torch.Tensor) else None
            for key, v in rank_state(rank, step).items()
        }
        dcp.load(state, checkpoint_id=last, storage_reader=ShelfReader(root))
        assert state[f"step of {rank}"] == step
        assert_same_tensors(state, rank_state(rank, step))
    if victim < 0:
        return
    count, on_event = count_calls(point if rank == victim else None)
    state = rank_state(rank, step + 1)
    dist.barrier()
    sys.setprofile(on_event)
    try:
        dcp.save(state, checkpoint_id=str(step + 1), storage_writer=ShelfWriter(root, capacity=CAPACITY))
    finally:
        sys.setprofile(None)
    pathlib.Path(f"{log}.{rank}").write_text(json.dumps(count[0]))
    dist.barrier()


def test_rank_that_is_killed_at_any_point_leaves_the_last_checkpoint(root, ranks, tmp_path):
    log = str(tmp_path / "calls")
    point_count = 0
    for _ in range(2):  # a first save, which makes the stores, and one like the ones that follow
        ranks(check_last_then_save, 2, root, 0, None, log)
    assert ts.checkpoint.latest(root) == "2"
    for victim in (0, 1):
        calls = json.loads(pathlib.Path(f"{log}.{victim}").read_text())
        for number in range(11):
            point = 1 + (calls - 1) * number // 10
            codes = ranks(check_last_then_save, 2, root, victim, point, log, check=False)
            if codes[victim] == -signal.SIGKILL:
                point_count += 1
                assert codes[1 - victim] != 0 or point > calls // 2
    assert point_count >= 20, point_count
    ranks(check_last_then_save, 2, root, -1, None, log)
    ranks(check_last_then_save, 2, root, 0, None, log)  # a whole save, which also collects what the dead left
    ranks(check_last_then_save, 2, root, -1, None, log)
    count = len(ts.checkpoint.list_checkpoints(root))
    for rank in range(2):
        with ts.open(root / f"rank-{rank:05}", "r") as store:
            assert len(list(store.keys("token/"))) == count
            assert len({name.split("/")[1] for name in store.keys("data/")}) == count


def save_alone(rank: int, root: str, step: int, fails: bool) -> None:
    """A save without collectives, in which rank 1 dies before its part is written."""
    shelf = writer(root)
    if fails and rank == 1:
        shelf.finish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    dcp.save(rank_state(rank, step), checkpoint_id="x", storage_writer=shelf, use_collectives=False)


def check_alone(rank: int, root: str, step: int) -> None:
    state = {k: torch.zeros_like(v) if isinstance(v, torch.Tensor) else None for k, v in rank_state(rank, step).items()}
    dcp.load(state, checkpoint_id="x", storage_reader=ShelfReader(root))
    assert_same_tensors(state, rank_state(rank, step))


def test_parts_without_collectives(root, ranks):
    ranks(save_alone, 2, root, 1, False)
    for step in (3, 5):  # two crashes in a row
        ranks(save_alone, 2, root, step, True, check=False)
        ranks(check_alone, 2, root, 1)
    ranks(save_alone, 2, root, 7, False)
    ranks(check_alone, 2, root, 7)
    ranks(save_alone, 2, root, 9, False)
    ranks(check_alone, 2, root, 9)
    (info,) = ts.checkpoint.list_checkpoints(root)
    assert (info.world_size, len(info.tokens)) == (2, 2)
    ts.checkpoint.remove(root, "x")
    assert ts.checkpoint.list_checkpoints(root) == []


def test_tokens_of_live_processes_are_spared(root):
    """What another process may be about to complete is not collected; what a dead one left is."""
    dcp.save(state_of(1), checkpoint_id="1", storage_writer=writer(root))
    with roots.writing(str(root), 0) as store:
        mark = json.loads(store.get_many(prefix="token/").popitem()[1])
        parent = manifest._process_name(os.getppid())
        assert parent
        for token, process in (("living", parent), ("dead", "1 1 no-such-boot")):
            store.put(f"token/{token}", json.dumps({**mark, "process": process}).encode())
            store.put(f"data/{token}/x", torch.ones(1))
        manifest._looked.clear()
        manifest.collect(store, str(root), 0)
        assert "data/living/x" in store
        assert "data/dead/x" not in store
    assert_loads(root, "1", 1)


def test_handles_close_when_idle(root, monkeypatch):
    monkeypatch.setattr(roots, "_IDLE_SECONDS", 0.0)
    dcp.save(copy.deepcopy(state_of(1)), checkpoint_id="1", storage_writer=writer(root))
    closer = roots._handles._closer
    if closer is not None:
        closer.join(30)
    with ts.open(root / "rank-00000") as store, contextlib.suppress(ts.StoreLockedError):
        assert "manifest/1" in store
