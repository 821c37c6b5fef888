"""Goal: the command line agrees with the reference safetensors library and with NumPy.

Method: about two hundred seeded broken and odd files get the same verdict from both, but for the differences that
tools/safetensors/rules.h lists; files that went through a shelf come out byte for byte as the library wrote them.
"""

import json
import os
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

safetensors = pytest.importorskip("safetensors")
from safetensors import safe_open  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

SEED = 20260501


def find_tool():
    beside_python = shutil.which("tensorshelf", path=str(Path(sys.executable).parent))
    tool = os.environ.get("TENSORSHELF_CLI") or beside_python
    assert tool, "no tensorshelf beside this Python; install the package or set TENSORSHELF_CLI"
    return tool


def call(*arguments):
    return subprocess.run([find_tool(), *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


def answer(*arguments):
    done = call(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def shelf(tmp_path):
    path = tmp_path / "shelf"
    answer("create", path, "--capacity", "32MiB", "--prefill", "none")
    return path


def file_bytes(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(1,), offsets=(0, 4), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


HAND_MADE = {
    "empty file": b"",
    "seven bytes": b"1234567",
    "header too large": struct.pack("<Q", 100_000_001) + b"{}",
    "length overflows": struct.pack("<Q", 2**64 - 1) + b"{}",
    "header past the end": struct.pack("<Q", 3) + b"{}",
    "no header": struct.pack("<Q", 0),
    "not UTF-8": file_bytes(b'{"\xff":1}'),
    "cut JSON": file_bytes(b"{"),
    "text after": file_bytes(b"{} x"),
    "NUL after": file_bytes(b"{}\x00"),
    "byte order mark": file_bytes(b"\xef\xbb\xbf{}"),
    "deep": file_bytes(b"[" * 200 + b"]" * 200),
    "array": file_bytes(b"[]"),
    "metadata number": file_bytes({"__metadata__": {"a": 1}}),
    "metadata array": file_bytes({"__metadata__": []}),
    "no shape": file_bytes({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, b"1234"),
    "lower case": file_bytes({"a": entry("f32")}, b"1234"),
    "negative": file_bytes({"a": entry(shape=(-1,))}, b"1234"),
    "float": file_bytes(b'{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}', b"1234"),
    "minus zero": file_bytes(b'{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}'),
    "exponent": file_bytes(b'{"a":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}}', b"1234"),
    "over u64": file_bytes(b'{"a":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4]}}', b"1234"),
    "one offset": file_bytes({"a": entry(offsets=(0,))}, b"1234"),
    "three offsets": file_bytes({"a": entry(offsets=(0, 4, 4))}, b"1234"),
    "backwards": file_bytes({"a": entry(offsets=(4, 0))}, b"1234"),
    "first not at 0": file_bytes({"a": entry(offsets=(4, 8))}, b"12345678"),
    "hole": file_bytes({"a": entry(), "b": entry(offsets=(8, 12))}, b"0" * 12),
    "overlap": file_bytes({"a": entry(), "b": entry(offsets=(2, 6))}, b"0" * 6),
    "bomb": file_bytes({f"t{i}": entry() for i in range(100)}, b"1234"),
    "wrong size": file_bytes({"a": entry(shape=(2,))}, b"1234"),
    "overflow": file_bytes({"a": entry(shape=(2**63, 4, 0), offsets=(0, 0))}),
    "overflow behind zero": file_bytes({"a": entry(shape=(0, 2**63, 4), offsets=(0, 0))}),
    "odd F4": file_bytes({"a": entry("F4", (3,), (0, 2))}, b"12"),
    "F4": file_bytes({"a": entry("F4", (4,), (0, 2))}, b"12"),
    "F6": file_bytes({"a": entry("F6_E2M3", (4,), (0, 3))}, b"123"),
    "rest": file_bytes({"a": entry()}, b"12345"),
    "cut data": file_bytes({"a": entry()}, b"123"),
    "empty": file_bytes(b"{}"),
    "scalar": file_bytes({"a": entry(shape=())}, b"1234"),
    "zero dimension": file_bytes({"a": entry(shape=(3, 0), offsets=(0, 0))}),
    "spaces": file_bytes(b" \n{}  \t"),
    "name with NUL": file_bytes({"a\0b": entry()}, b"1234"),
    "name as a path": file_bytes({"../../etc/passwd": entry()}, b"1234"),
    "unsorted": file_bytes({"b": entry("U8", (1,), (1, 2)), "a": entry("U8", (1,), (0, 1))}, b"12"),
    "empty metadata": file_bytes({"__metadata__": {}}),
}

ENTRY = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'

# The reference takes these, or takes them for something else; we refuse them under a rule of our own.
STRICTER = {
    "L1": file_bytes(b'{"a":' + ENTRY + b',"a":' + ENTRY + b"}", b"1234"),
    "L3": file_bytes({"a": entry(more=1)}, b"1234"),
    "L4": file_bytes(b'{"a":["F32",[1],[0,4]]}', b"1234"),
    "R8": file_bytes(b'{"__metadata__":null}'),
    "R10": file_bytes(b'{"a":{"dtype":{"F32":null},"shape":[1],"data_offsets":[0,4]}}', b"1234"),
}


def mutated_files(count):
    """Files of a few tensors with some bytes of the length, the header or the end changed."""
    chooser = random.Random(SEED)
    pieces = [b"{", b"}", b"[", b"]", b",", b":", b'"', b"0", b"-", b"9", b"null", b"\\u0000", b"F16", b" ", b"\xff"]
    for _ in range(count):
        header, end = {}, 0
        for i in range(chooser.randrange(1, 5)):
            shape = [chooser.randrange(4) for _ in range(chooser.randrange(3))]
            size = int(np.prod(shape, dtype=int)) * 2
            header[f"t{i}"] = entry("F16", shape, (end, end + size))
            end += size
        raw = bytearray(file_bytes(header, bytes(end)))
        kind = chooser.randrange(4)
        if kind == 0:
            del raw[chooser.randrange(len(raw)) :]
        elif kind == 1:
            raw += bytes(chooser.randrange(1, 9))
        else:
            text = bytearray(json.dumps(header).encode())
            for _ in range(chooser.randrange(1, 3)):
                at = chooser.randrange(len(text))
                text[at : at + chooser.randrange(2)] = chooser.choice(pieces)
            raw = bytearray(file_bytes(bytes(text), bytes(end)))
        yield bytes(raw)


def reference_accepts(path):
    try:
        with safe_open(path, framework="np") as file:
            file.keys()
    except safetensors.SafetensorError:
        return False
    except OSError:  # an empty file cannot be mapped
        return False
    return True


def our_verdict(path):
    done = call("import", "unused", path, "--dry-run", "--json", "--prefix", "p")
    told = json.loads(done.stdout)
    assert done.returncode == (8 if "error" in told else 0)
    return told.get("error")


@pytest.mark.parametrize("name", HAND_MADE)
def test_same_verdict_on_hand_made_files(tmp_path, name):
    path = tmp_path / "file.safetensors"
    path.write_bytes(HAND_MADE[name])
    error = our_verdict(path)
    assert (error is None) == reference_accepts(path), error


def test_same_verdict_on_mutated_files(tmp_path):
    path = tmp_path / "file.safetensors"
    accepted = refused = 0
    for number, raw in enumerate(mutated_files(160)):
        path.write_bytes(raw)
        error = our_verdict(path)
        if error is not None and error["rule"].startswith("L"):
            continue  # where we are stricter
        assert (error is None) == reference_accepts(path), (number, raw, error)
        accepted += error is None
        refused += error is not None
    assert refused > 80
    assert accepted > 0


@pytest.mark.parametrize("rule", STRICTER)
def test_stricter_than_the_reference(tmp_path, rule):
    path = tmp_path / "file.safetensors"
    path.write_bytes(STRICTER[rule])
    assert our_verdict(path)["rule"] == rule


ARRAYS = {
    "layer.0.weight": np.arange(300 * 700, dtype=np.float32).reshape(300, 700),
    "layer.0.bias": np.arange(701, dtype=np.float16),
    "bytes": np.arange(13, dtype=np.uint8),
    "flags": np.array([True, False, True]),
    "scalar": np.array(7, dtype=np.int64),
    "nothing": np.zeros((0, 5), dtype=np.float64),
    'odd "name"\n\\é': np.ones((2, 2), dtype=np.uint16),
}


@pytest.mark.parametrize("metadata", [None, {}, {"format": 'pt\x01\n"é'}])
def test_export_is_what_the_reference_writes(tmp_path, shelf, metadata):
    save_file(ARRAYS, tmp_path / "in.safetensors", metadata=metadata)
    answer("import", shelf, tmp_path / "in.safetensors", "--prefix", "m/")
    answer("export", shelf, "m/", tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == (tmp_path / "in.safetensors").read_bytes()


def test_shards_are_read_by_the_reference(tmp_path, shelf):
    save_file(ARRAYS, tmp_path / "in.safetensors")
    answer("import", shelf, tmp_path / "in.safetensors")
    answer("export", shelf, tmp_path / "out.safetensors", "--shard-size", "1kB")
    index = json.loads((tmp_path / "out.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(ARRAYS)
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in ARRAYS.values())
    for name, file in index["weight_map"].items():
        with safe_open(tmp_path / file, framework="np") as shard:
            np.testing.assert_array_equal(shard.get_tensor(name), ARRAYS[name])


@pytest.mark.parametrize("name", ["layer.0.weight", "scalar", "nothing", "flags"])
def test_npy_is_what_numpy_writes(tmp_path, shelf, name):
    np.save(tmp_path / "in.npy", ARRAYS[name])
    answer("import", shelf, tmp_path / "in.npy")
    answer("export", shelf, "in", tmp_path / "out.npy")
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "in.npy").read_bytes()


def test_object_arrays_are_not_unpickled(tmp_path, shelf):
    np.save(tmp_path / "in.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    done = call("import", shelf, tmp_path / "in.npy")
    assert done.returncode == 8
    assert "pickle" in done.stderr


def random_array(dtype):
    raw = np.random.default_rng(SEED).integers(0, 256, 700 * np.dtype(dtype).itemsize, dtype=np.uint8)
    return raw.view(dtype).reshape(7, 100)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8"])
def test_cat_shows_what_numpy_has(tmp_path, shelf, dtype):
    array = random_array(dtype)
    np.save(tmp_path / "a.npy", array)
    answer("import", shelf, tmp_path / "a.npy")
    told = answer("cat", shelf, "a", "--print", "--stats")
    numbers = [value for run in told["values"] for value in run["values"]]
    shown = np.array([complex(v) if dtype == "c8" else np.dtype(dtype).type(v) for v in numbers], dtype=dtype)
    np.testing.assert_array_equal(shown, array.reshape(-1))
    with np.errstate(invalid="ignore"):
        values = np.abs(array.astype(np.complex128)) if dtype == "c8" else array
    finite = values[np.isfinite(values)].astype(np.float64)
    stats = told["stats"]
    assert stats["count"] == array.size
    assert stats["nan"] == np.isnan(values).sum()
    assert sum(stats["histogram"]["counts"]) == finite.size
    assert (stats["min"], stats["max"]) == (finite.min(), finite.max())
    with np.errstate(over="ignore"):
        if np.isfinite(finite.std()):
            np.testing.assert_allclose([stats["mean"], stats["deviation"]], [finite.mean(), finite.std()], rtol=1e-6)


def test_diff_sees_one_changed_byte(tmp_path, shelf):
    changed = {**ARRAYS, "layer.0.weight": ARRAYS["layer.0.weight"].copy()}
    changed["layer.0.weight"][150, 350] += 1
    for prefix, arrays in (("a/", ARRAYS), ("b/", changed)):
        save_file(arrays, tmp_path / "in.safetensors")
        answer("import", shelf, tmp_path / "in.safetensors", "--prefix", prefix)
    told = answer("diff", shelf, "a/", "b/")
    assert [difference["name"] for difference in told["differences"]] == ["layer.0.weight"]
    assert told["same_count"] == len(ARRAYS) - 1
    assert call("diff", shelf, "a/", "b/", "--exit-code").returncode == 1
