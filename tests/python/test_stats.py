"""Goal: stats() and metrics() count what was done, and Prometheus takes the page.

Method: known operations on a small store; the page goes through the parser of prometheus_client, and both agree.
"""

import math
import threading

import pytest
import tensorshelf as ts
import torch

OPERATIONS = ["put", "get", "slice", "find", "delete", "names", "commit", "sync", "index_write"]


def use(store):
    store.put("a", torch.arange(100_000, dtype=torch.float32))
    store.put_many({f"m/{i}": torch.full((50_000,), float(i)) for i in range(3)})
    store.get("a")
    store.get_many(prefix="m/")
    store.slice("a")[10:20]
    store.clone("a", "b")
    store.delete("b")
    with pytest.raises(KeyError):
        store.get("nothing")


def test_operations(store):
    use(store)
    stats = store.stats()
    operations = stats["operations"]
    assert list(operations) == OPERATIONS
    assert operations["put"]["count"] == 2
    assert operations["put"]["items"] == stats["puts"] == 4
    assert operations["put"]["bytes"] == stats["put_bytes"] == 400_000 + 3 * 200_000
    assert operations["get"]["items"] == 4
    assert operations["get"]["bytes"] == 1_000_000
    assert operations["slice"]["items"] == 1
    assert operations["slice"]["bytes"] == 40
    assert operations["delete"]["count"] == operations["names"]["count"] == 1
    assert operations["commit"]["count"] == operations["index_write"]["count"] == stats["commits"] == 4
    for name, operation in operations.items():
        assert operation["errors"] == 0
        assert 0 < operation["p50_us"] <= operation["p99_us"] <= operation["max_us"], name
        assert 0 < operation["mean_us"] <= operation["max_us"], name


def test_without_a_call_there_is_no_latency(store):
    put = store.stats()["operations"]["put"]
    assert put["count"] == 0
    assert [put["p50_us"], put["p99_us"], put["max_us"], put["mean_us"]] == [None] * 4


def test_an_error_is_counted_as_one(store):
    with pytest.raises(ts.PreconditionError):
        store.put("a", torch.ones(3), if_exists=True)
    put = store.stats()["operations"]["put"]
    assert (put["count"], put["errors"]) == (0, 1)


def test_devices(store):
    use(store)
    stats = store.stats()
    (device,) = stats["devices"]
    assert device["tier"] == "nvme"
    assert device["device_uuid"] == store.info()["files"][0]["device_uuid"]
    assert device["write_bytes"] == stats["io"]["write_bytes"] >= 1_000_000
    assert device["writes"]["count"] == device["write_ops"]
    assert device["reads"]["count"] == device["read_ops"] > 0
    assert device["in_flight_ops"] == device["waiting_blocks"] == 0
    assert device["capacity"] == stats["space"]["capacity"]
    assert device["live"] == stats["space"]["live"]
    assert stats["staging"]["buffers"] == stats["staging"]["free_buffers"] > 0


def test_views_and_what_others_see(store, shelf):
    assert store.stats()["counters_hidden"] is None
    assert (shelf / "counters").is_file()
    with store.view():
        assert store.stats()["open_views"] == 1
    assert store.stats()["open_views"] == 0
    with ts.open(shelf, mode="r") as reader:
        assert reader.stats()["counters_hidden"] == "opened for reading"
        assert reader.stats()["operations"]["put"]["count"] == 0
    store.close()
    assert not (shelf / "counters").exists()
    with pytest.raises(ts.ClosedError):
        store.metrics()


def parse(page):
    parser = pytest.importorskip("prometheus_client.parser")
    return {family.name: family for family in parser.text_string_to_metric_families(page)}


def test_prometheus_takes_the_page(store):
    use(store)
    stats = store.stats()
    families = parse(store.metrics())
    uuid = store.info()["store_uuid"]
    seconds = families["tensorshelf_operation_seconds"]
    assert seconds.type == "histogram"
    assert seconds.documentation
    by_operation = {}
    for sample in seconds.samples:
        assert sample.labels["store"].replace("-", "") == uuid
        by_operation.setdefault(sample.labels["operation"], []).append(sample)
    assert list(by_operation) == OPERATIONS
    for name, samples in by_operation.items():
        buckets = [(float(s.labels["le"]), s.value) for s in samples if s.name.endswith("_bucket")]
        assert buckets == sorted(buckets)
        assert [count for _, count in buckets] == sorted(count for _, count in buckets)
        assert math.isinf(buckets[-1][0])
        (count,) = [s.value for s in samples if s.name.endswith("_count")]
        (total,) = [s.value for s in samples if s.name.endswith("_sum")]
        assert count == buckets[-1][1] == stats["operations"][name]["count"]
        assert total * 1e6 == pytest.approx(stats["operations"][name]["mean_us"] * count, rel=1e-6)
    bytes_of = {s.labels["operation"]: s.value for s in families["tensorshelf_operation_bytes"].samples}
    assert bytes_of["put"] == stats["operations"]["put"]["bytes"]
    states = {s.labels["state"]: s.value for s in families["tensorshelf_space_bytes"].samples}
    assert sum(states.values()) == stats["space"]["capacity"] == families["tensorshelf_capacity_bytes"].samples[0].value
    assert families["tensorshelf_names"].samples[0].value == len(store)
    assert families["tensorshelf_device_read_bytes"].samples[0].value == stats["io"]["read_bytes"]


def test_two_stores_make_one_page(shelf, tmp_path):
    ts.create(tmp_path / "other", capacity="16MiB", prefill="none")
    with ts.open(shelf) as a, ts.open(tmp_path / "other") as b:
        series = set()
        for store in (a, b):
            for family in parse(store.metrics()).values():
                for sample in family.samples:
                    key = (sample.name, *sorted(sample.labels.items()))
                    assert key not in series
                    series.add(key)


def test_metrics_while_others_write(store):
    stop = threading.Event()

    def work():
        number = 0
        while not stop.is_set():
            store.put(f"n{number % 10}", torch.full((1000,), number))
            number += 1

    thread = threading.Thread(target=work)
    thread.start()
    last = 0
    for _ in range(20):
        put = store.stats()["operations"]["put"]
        assert put["count"] >= last
        last = put["count"]
        assert "tensorshelf_operation_seconds_bucket" in store.metrics()
    stop.set()
    thread.join()
