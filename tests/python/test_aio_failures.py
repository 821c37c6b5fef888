"""Goal: what goes wrong in tensorshelf.aio is an exception that names file, offset, length and errno, and nothing stays
in flight. Method: make it go wrong for real: a full file system, limits of the process and of the system, short files,
bad descriptors, forks, signals, and an interpreter that ends with calls pending."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys

import pytest
import tensorshelf as ts
import torch
from tensorshelf import aio

MIB = 1 << 20


@pytest.fixture
def folder(shelf_dir: pathlib.Path) -> pathlib.Path:
    shelf_dir.mkdir()
    return shelf_dir


@pytest.fixture
def small_disk(folder: pathlib.Path):
    """An ext4 file system of 16 MiB."""
    image, mounted = folder / "image", folder / "mounted"
    image.write_bytes(b"")
    os.truncate(image, 16 * MIB)
    mounted.mkdir()
    if os.geteuid() != 0 or shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin") is None:
        pytest.skip("needs root and mkfs.ext4")
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True, env=environment)
    mount = subprocess.run(["mount", "-o", "loop", image, mounted], capture_output=True, text=True, env=environment)
    if mount.returncode != 0:
        pytest.skip(f"no loop mounts here: {mount.stderr.strip()}")
    yield mounted
    # A failed test's traceback still has its handle, and that has files open.
    subprocess.run(["umount", "--lazy", mounted], check=True, env=environment)


def filled(handle, size: int, pinned: bool) -> torch.Tensor:
    tensor = (
        handle.new_cpu_locked_tensor(size, torch.empty(0, dtype=torch.uint8))
        if pinned
        else torch.empty(size, dtype=torch.uint8)
    )
    return tensor.fill_(7)


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("call", ["write", "sync_pwrite", "async_pwrite", "aio_write"])
def test_a_full_disk_is_an_error(small_disk, pinned, call):
    handle = aio.aio_handle(256 * 1024, 8, False, True, 2)
    data = filled(handle, 32 * MIB, pinned)
    path = str(small_disk / "f")
    with pytest.raises(OSError) as raised:
        if call == "write":
            handle.write(data, path, False)
        elif call == "sync_pwrite":
            handle.sync_pwrite(data, path)
        elif call == "aio_write":
            aio.aio_write(data, path, MIB, 8, False, True, False)
        else:
            assert handle.async_pwrite(data, path) == 0
            handle.wait()
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == path
    assert f"write of {32 * MIB} bytes at offset 0 of {path}" in str(raised.value)
    assert handle.wait() == 0, "nothing is left in flight"
    os.unlink(path)
    small = filled(handle, MIB + 100, pinned)
    assert handle.sync_pwrite(small, path) == 1, "the handle works on"
    assert pathlib.Path(path).read_bytes() == small.numpy().tobytes()
    del handle


def test_a_full_disk_is_an_error_for_the_last_bytes_too(small_disk):
    """Less than a page, so through the page cache, where a delayed allocation could hide it."""
    handle = aio.aio_handle()
    (small_disk / "rest").write_bytes(b"")
    # Again and again: what a delayed allocation reserved too much comes free when it is done.
    with open(small_disk / "all", "wb", buffering=0) as file:
        size = -1
        while size != file.tell():
            size = file.tell()
            for step in (65536, 512):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(step))
            os.fsync(file.fileno())
    with pytest.raises(OSError) as raised:
        handle.sync_pwrite(torch.ones(100, dtype=torch.uint8), str(small_disk / "rest"))
    assert raised.value.errno == errno.ENOSPC
    del handle


def test_one_failure_among_many_is_told_and_the_others_are_done(small_disk):
    handle = aio.aio_handle()
    good = filled(handle, 100_000, True)
    bad = filled(handle, 32 * MIB, True)
    for i in range(3):
        assert handle.async_pwrite(good, str(small_disk / f"good{i}")) == 0
    assert handle.async_pwrite(bad, str(small_disk / "bad")) == 0
    assert handle.async_pwrite(bad, str(small_disk / "worse")) == 0
    with pytest.raises(OSError, match="1 more failed") as raised:
        handle.wait()
    assert raised.value.filename == str(small_disk / "bad")
    for i in range(3):
        assert (small_disk / f"good{i}").read_bytes() == good.numpy().tobytes()
    assert handle.wait() == 0
    del handle


def test_a_file_size_limit_is_an_error(folder, python):
    child = python(
        """
import resource, sys, torch
from tensorshelf import aio
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
handle = aio.aio_handle()
pinned = handle.new_cpu_locked_tensor(4 << 20, torch.empty(0, dtype=torch.uint8))
for tensor in (pinned, torch.zeros(4 << 20, dtype=torch.uint8), torch.zeros((1 << 20) + 7, dtype=torch.uint8)):
    try:
        handle.async_pwrite(tensor, sys.argv[1])
        print(handle.wait())
    except OSError as error:
        print(error.errno, error.filename == sys.argv[1])
""",
        folder / "f",
    )
    out, err = child.communicate()
    assert child.returncode == 0, err
    assert out == f"{errno.EFBIG} True\n" * 3


@pytest.mark.parametrize(
    ("size", "offset", "length"), [(0, 0, 1), (1000, 0, 1001), (1000, 1000, 1), (1000, 5000, 1), (MIB, 4096, MIB)]
)
def test_reading_past_the_end_names_both_sizes(folder, size, offset, length):
    handle = aio.aio_handle()
    path = str(folder / "f")
    pathlib.Path(path).write_bytes(bytes(size))
    buffer = torch.full((length,), 5, dtype=torch.uint8)
    for call in (
        lambda: handle.sync_pread(buffer, path, offset),
        lambda: handle.async_pread(buffer, path, offset),
        lambda: handle.read(buffer, path, False, offset),
    ):
        with pytest.raises(OSError, match=f"read of {length} bytes at offset {offset} .* only {size} bytes") as raised:
            call()
        assert raised.value.errno == errno.ENODATA
    assert handle.wait() == 0
    assert bool((buffer == 5).all())


def test_queues_beyond_the_systems_limit_name_it():
    limit = int(pathlib.Path("/proc/sys/fs/aio-max-nr").read_text())
    if limit >= 1 << 20:
        pytest.skip("fs.aio-max-nr is higher than any queue of ours")
    with pytest.raises(OSError, match=f"fs.aio-max-nr is {limit}, of which [0-9]+ are in use") as raised:
        aio.aio_handle(queue_depth=limit + 1)
    assert raised.value.errno == errno.EAGAIN
    # Used up by others, but for some that whoever else runs here may need.
    used = int(pathlib.Path("/proc/sys/fs/aio-nr").read_text())
    holder = aio.aio_handle(queue_depth=limit - used - 6000)
    with pytest.raises(OSError, match=r"fs\.aio-max-nr") as raised:
        aio.aio_handle(queue_depth=1000, intra_op_parallelism=8)
    assert raised.value.errno == errno.EAGAIN
    del holder
    aio.aio_handle(queue_depth=1000, intra_op_parallelism=8)


def test_a_lock_limit_is_an_error_and_never_an_unlocked_tensor(tmp_path):
    program = """
import resource, torch
from tensorshelf import aio
resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, 1 << 20))
handle = aio.aio_handle()
example = torch.empty(0, dtype=torch.uint8)
small = handle.new_cpu_locked_tensor(500_000, example)
for make in (handle.new_cpu_locked_tensor, aio.pin_handle().new_cpu_locked_tensor):
    try:
        make(1 << 20, example)
        print("made")
    except OSError as error:
        print(error.errno, "RLIMIT_MEMLOCK" in str(error), "1048576 bytes" in str(error))
assert handle.is_pinned(small)
assert handle.free_cpu_locked_tensor(small)
"""
    command = [sys.executable, "-c", program]
    if os.geteuid() == 0:
        # Root may lock what it likes unless it has lost the right.
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv")
        command = ["setpriv", "--bounding-set=-ipc_lock", *command]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{errno.ENOMEM} True True\n" * 2


def test_a_handle_that_goes_finishes_what_is_pending(folder):
    want = bytes(range(256)) * 4 * 4096
    for pinned in (True, False):
        handle = aio.aio_handle(MIB, 2)
        data = filled(handle, len(want), pinned)
        data.copy_(torch.frombuffer(bytearray(want), dtype=torch.uint8))
        for i in range(8):
            assert handle.async_pwrite(data, str(folder / f"f{i}")) == 0
        del handle
        for i in range(8):
            assert (folder / f"f{i}").read_bytes() == want


def test_an_error_that_nobody_waited_for_is_logged(small_disk, caplog):
    handle = aio.aio_handle()
    assert handle.async_pwrite(filled(handle, 32 * MIB, True), str(small_disk / "f")) == 0
    del handle
    assert "ENOSPC" in caplog.text
    assert str(small_disk / "f") in caplog.text


def test_an_interpreter_that_ends_finishes_what_is_pending(folder, python):
    child = python(
        """
import sys, torch
from tensorshelf import aio
handle = aio.aio_handle(1 << 20, 2)
for i in range(16):
    assert handle.async_pwrite(torch.full((3 << 20,), i, dtype=torch.uint8), f"{sys.argv[1]}/f{i}") == 0
sys.keep = handle
""",
        folder,
    )
    out, err = child.communicate()
    assert (child.returncode, out, err) == (0, "", "")
    for i in range(16):
        assert (folder / f"f{i}").read_bytes() == bytes([i]) * (3 * MIB)


def test_bad_descriptors(folder):
    handle = aio.aio_handle()
    data = torch.ones(5000, dtype=torch.uint8)
    (folder / "f").write_bytes(b"text")
    closed = os.open(folder / "f", os.O_RDWR)
    os.close(closed)
    for fd in (closed, -1, 1 << 20):
        with pytest.raises(OSError) as raised:
            handle.async_pwrite(data, fd)
        assert raised.value.errno == errno.EBADF
    read_only = os.open(folder / "f", os.O_RDONLY)
    with pytest.raises(OSError, match="not open for writing") as raised:
        handle.async_pwrite(data, read_only, 0)
    assert raised.value.errno == errno.EBADF
    os.close(read_only)
    append = os.open(folder / "f", os.O_WRONLY | os.O_APPEND)
    with pytest.raises(OSError, match="O_APPEND"):
        handle.async_pwrite(data, append)
    os.close(append)
    ends = os.pipe()
    with pytest.raises(OSError, match="not a regular file"):
        handle.async_pwrite(data, ends[1])
    for end in ends:
        os.close(end)
    assert handle.wait() == 0
    assert (folder / "f").read_bytes() == b"text"


def test_bad_arguments(folder):
    handle = aio.aio_handle()
    path = str(folder / "f")
    data = torch.ones(4)
    with pytest.raises(ValueError, match="file_offset -1"):
        handle.sync_pwrite(data, path, -1)
    with pytest.raises(ValueError, match="largest file offset"):
        handle.sync_pwrite(data, path, (1 << 63) - 8)
    with pytest.raises(TypeError, match=r"torch\.Tensor"):
        handle.sync_pwrite([1, 2], path)
    with pytest.raises(TypeError, match="sparse"):
        handle.sync_pwrite(data.to_sparse(), path)
    with pytest.raises(TypeError, match="meta"):
        handle.sync_pread(torch.empty(4, device="meta"), path)
    with pytest.raises(TypeError):
        handle.sync_pwrite(data, 1.5)
    for bad in (str(folder), "/dev/null"):
        with pytest.raises(ValueError, match="not a regular file"):
            handle.sync_pwrite(data, bad)
    with pytest.raises(NotADirectoryError):
        (folder / "file").write_bytes(b"")
        handle.sync_pwrite(data, str(folder / "file" / "f"))
    assert handle.wait() == 0


@pytest.mark.parametrize("pinned", [True, False])
def test_validate_compares_what_was_written(folder, pinned):
    handle = aio.aio_handle()
    path = folder / "f"
    data = filled(handle, 2 * MIB + 5, pinned)
    assert handle.pwrite(data, str(path), True, False, 100) == 1
    assert handle.write(data, str(path), True) == 0
    assert aio.aio_write(data, str(path), MIB, 8, False, True, True) == 0
    data.fill_(8)
    assert handle.pwrite(data, str(path), True, True) == 0
    wait_until(lambda: path.read_bytes()[: data.numel()] == data.numpy().tobytes())
    with open(path, "r+b") as file:
        file.seek(MIB + 17)
        file.write(b"x")
    with pytest.raises(OSError, match=f"validation: .* at {MIB} of the file") as raised:
        handle.wait()
    assert raised.value.errno == errno.EIO
    assert handle.wait() == 0


def test_validate_compares_what_was_read(folder):
    handle = aio.aio_handle()
    path = folder / "f"
    path.write_bytes(bytes([9]) * 5000)
    buffer = torch.zeros(5000, dtype=torch.uint8)
    assert handle.pread(buffer, str(path), True, False) == 1
    assert handle.read(buffer, str(path), True) == 0
    buffer.zero_()
    assert handle.pread(buffer, str(path), True, True) == 0
    wait_until(lambda: bool((buffer == 9).all()))
    path.write_bytes(bytes([8]) * 5000)
    with pytest.raises(OSError, match="validation"):
        handle.wait()


def wait_until(condition) -> None:
    """Until the transfer that was started has landed; a test that never sees it fails by its own time limit."""
    for _ in range(1_000_000):
        if condition():
            return
    pytest.fail("the transfer did not land")


def test_a_forked_child_may_read_tensors_but_not_use_the_handle(folder):
    handle = aio.aio_handle()
    tensor = filled(handle, 3 * MIB, True)
    assert handle.async_pwrite(tensor, str(folder / "f")) == 0
    pid = os.fork()
    if pid == 0:
        try:
            try:
                handle.wait()
                code = 1
            except ts.ForkedError:
                code = 0 if (tensor.numpy() == 7).all() else 2  # torch's own threads are not in the child
            del tensor, handle
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert handle.wait() == 1
    assert (folder / "f").read_bytes() == tensor.numpy().tobytes()


def test_signals_do_not_disturb_transfers(folder):
    """Each millisecond a signal with a handler that returns: system calls are interrupted, calls go on."""
    handle = aio.aio_handle(MIB, 4, False, True, 2)
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        data = filled(handle, 16 * MIB, False)
        for _ in range(4):
            assert handle.async_pwrite(data, str(folder / "f")) == 0
            assert handle.wait() == 1
            assert handle.sync_pread(torch.empty_like(data), str(folder / "f")) == 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen


def test_nothing_is_printed(folder, capfd):
    handle = aio.aio_handle()
    data = torch.ones(5000)
    path = str(folder / "f")
    assert aio.aio_write(data, path, MIB, 8, False, True, True) == 0
    assert aio.aio_read(data, path, MIB, 8, False, True, True) == 0
    assert handle.write(data, path, True) == 0
    assert handle.read(data, str(folder / "none"), True) == -1
    with pytest.raises(OSError, match="only"):
        handle.read(torch.ones(6000), path, True)
    assert capfd.readouterr() == ("", "")


def test_more_pending_than_the_staging_arena_holds_stays_within_it(folder):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    handle = aio.aio_handle(MIB, 32)
    data = torch.ones(MIB, dtype=torch.uint8)
    for i in range(300):
        assert handle.async_pwrite(data, str(folder / f"f{i % 20}"), (i // 20) * MIB) == 0
    assert handle.wait() == 300
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100 * 1024, f"{grown} KiB more, the arena has 64 MiB"
