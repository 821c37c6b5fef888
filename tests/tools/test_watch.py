"""Goal: tensorshelf watch beside a program in Python: live numbers, a page that fits its terminal, and the end of it.

Method: writers in this process and in others, one of them killed; the tool on pipes and on a pseudo-terminal.
"""

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
ts = pytest.importorskip("tensorshelf")

WRITER = """
import sys, torch, tensorshelf as ts
store = ts.open(sys.argv[1])
store.put("a", torch.zeros(50_000))
print("ready", flush=True)
sys.stdin.read()
store.close()
"""


def find_tool():
    tool = os.environ.get("TENSORSHELF_CLI") or shutil.which("tensorshelf", path=str(Path(sys.executable).parent))
    assert tool, "no tensorshelf beside this Python; install the package or set TENSORSHELF_CLI"
    return tool


def watch(shelf, *arguments):
    command = [find_tool(), "watch", str(shelf), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def page_of(shelf):
    done = watch(shelf, "--count", "1", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wait_for(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what


@pytest.fixture
def shelf(tmp_path):
    ts.create(tmp_path / "shelf", capacity="32MiB", prefill="none")
    return tmp_path / "shelf"


@pytest.fixture
def writer(shelf):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, shelf], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def operation(page, name):
    (found,) = [one for one in page["operations"] if one["operation"] == name]
    return found


def test_agrees_with_stats(shelf):
    with ts.open(shelf) as store:
        for i in range(5):
            store.put(f"n{i}", torch.full((10_000,), i))
        store.get("n0")
        wait_for(lambda: operation(page_of(shelf), "get")["count"] == 1, "the get is shown")
        page, stats = page_of(shelf), store.stats()
        for name, counted in stats["operations"].items():
            shown = operation(page, name)
            for field in ("count", "items", "bytes", "errors"):
                assert shown[field] == counted[field], (name, field)
            if counted["count"]:
                assert shown["latency_us"]["p99"] == pytest.approx(counted["p99_us"])
        assert page["space"] == stats["space"]
        assert page["names"] == stats["names"] == 5
        assert page["pid"] == os.getpid()
        assert page["memory_tier"] is None
        (device,) = page["devices"]
        assert device["written_bytes"] == stats["devices"][0]["write_bytes"]
        assert device["directory"] == str(shelf)


def test_rates_are_of_the_time_between(shelf):
    with ts.open(shelf) as store:
        command = [find_tool(), "watch", str(shelf), "--json", "--interval", "300ms"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tool:
            first = json.loads(tool.stdout.readline())
            assert first["since_open"]
            seen = 0.0
            deadline = time.monotonic() + 60
            while seen == 0.0 and time.monotonic() < deadline:
                store.put("a", torch.zeros(30_000))
                page = json.loads(tool.stdout.readline())
                assert not page["since_open"]
                put = operation(page, "put")
                assert put["bytes_per_second"] == pytest.approx(put["calls_per_second"] * 120_000)
                seen = put["calls_per_second"]
            assert seen > 0.0
            tool.terminate()


def test_ends_with_its_writer(shelf, writer):
    command = [find_tool(), "watch", str(shelf), "--interval", "20ms"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tool:
        assert str(shelf) in tool.stdout.readline()
        writer.communicate("")
        _, errors = tool.communicate(timeout=60)
        assert tool.returncode == 8
        assert "nobody writes to" in errors


def test_a_killed_writer_is_not_a_live_one(shelf, writer):
    assert page_of(shelf)["pid"] == writer.pid
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert (shelf / "counters").exists()
    done = watch(shelf)
    assert done.returncode == 8
    assert f"its last writer was pid={writer.pid} " in done.stderr
    with ts.open(shelf) as store:
        assert page_of(shelf)["pid"] == os.getpid()
        assert torch.equal(store.get("a"), torch.zeros(50_000))
    assert not (shelf / "counters").exists()


def test_a_stopped_writer_is_still_seen(shelf, writer):
    writer.send_signal(signal.SIGSTOP)
    try:
        assert page_of(shelf)["pid"] == writer.pid
    finally:
        writer.send_signal(signal.SIGCONT)


def on_terminal(shelf, columns, **environment):
    """What two pages look like on a terminal that is `columns` wide."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    variables = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | environment
    command = [find_tool(), "watch", str(shelf), "--count", "2", "--interval", "20ms"]
    tool = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, env=variables)
    os.close(theirs)
    text = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        text += piece
    os.close(ours)
    _, errors = tool.communicate(timeout=60)
    assert tool.returncode == 0, errors
    return text.decode()


def test_on_a_terminal(shelf, writer):
    text = on_terminal(shelf, 100)
    assert text.count("\x1b[2J") == 1
    assert text.count("\x1b[H") == 2
    assert "\x1b[1m" in text
    assert f"pid={writer.pid}" in text


def test_no_color(shelf, writer):
    text = on_terminal(shelf, 100, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*m", text)
    assert text.count("\x1b[H") == 2


@pytest.mark.parametrize("columns", [20, 47, 80])
def test_lines_fit(shelf, writer, columns):
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", on_terminal(shelf, columns))
    lines = plain.replace("\r", "").split("\n")
    assert max(map(len, lines)) <= columns
    assert any(line.startswith("put") for line in lines)
