"""Traces of a period: the file is what trace viewers take, and holds the operations and transfers of the period.
Each test records a few calls and reads the file back as JSON.
"""

from __future__ import annotations

import json

import pytest
import tensorshelf as ts
import torch


def events_of(path):
    trace = json.loads(path.read_text())
    return trace, [event for event in trace["traceEvents"] if event["ph"] == "X"]


def test_the_block_and_nothing_else(store, tmp_path):
    store.put("before", torch.ones(1000))
    path = tmp_path / "trace.json"
    with store.trace(path):
        store.put('na"me\n', torch.ones(1_000_000))
        store.get('na"me\n')
        store.slice('na"me\n')[0:10]
        store.delete('na"me\n')
    store.put("after", torch.ones(1000))
    trace, events = events_of(path)
    operations = [event["name"] for event in events if event["cat"] == "operation"]
    for name in ("stage", "put", "get", "slice", "find", "delete", "commit", "sync", "index_write"):
        assert name in operations
    transfers = [event for event in events if event["cat"] == "transfer"]
    assert {event["name"] for event in transfers} == {"read", "write"}
    for event in transfers:
        assert event["args"]["queue_wait_us"] >= 0
        assert event["args"]["device"].startswith("nvme ")
        assert event["args"]["file"].endswith("00000001.tsd")
    assert sum(event["args"]["bytes"] for event in transfers if event["name"] == "read") >= 4_000_000
    assert not [event for event in events if event["args"].get("first") in ("before", "after")]
    assert trace["otherData"]["forgotten_events"] == 0
    begin, end = 0, trace["otherData"]["duration_us"]
    assert all(begin <= event["ts"] and event["ts"] + event["dur"] <= end + 1 for event in events)


def test_transfers_of_one_track_do_not_overlap(store, tmp_path):
    store.put_many({f"t{i}": torch.ones(2_000_000) for i in range(4)})
    with store.trace(tmp_path / "t.json"):
        store.get_many()
    _, events = events_of(tmp_path / "t.json")
    tracks: dict[tuple, float] = {}
    for event in sorted((e for e in events if e["cat"] == "transfer"), key=lambda e: e["ts"]):
        track = (event["pid"], event["tid"])
        assert event["ts"] >= tracks.get(track, 0) - 0.002  # rounded to nanoseconds
        tracks[track] = event["ts"] + event["dur"]


def test_only_the_newest_events_are_kept(store, tmp_path):
    store.put("a", torch.ones(1))
    with store.trace(tmp_path / "t.json", events=10):
        for _ in range(100):
            store.get("a")
    trace, events = events_of(tmp_path / "t.json")
    assert len(events) == 10
    assert trace["otherData"]["forgotten_events"] >= 190


def test_one_at_a_time(store, tmp_path):
    with pytest.raises(ts.StoreError, match="no trace"):
        store.stop_trace(tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()
    store.start_trace()
    with pytest.raises(ts.StoreError, match="already"), store.trace(tmp_path / "second.json"):
        pass
    store.stop_trace(tmp_path / "first.json")
    assert events_of(tmp_path / "first.json")[1] == []
    for events in (0, -1, "many", True):
        with pytest.raises(ValueError, match="positive int"):
            store.start_trace(events=events)


def test_written_when_the_block_fails_or_closes_the_store(store, tmp_path):
    with pytest.raises(ts.NameNotFoundError), store.trace(tmp_path / "failed.json"):
        store.get("missing")
    assert [event["name"] for event in events_of(tmp_path / "failed.json")[1]] == ["find"]
    with store.trace(tmp_path / "closed.json"):
        store.put("a", torch.ones(1))
        store.close()
    assert "put" in {event["name"] for event in events_of(tmp_path / "closed.json")[1]}
    with pytest.raises(ts.ClosedError):
        store.start_trace()
