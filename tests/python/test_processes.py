"""Several processes and one store: forks, pickled readers, two writers, Ctrl-C, exit with work under way, kill -9.
Each other process is a real one; it says on standard output how far it is, so that nothing waits by the clock.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys

import pytest
import tensorshelf as ts
import torch
from torch.utils.data import DataLoader, Dataset

WRITER = """
import sys, torch, tensorshelf as ts
store = ts.open(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
"""


def in_child(work) -> int:
    """Runs `work` in a forked child and returns its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# fork


def test_forked_child_is_refused_and_harmless(shelf):
    store = ts.open(shelf)
    store.put_many({"small": torch.arange(10), "large": torch.arange(1 << 19)})
    small, large = store["small"], store["large"]
    part, view, transaction = store.slice("small"), store.view(), store.transaction()
    held = [store.slice("large"), store["large"], ts.open(shelf, "r")]  # with no other reference
    future_done = store.put_async("async", torch.ones(1)).result(30)
    assert future_done

    def child():
        for call in (
            lambda: store.get("small"),
            lambda: store.put("small", torch.ones(1)),
            lambda: store.put_async("small", torch.ones(1)),
            lambda: list(store),
            lambda: part[0],
            lambda: view.get("small"),
            lambda: transaction.put("x", torch.ones(1)),
        ):
            with pytest.raises(ts.ForkedError, match="process"):
                call()
        assert small.sum() == 45
        assert large[-1] == (1 << 19) - 1
        large[0] = 99  # one value: a thread pool is not to be had in a forked child
        store.close()
        store.close()

    def child_that_drops_everything():
        view.close()
        transaction.abort()
        held.clear()

    assert in_child(child) == 0
    assert in_child(child_that_drops_everything) == 0
    assert large[0] == 0
    store.put("after", torch.ones(3))
    assert view.get("small").sum() == 45
    transaction.put("t", torch.ones(1))
    transaction.commit()
    view.close()
    assert held[1][0] == 0
    held[2].close()
    store.close()
    with ts.open(shelf) as again:
        assert sorted(again) == ["after", "async", "large", "small", "t"]


def test_child_can_open_for_reading(shelf, python):
    with ts.open(shelf) as store:
        store.put("a", torch.arange(10))
        reader = python(
            "import sys, tensorshelf as ts\nwith ts.open(sys.argv[1], 'r') as s: print(s['a'].sum().item(), len(s))",
            shelf,
        )
        out, err = reader.communicate(timeout=60)
        assert out == "45 1\n", err


def test_forked_exit_runs_handlers_without_harm(shelf, python):
    program = """
import os, sys, torch, tensorshelf as ts
store = ts.open(sys.argv[1])
store.put_async("a", torch.ones(5)).result()
if os.fork() == 0:
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
store.put("b", torch.ones(5))
print("done")
"""
    out, err = python(program, shelf).communicate(timeout=60)
    assert out == "done\n", err
    with ts.open(shelf) as store:
        assert sorted(store) == ["a", "b"]


# Readers


def test_pickled_reader(shelf):
    with ts.open(shelf) as store:
        store.put("a", torch.arange(10))
    with ts.open(shelf, "r", memory="16MiB", result_pool="16MiB", verify="never") as reader:
        copy = pickle.loads(pickle.dumps(reader))
        with copy:
            assert copy.mode == "r"
            assert copy.path == reader.path
            assert copy["a"].sum() == 45


class StoredRows(Dataset):
    def __init__(self, store):
        self.store = store

    def __len__(self):
        return self.store.stat("table").shape[0]

    def __getitem__(self, row):
        return self.store.slice("table")[row]

    def __getitems__(self, rows):
        return list(self.store.slice("table")[rows])


@pytest.mark.parametrize("beside_writer", [False, True])
def test_data_loader_with_workers(shelf, beside_writer):
    table = torch.randn(64, 9)
    writer = ts.open(shelf)
    writer.put("table", table)
    if not beside_writer:
        writer.close()
    with ts.open(shelf, "r") as store:
        loader = DataLoader(StoredRows(store), batch_size=8, num_workers=2, multiprocessing_context="spawn")
        assert torch.equal(torch.cat(list(loader)), table)
    writer.close()


def test_reader_beside_writer_follows(shelf):
    with ts.open(shelf) as writer, ts.open(shelf, "r") as reader:
        assert reader.info()["mode"] == "beside-writer"
        with pytest.raises(ts.StoreReadOnlyError):
            reader.put("x", torch.ones(1))
        for i in range(20):
            writer.put(f"n{i}", torch.tensor(i))
            assert reader.get(f"n{i}").item() == i
        writer.put("n0", torch.tensor(100))
        reader.catch_up()
        assert reader["n0"].item() == 100
        assert len(reader.get_many()) == 20


# Writers


def test_second_writer_is_refused(shelf, python):
    first = python(WRITER, shelf, stdin=-1)
    assert first.stdout.readline() == "open\n"
    with pytest.raises(ts.StoreLockedError, match=str(first.pid)):
        ts.open(shelf)
    assert ts.open(shelf, "r").info()["writer"] is not None
    first.communicate("\n", timeout=60)
    with ts.open(shelf) as store, pytest.raises(ts.StoreLockedError):
        assert store.info()["writer"]
        ts.open(shelf)


def test_killed_writer_leaves_no_lock(shelf, python):
    first = python(WRITER, shelf, stdin=-1)
    assert first.stdout.readline() == "open\n"
    first.kill()
    first.wait()
    with ts.open(shelf) as store:
        store.put("a", torch.ones(1))


def test_exit_with_work_under_way(shelf, python):
    program = """
import sys, torch, tensorshelf as ts
store = ts.open(sys.argv[1])
for i in range(60):
    store.put_async(f"n{i}", torch.full((50_000,), i))
reader = ts.open(sys.argv[1], "r")
view, part = store.view(), reader.slice("n0") if "n0" in reader else None
print("exit")
"""
    out, err = python(program, shelf).communicate(timeout=60)
    assert (out, err) == ("exit\n", ""), err
    with ts.open(shelf) as store:
        assert len(store) == 60
        assert all(store[f"n{i}"].eq(i).all() for i in range(60))


def test_exit_by_exception_with_work_under_way(shelf, python):
    program = """
import sys, torch, tensorshelf as ts
store = ts.open(sys.argv[1])
futures = [store.put_async(f"n{i}", torch.full((50_000,), i)) for i in range(60)]
tx = store.transaction()
tx.put("t", torch.ones(100))
raise SystemExit(3)
"""
    process = python(program, shelf)
    process.communicate(timeout=60)
    assert process.returncode == 3
    with ts.open(shelf) as store:
        assert len(store) == 60


# Ctrl-C


def test_interrupted_put(shelf_dir, python):
    ts.create(shelf_dir, capacity="1GiB", prefill="none")
    program = """
import signal, sys, torch, tensorshelf as ts
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins with SIGINT ignored
store = ts.open(sys.argv[1])
store.put("before", torch.ones(10))
value = torch.zeros(64 << 20, dtype=torch.uint8)
names = 0
try:
    print("start", flush=True)
    while True:
        store.put("long", value)
        names += 1
except KeyboardInterrupt:
    print("interrupted", flush=True)
value.fill_(1)  # nothing of the call may be in flight any more
store.put("after", torch.ones(10))
assert torch.equal(store["before"], torch.ones(10))
assert "long" not in store or store["long"].sum() == 0
store.close()
print("closed")
"""
    process = python(program, shelf_dir)
    assert process.stdout.readline() == "start\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out == "interrupted\nclosed\n", err
    assert process.returncode == 0
    with ts.open(shelf_dir) as store:
        assert "after" in store


def test_handler_runs_while_a_call_waits(shelf_dir):
    """A signal handler that does not raise runs within the call, and the call goes on."""
    ts.create(shelf_dir, capacity="1GiB", prefill="none")
    ticks = []
    before = signal.signal(signal.SIGALRM, lambda *_: ticks.append(1))
    try:
        with ts.open(shelf_dir) as store:
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
            value = torch.zeros(256 << 20, dtype=torch.uint8)
            store.put("long", value)
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert store.stat("long").nbytes == 256 << 20
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ticks


def test_interrupted_get_raises_what_the_handler_raises(shelf_dir):
    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    ts.create(shelf_dir, capacity="1GiB", prefill="none")
    before = signal.signal(signal.SIGALRM, stop)
    try:
        with ts.open(shelf_dir, result_pool=0) as store:
            store.put("long", torch.zeros(256 << 20, dtype=torch.uint8))
            with pytest.raises(Stop):
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                while True:
                    store.get("long")
            assert store.get("long").sum() == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# kill -9

KILLED_WRITER = """
import random, sys, torch, tensorshelf as ts
path, cycle = sys.argv[1], int(sys.argv[2])
rng = random.Random(cycle)
store = ts.open(path)
def value(seed):
    size = random.Random(seed).choice([0, 10, 300, 5_000, 60_000, 700_000])
    return torch.randint(0, 256, (size,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
step = 0
while True:
    step += 1
    seed = cycle * 100_000 + step
    kind = rng.randrange(4)
    if kind == 0:
        names = {f"many/{i}": value(seed + i) for i in range(5)}
        store.put_many(names)
        print("put", *(f"many/{i}={seed + i}" for i in range(5)), flush=True)
    elif kind == 1 and step > 3:
        store.delete("single/0", missing_ok=True)
        print("delete", "single/0", flush=True)
    else:
        name = f"single/{rng.randrange(8)}"
        store.put(name, value(seed))
        print("put", f"{name}={seed}", flush=True)
"""


def killed_value(seed: int) -> torch.Tensor:
    import random

    size = random.Random(seed).choice([0, 10, 300, 5_000, 60_000, 700_000])
    return torch.randint(0, 256, (size,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_killed_writer_loses_nothing_acknowledged(shelf, python):
    expected: dict[str, int] = {}
    for cycle in range(10):
        process = python(KILLED_WRITER, shelf, cycle)
        lines = [process.stdout.readline() for _ in range(10 + 7 * cycle)]
        process.kill()
        out, err = process.communicate()
        assert not err, err
        lines += out.splitlines(keepends=True)
        for line in lines:
            kind, *names = line.split() or [""]
            if not line.endswith("\n") or kind == "":
                continue  # a line that was cut is an acknowledgement that nobody read
            for entry in names:
                name, _, seed = entry.partition("=")
                if kind == "put":
                    expected[name] = int(seed)
                else:
                    expected.pop(name, None)
        # Commits after the last line that was read may be there too: then they are whole.
        with ts.open(shelf) as store:
            got = store.get_many()
            newer = {n for n in got if n not in expected or not torch.equal(got[n], killed_value(expected[n]))}
            missing = set(expected) - set(got)
            assert not missing - {"single/0"}, (cycle, missing)
            many = {n for n in newer if n.startswith("many/")}
            singles = newer - many
            # One call was under way at most: five names of one commit, or one name.
            assert (len(many), len(singles) + len(missing)) in {(0, 0), (0, 1), (5, 0)}, (cycle, newer, missing)
            for name in newer:
                size = got[name].numel()
                assert size in {0, 10, 300, 5_000, 60_000, 700_000}
            expected = {n: s for n, s in expected.items() if n not in newer and n not in missing}
            store.delete_prefix("many/") if many else None
            for name in newer:
                store.delete(name, missing_ok=True)
            expected = {n: s for n, s in expected.items() if not (many and n.startswith("many/"))}
            space = store.stats()["space"]
            assert sum(v for k, v in space.items() if k != "capacity") == space["capacity"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_closed_stores_leave_no_descriptors_and_threads(shelf):
    def counts():
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    with ts.open(shelf) as store:
        store.put_async("a", torch.ones(1)).result(30)
    before = counts()
    for _ in range(5):
        with ts.open(shelf) as store:
            store.put_async("a", torch.ones(1)).result(30)
            store.event_fd()
            store.get("a")
    after = counts()
    assert after[0] <= before[0]
    assert after[1] <= before[1]
