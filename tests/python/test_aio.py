"""Goal: tensorshelf.aio has DeepSpeed's names, arguments and return values, for every tensor, size and offset.
Method: each call on real files in the build tree, compared with the bytes that plain open() sees."""

from __future__ import annotations

import errno
import os
import pathlib
import threading

import pytest
import torch
from tensorshelf import aio

MIB = 1 << 20


@pytest.fixture
def folder(shelf_dir: pathlib.Path) -> pathlib.Path:
    shelf_dir.mkdir()
    return shelf_dir


@pytest.fixture
def handle():
    return aio.aio_handle(block_size=128 * 1024, queue_depth=16, intra_op_parallelism=2)


def pattern(size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (size,), dtype=torch.uint8, generator=generator)


def locked(handle, tensor: torch.Tensor) -> torch.Tensor:
    result = handle.new_cpu_locked_tensor(tensor.numel(), tensor)
    return result.copy_(tensor)


def test_settings_come_back_as_given():
    handle = aio.aio_handle()
    assert handle.get_block_size() == MIB
    assert handle.get_queue_depth() == 128
    assert handle.get_single_submit() is False
    assert handle.get_overlap_events() is False
    assert handle.get_intra_op_parallelism() == handle.get_thread_count() == 1
    handle = aio.aio_handle(4096, 8, True, True, 3)
    assert handle.get_block_size() == 4096
    assert handle.get_queue_depth() == 8
    assert handle.get_single_submit() is True
    assert handle.get_overlap_events() is True
    assert handle.get_intra_op_parallelism() == 3
    assert handle.get_alignment() == 512 * 3


@pytest.mark.parametrize(
    "settings",
    [
        {"block_size": 0},
        {"block_size": -1},
        {"queue_depth": 0},
        {"queue_depth": 1 << 40},
        {"intra_op_parallelism": 0},
        {"intra_op_parallelism": 100_000},
    ],
)
def test_settings_that_make_no_sense_are_value_errors(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        aio.aio_handle(**settings)


def test_a_product_beyond_two_gib_works(folder):
    handle = aio.aio_handle(block_size=1 << 30, queue_depth=64, overlap_events=False)
    data = pattern(3 * MIB)
    assert handle.sync_pwrite(data, str(folder / "f")) == 1
    assert (folder / "f").read_bytes() == data.numpy().tobytes()


def test_the_handle_can_be_subclassed(folder):
    class Named(aio.aio_handle):
        def __init__(self, name):
            super().__init__(queue_depth=4)
            self.name = name

    handle = Named("mine")
    assert handle.name == "mine"
    assert handle.sync_pwrite(pattern(100), str(folder / "f")) == 1


def test_returns_are_deepspeeds(handle, folder):
    path = str(folder / "f")
    data, back = pattern(100_000), torch.empty(100_000, dtype=torch.uint8)
    keyword = {"async": True}
    assert handle.wait() == 0
    assert handle.write(data, path, False) == 0
    assert handle.read(back, path, False) == 0
    assert torch.equal(back, data)
    assert handle.sync_pwrite(buffer=data, filename=path, file_offset=0) == 1
    assert handle.sync_pread(buffer=back, filename=path, file_offset=0) == 1
    assert handle.pwrite(data, path, False, False) == 1
    assert handle.pread(back, path, False, False, 0) == 1
    assert handle.pwrite(data, path, False, True) == 0
    assert handle.wait() == 1
    assert handle.pread(back, path, validate=False, **keyword) == 0
    assert handle.async_pread(back, path) == 0
    assert handle.async_pread(back, path, 0) == 0
    assert handle.wait() == 3
    assert handle.wait() == 0
    assert handle.async_pread(back, path) == 0
    assert handle.sync_pread(back, path) == 2, "a call that waits also waits for what was pending"
    assert handle.wait() == 0
    assert aio.aio_write(data, path, MIB, 8, False, True, False) == 0
    back.zero_()
    assert aio.aio_read(back, path, MIB, 8, False, True, False) == 0
    assert torch.equal(back, data)


def test_missing_files_and_folders_are_minus_one_and_nothing_is_queued(handle, folder):
    data = pattern(5000)
    missing, no_folder = str(folder / "none"), str(folder / "none" / "f")
    for path in (missing, no_folder):
        assert handle.read(data, path, False) == -1
        assert handle.sync_pread(data, path) == -1
        assert handle.async_pread(data, path) == -1
        assert aio.aio_read(data, path, MIB, 8, False, True, False) == -1
    assert handle.write(data, no_folder, False) == -1
    assert handle.sync_pwrite(data, no_folder) == -1
    assert handle.async_pwrite(data, no_folder) == -1
    assert aio.aio_write(data, no_folder, MIB, 8, False, True, False) == -1
    assert handle.wait() == 0
    assert not os.path.exists(missing)


def test_a_refused_call_leaves_pending_ones_pending(handle, folder):
    assert handle.async_pwrite(pattern(5000), str(folder / "f")) == 0
    assert handle.sync_pread(pattern(1), str(folder / "none")) == -1
    assert handle.wait() == 1


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("parallelism", [1, 3])
def test_any_size_at_any_offset(folder, pinned, parallelism):
    handle = aio.aio_handle(block_size=64 * 1024, queue_depth=4, intra_op_parallelism=parallelism)
    path = folder / "f"
    model = bytearray()
    for i, (size, offset) in enumerate(
        (size, offset)
        for size in (1, 511, 512, 513, 4095, 4096, 4097, 65_536, 300_001)
        for offset in (0, 1, 512, 4096, 5000, 70_000)
    ):
        data = pattern(size, i)
        if pinned:
            data = locked(handle, data)
        assert handle.async_pwrite(data, str(path), offset) == 0
        assert handle.wait() == 1
        if len(model) < offset + size:
            model.extend(bytes(offset + size - len(model)))
        model[offset : offset + size] = data.numpy().tobytes()
        assert path.read_bytes() == model, f"{size} bytes at {offset}"
        back = torch.zeros_like(data)
        assert handle.sync_pread(back, str(path), offset) == 1
        assert torch.equal(back, data)
        if pinned:
            assert handle.free_cpu_locked_tensor(data)


def test_the_tiny_settings_that_make_512_byte_pieces(folder):
    handle = aio.aio_handle(1024, 4, False, True, 2)
    data = locked(handle, pattern(4096))
    for i in range(8):
        assert handle.async_pwrite(data[i * 512 : (i + 1) * 512], str(folder / "f"), i * 512) == 0
    assert handle.wait() == 8
    assert (folder / "f").read_bytes() == data.numpy().tobytes()


def test_writes_create_privately_and_never_cut(handle, folder):
    path = folder / "f"
    handle.sync_pwrite(pattern(10_000), str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    handle.sync_pwrite(torch.zeros(100, dtype=torch.uint8), str(path))
    assert path.read_bytes() == bytes(100) + pattern(10_000).numpy().tobytes()[100:]


def test_an_empty_tensor_makes_an_empty_file_and_counts(handle, folder):
    empty = torch.empty(0)
    assert handle.async_pwrite(empty, str(folder / "f")) == 0
    assert handle.wait() == 1
    assert (folder / "f").read_bytes() == b""
    assert handle.sync_pread(empty, str(folder / "f")) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.bool, torch.complex64])
def test_dtypes_and_shapes(handle, folder, raw, dtype):
    tensor = torch.randn(7, 3, 11).to(dtype)
    path = str(folder / "f")
    assert handle.sync_pwrite(tensor, path) == 1
    back = torch.empty_like(tensor)
    assert handle.sync_pread(back, path) == 1
    assert raw(back) == raw(tensor)
    scalar = torch.tensor(1.5).to(dtype)
    assert handle.sync_pwrite(scalar, path) == 1
    assert handle.sync_pread(back[0, 0, 0], path) == 1
    assert raw(back[0, 0, 0]) == raw(scalar)


def test_strided_tensors_go_through_their_strides(handle, folder):
    path = str(folder / "f")
    base = torch.arange(60_000, dtype=torch.float32).reshape(200, 300)
    for view in (base.t(), base[:, ::2], base[::3, 5:17], base[0, :1].expand(50)):
        assert handle.async_pwrite(view, path) == 0
        assert handle.wait() == 1
        assert torch.equal(torch.from_file(path, size=view.numel()).reshape(view.shape), view)
    handle.sync_pwrite(base.t(), path)
    target = torch.zeros(300, 400)
    for read in (handle.sync_pread, handle.async_pread):
        target.zero_()
        read(target[:, ::2], path)
        handle.wait()
        assert torch.equal(target[:, ::2], base.t())
        assert not target[:, 1::2].any(), "what lies between was not touched"


def test_ordinary_memory_may_change_after_async_pwrite(handle, folder):
    data = pattern(3 * MIB + 17)
    want = data.numpy().tobytes()
    for kind in ("contiguous", "strided"):
        buffer = data.clone() if kind == "contiguous" else data.repeat_interleave(2)[::2]
        assert handle.async_pwrite(buffer, str(folder / "f")) == 0
        buffer.zero_()
        assert handle.wait() == 1
        assert (folder / "f").read_bytes() == want


def test_pinned_memory_is_not_copied_and_ordinary_memory_stays_within_the_arena(folder):
    handle = aio.aio_handle(MIB, 8, False, False, 2)
    data = locked(handle, pattern(8 * MIB))
    handle.sync_pwrite(data, str(folder / "f"))
    handle.async_pread(data, str(folder / "f"))
    handle.wait()
    assert handle.stats()["write_bytes"] == handle.stats()["read_bytes"] == 8 * MIB
    assert handle.stats()["staged_bytes"] == 0


def test_many_operations_fly_together(folder):
    handle = aio.aio_handle(MIB, 16, False, True, 2)
    buffer = locked(handle, pattern(200 * 4096))
    for i in range(200):
        assert handle.async_pwrite(buffer[i * 4096 : (i + 1) * 4096], str(folder / f"f{i}")) == 0
    assert handle.wait() == 200
    back = torch.zeros_like(buffer)
    for i in range(200):
        assert handle.async_pread(back[i * 4096 : (i + 1) * 4096], str(folder / f"f{i}")) == 0
    assert handle.wait() == 200
    assert torch.equal(back, buffer)


def test_the_descriptor_form_as_fast_persist_calls_it(handle, folder):
    path = str(folder / "f")
    alignment = handle.get_alignment()
    buffers = [locked(handle, pattern(256 * alignment, seed)) for seed in range(2)]
    tail = pattern(777, 9)
    fd = os.open(path, os.O_DIRECT | os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        offset = 0
        for i in range(6):
            buffer = buffers[i % 2]
            count = buffer.numel() if i < 5 else 3 * alignment
            assert handle.async_pwrite(buffer[0:count], fd, offset) == 0
            assert handle.wait() == 1
            offset += count
        assert handle.async_pwrite(buffer=tail, fd=fd, file_offset=offset) == 0
        assert handle.wait() == 1
        assert os.lseek(fd, 0, os.SEEK_END) == offset + 777, "still open, and ours to close"
    finally:
        os.close(fd)
    parts = [buffers[i % 2].numpy().tobytes() for i in range(5)] + [buffers[1][: 3 * alignment].numpy().tobytes()]
    assert pathlib.Path(path).read_bytes() == b"".join(parts) + tail.numpy().tobytes()


def test_a_descriptor_may_be_closed_while_a_write_is_pending(handle, folder):
    data = locked(handle, pattern(4 * MIB))
    fd = os.open(folder / "f", os.O_CREAT | os.O_WRONLY, 0o600)
    assert handle.async_pwrite(data, fd) == 0
    os.close(fd)
    assert handle.wait() == 1
    assert (folder / "f").read_bytes() == data.numpy().tobytes()


def test_paths_may_be_str_bytes_or_path_like(handle, folder):
    data = pattern(10)
    for path in (str(folder / "f"), os.fsencode(folder / "f"), folder / "f"):
        assert handle.sync_pwrite(data, path) == 1
    with pytest.raises(ValueError, match="null"):
        handle.sync_pwrite(data, "a\0b")


def test_files_replaced_or_removed_behind_the_handle(handle, folder):
    path = folder / "f"
    back = torch.empty(5000, dtype=torch.uint8)
    for seed in range(4):
        (folder / "new").write_bytes(pattern(5000, seed).numpy().tobytes())
        os.rename(folder / "new", path)
        assert handle.sync_pread(back, str(path)) == 1
        assert torch.equal(back, pattern(5000, seed))
    path.unlink()
    assert handle.sync_pread(back, str(path)) == -1
    assert handle.sync_pwrite(pattern(10), str(path)) == 1
    assert path.read_bytes() == pattern(10).numpy().tobytes()


def test_two_threads_share_a_handle(handle, folder):
    rounds = 100
    failures = []

    def work(number: int) -> None:
        path = str(folder / f"f{number}")
        data = pattern(20_000, number)
        back = torch.empty_like(data)
        for _ in range(rounds):
            if handle.sync_pwrite(data, path) != 1 or handle.sync_pread(back, path) != 1 or not torch.equal(back, data):
                failures.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert handle.wait() == 0


def test_waits_of_two_threads_share_out_what_is_pending(handle, folder):
    data = locked(handle, pattern(MIB))
    counts = []

    def wait() -> None:
        counts.append(handle.wait())
        # Whoever took it: after any wait() everything queued before it is there.
        assert all((folder / f"f{i}").stat().st_size == MIB for i in range(16))

    for i in range(16):
        assert handle.async_pwrite(data, str(folder / f"f{i}")) == 0
    threads = [threading.Thread(target=wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 16


def test_memcpy_copies_any_dtype_shape_and_stride(raw):
    for dtype in (torch.float32, torch.int64, torch.bfloat16, torch.uint8, torch.float8_e4m3fn):
        src = torch.randn(10, 100).to(dtype)
        guarded = torch.zeros(12, 100).to(dtype)
        assert aio.deepspeed_memcpy(guarded[1:11], src) == 0
        assert raw(guarded[1:11]) == raw(src)
        assert not any(raw(guarded[0])) and not any(raw(guarded[11]))
        assert aio.deepspeed_memcpy(dest=guarded[:10].t(), src=src.t()) == 0
        assert raw(guarded[:10]) == raw(src)
    with pytest.raises(ValueError, match="shape"):
        aio.deepspeed_memcpy(torch.zeros(1000), torch.zeros(1001))
    with pytest.raises(ValueError, match="dtype"):
        aio.deepspeed_memcpy(torch.zeros(4), torch.zeros(4, dtype=torch.float16))


def test_locked_tensors_are_one_registry_for_all_handles():
    first, second, pin = aio.aio_handle(), aio.aio_handle(), aio.pin_handle()
    example = torch.empty(3, dtype=torch.bfloat16)
    tensor = first.new_cpu_locked_tensor(5000, example)
    assert (tensor.shape, tensor.dtype, tensor.device.type) == ((5000,), torch.bfloat16, "cpu")
    assert tensor.data_ptr() % 4096 == 0
    for handle in (first, second, pin):
        assert handle.is_pinned(tensor)
        assert handle.is_pinned(tensor[100:200])
        assert handle.is_pinned(tensor.narrow(0, 4999, 1))
        assert not handle.is_pinned(torch.empty(10))
    assert not second.free_cpu_locked_tensor(tensor[1:]), "not at the base"
    assert not second.free_cpu_locked_tensor(torch.empty(10))
    assert second.free_cpu_locked_tensor(tensor[:10]), "a view at the base"
    assert not first.free_cpu_locked_tensor(tensor), "freed before"
    assert not pin.is_pinned(tensor)
    tensor.fill_(1)  # its memory is there as long as it is

    for keyword in ("example_tenosr", "example_tensor"):
        tensor = first.new_cpu_locked_tensor(num_elem=7, **{keyword: example})
        assert first.free_cpu_locked_tensor(tensor)
    tensor = pin.new_cpu_locked_tensor(num_elem=10, example_tensor=example)
    assert first.is_pinned(tensor)
    address = tensor.data_ptr()
    del tensor
    assert pin.free_cpu_locked_tensor_by_ptr(address), "memory lives until it is freed"
    assert not pin.free_cpu_locked_tensor_by_ptr(address)
    tensor = pin.new_cpu_locked_tensor(10, example)
    assert pin.free_cpu_locked_tensor(locked_tensor=tensor)
    assert first.new_cpu_locked_tensor(0, example).numel() == 0
    with pytest.raises(ValueError, match="num_elem"):
        first.new_cpu_locked_tensor(-1, example)


def locked_kib() -> int:
    return int(pathlib.Path("/proc/self/status").read_text().split("VmLck:")[1].split()[0])


def test_locked_memory_is_locked_and_given_back():
    before = locked_kib()
    handle = aio.aio_handle()
    tensor = handle.new_cpu_locked_tensor(16 * MIB, torch.empty(0, dtype=torch.uint8))
    assert locked_kib() >= before + 16 * 1024
    assert handle.free_cpu_locked_tensor(tensor)
    del tensor
    left = locked_kib() - before
    assert left < 16 * 1024

    kept = handle.new_cpu_locked_tensor(16 * MIB, torch.empty(0, dtype=torch.uint8))
    handle.new_cpu_locked_tensor(16 * MIB, torch.empty(0, dtype=torch.uint8))
    assert locked_kib() >= before + left + 32 * 1024
    other = aio.aio_handle()
    del handle
    # With its handle goes what nobody freed and nobody has; what somebody has stays locked.
    assert before + left + 16 * 1024 <= locked_kib() < before + left + 32 * 1024
    assert other.is_pinned(kept)
    assert other.free_cpu_locked_tensor(kept)


def test_freeing_under_a_write_in_flight_does_not_harm_it(handle, folder):
    want = pattern(8 * MIB)
    tensor = locked(handle, want)
    assert handle.async_pwrite(tensor, str(folder / "f")) == 0
    assert handle.free_cpu_locked_tensor(tensor)
    del tensor
    assert handle.wait() == 1
    assert (folder / "f").read_bytes() == want.numpy().tobytes()


def test_descriptors_do_not_leak(handle, folder):
    for i in range(300):
        handle.sync_pwrite(pattern(1001), str(folder / f"f{i}"))
        with pytest.raises(OSError):
            handle.sync_pread(torch.empty(5000), str(folder / f"f{i}"))
    handle_descriptors = len(os.listdir("/proc/self/fd"))
    del handle
    assert handle_descriptors < 250


def test_a_deleted_file_gives_its_space_back_when_the_handle_goes(folder):
    handle = aio.aio_handle()
    handle.sync_pwrite(pattern(1000), str(folder / "f"))
    (folder / "f").unlink()
    del handle
    links = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.islink(f"/proc/self/fd/{fd}")
    ]
    assert not any(str(folder) in link for link in links)


def test_errors_carry_path_offset_length_and_errno(handle, folder):
    path = str(folder / "short")
    pathlib.Path(path).write_bytes(bytes(1000))
    with pytest.raises(OSError) as raised:
        handle.sync_pread(torch.empty(600, dtype=torch.uint8), path, 500)
    assert raised.value.errno == errno.ENODATA
    assert raised.value.filename == path
    for part in ("600 bytes", "offset 500", "1000 bytes"):
        assert part in str(raised.value)
