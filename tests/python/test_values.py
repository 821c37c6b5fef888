"""Every value that can be stored comes back bit for bit, and every other is refused by the name of its property.
Each case is a put and a get through the public API, compared as raw bytes.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorshelf as ts
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

DTYPES = [
    "uint8 int8 int16 int32 int64 float16 float32 float64 complex32 complex64 complex128 bool bfloat16",
    "bits1x8 bits2x4 bits4x2 bits8 bits16 float8_e5m2 float8_e4m3fn float8_e5m2fnuz float8_e4m3fnuz",
    "uint16 uint32 uint64 float8_e8m0fnu float4_e2m1fn_x2",
]
DTYPES = [getattr(torch, name) for name in " ".join(DTYPES).split() if hasattr(torch, name)]
SHAPES = [(), (0,), (1,), (3, 0, 2), (7,), (5, 3), (2, 3, 4, 5), (1000, 333)]


def random_tensor(dtype: torch.dtype, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    high = 2 if dtype == torch.bool else 256
    data = torch.randint(0, high, (count,), dtype=torch.uint8, generator=generator)
    return data.view(dtype).reshape(shape) if shape or count else data.view(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_shape(store, raw, dtype):
    tensors = {f"{shape}": random_tensor(dtype, shape) for shape in SHAPES}
    store.put_many(tensors)
    for name, tensor in tensors.items():
        got = store.get(name)
        assert (got.dtype, got.shape) == (tensor.dtype, tensor.shape)
        assert raw(got) == raw(tensor)
        assert store.get(name, as_bytes=True) == raw(tensor)
        info = store.stat(name)
        assert (info.dtype, info.torch_dtype) == (str(dtype).removeprefix("torch."), dtype)
        assert (info.shape, info.nbytes) == (tuple(tensor.shape), tensor.nbytes)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strided_values_and_targets_of_every_dtype(store, raw, dtype):
    base = random_tensor(dtype, (6, 10, 4))
    strided = base.transpose(0, 2)[1:3]
    store.put("strided", strided)
    expected = bytes(_packed(strided))
    got = store.get("strided")
    assert got.is_contiguous()
    assert raw(got) == expected
    target = random_tensor(dtype, (10, 2, 6), seed=1).transpose(0, 1)
    assert store.get("strided", out=target) is target
    assert bytes(_packed(target)) == expected


def _packed(tensor: torch.Tensor) -> np.ndarray:
    """Bytes of a strided tensor in C order, with NumPy alone."""
    itemsize = tensor.dtype.itemsize
    storage = np.frombuffer(bytes(tensor.untyped_storage()), dtype=np.dtype((np.void, itemsize)))
    strides = [stride * itemsize for stride in tensor.stride()]
    view = np.lib.stride_tricks.as_strided(storage[tensor.storage_offset() :], tuple(tensor.shape), strides)
    return np.frombuffer(view.tobytes(), dtype=np.uint8)


def test_large_tensor_and_recycled_result(store, raw):
    tensor = random_tensor(torch.float32, (3, 1 << 20))
    store.put("large", tensor)
    first = store.get("large")
    address = first.data_ptr()
    assert address % 4096 == 0
    assert raw(first) == raw(tensor)
    del first
    again = store.get("large")
    assert again.data_ptr() == address
    assert store.stats()["pool"]["recycled_count"] >= 1


def test_result_outlives_store(shelf, raw):
    tensors = {"small": random_tensor(torch.int16, (9,)), "large": random_tensor(torch.int16, (1 << 20,))}
    with ts.open(shelf) as store:
        store.put_many(tensors)
        got = store.get_many()
    del store
    assert {name: raw(value) for name, value in got.items()} == {name: raw(value) for name, value in tensors.items()}


def test_views_conj_neg_and_parameters(store):
    base = torch.arange(12).reshape(3, 4) * (1 + 2j)
    cases = {
        "view": base[1],
        "conj": base.conj(),
        "conj_strided": base.T.conj(),
        "neg": base.conj().imag,
        "expanded": torch.arange(3).reshape(3, 1).expand(3, 4),
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "copy_on_write": torch._lazy_clone(torch.arange(5)),
        "zero_tensor": torch._efficientzerotensor((2, 3)),
    }
    store.put_many(cases)
    for name, value in cases.items():
        got = store.get(name)
        assert torch.equal(got, value.detach().clone()), name
        assert got.is_contiguous()
        assert not got.requires_grad
        assert not got.is_conj()
        assert not got.is_neg()
    assert store.stat("view").nbytes == 32  # not the storage of the base


def test_copy_on_write_target_leaves_its_twin_alone(store):
    store.put("t", torch.full((4,), 7.0))
    original = torch.zeros(4)
    twin = torch._lazy_clone(original)
    store.get("t", out=twin)
    assert torch.equal(twin, torch.full((4,), 7.0))
    assert torch.equal(original, torch.zeros(4))


def test_conj_target(store):
    value = torch.tensor([1 + 2j, 3 - 4j])
    store.put("c", value)
    base = torch.zeros(2, dtype=torch.complex64)
    store.get("c", out=base.conj())
    assert torch.equal(base, value.conj().resolve_conj())


def test_autograd_sees_that_out_changed(store):
    store.put("w", torch.ones(3))
    weight = torch.zeros(3)
    x = torch.ones(3, requires_grad=True)
    y = (x * weight).sum()
    store.get("w", out=weight)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_out_into_parameter_and_inference_tensor(store):
    store.put("w", torch.ones(3))
    parameter = torch.nn.Parameter(torch.zeros(3))
    store.get("w", out=parameter)
    assert torch.equal(parameter.detach(), torch.ones(3))
    with torch.inference_mode():
        inference = torch.zeros(3)
    store.get("w", out=inference)
    assert inference.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "out",
    [torch.zeros(4), torch.zeros(2, 2, dtype=torch.float64), torch.zeros(0)],
    ids=["shape", "dtype", "empty"],
)
def test_out_that_does_not_fit(store, out):
    store.put("t", torch.ones(2, 2))
    before = out.clone()
    with pytest.raises(ValueError, match="float32\\(2, 2\\)"):
        store.get("t", out=out)
    assert torch.equal(out, before)


def test_out_excludes_device_and_as_bytes(store):
    store.put("t", torch.ones(2))
    with pytest.raises(ValueError, match="excludes"):
        store.get("t", out=torch.zeros(2), device="cpu")
    with pytest.raises(TypeError, match=r"torch\.Tensor, not ndarray"):
        store.get("t", out=np.zeros(2, dtype=np.float32))


def test_device_keyword(store):
    store.put("t", torch.ones(2))
    assert store.get("t", device="meta").is_meta
    assert store.get_many(["t"], device=torch.device("meta"))["t"].is_meta


def test_empty_is_aligned_and_recycled(store):
    tensor = ts.empty((1024, 1024), torch.float32)
    assert tensor.data_ptr() % 4096 == 0
    tensor.fill_(3)
    staged = store.stats()["io"]["staged_bytes"]
    store.put("t", tensor)
    store.get("t", out=tensor)
    assert store.stats()["io"]["staged_bytes"] - staged < 65536
    assert tensor[0, 0] == 3
    assert ts.empty(3).dtype == torch.get_default_dtype()
    assert ts.empty((), torch.int8).shape == ()
    assert ts.empty((2, 0), torch.int8).numel() == 0
    with pytest.raises(TypeError, match="quint8"):
        ts.empty(3, torch.quint8)
    with pytest.raises(ValueError, match="negative"):
        ts.empty((2, -1))


# Bytes, NumPy, DLPack


def test_bytes(store):
    values = {
        "b": b"hello\0",
        "none": b"",
        "array": bytearray(b"abc"),
        "view": memoryview(b"xyz")[1:],
        "big": b"ab" * 10**6,
    }
    store.put_many(values)
    assert store.get_many() == {name: bytes(value) for name, value in sorted(values.items())}
    info = store.stat("b")
    assert (info.kind, info.dtype, info.torch_dtype, info.shape, info.nbytes) == ("bytes", None, None, None, 6)
    with pytest.raises(ts.UnsupportedTensorError, match="bytes, not a tensor"):
        store.slice("b")[0:1]
    with pytest.raises(ts.UnsupportedTensorError, match="bytes, not a tensor"):
        store.get("b", out=torch.zeros(6, dtype=torch.uint8))


@pytest.mark.parametrize(
    "name",
    [
        "bool",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "uint32",
        "int32",
        "uint64",
        "int64",
        "float16",
        "float32",
        "float64",
        "complex64",
        "complex128",
    ],
)
def test_numpy(store, name):
    array = np.arange(24).reshape(2, 3, 4).astype(name)
    readonly = array.copy()
    readonly.flags.writeable = False
    store.put_many({"plain": array, "fortran": np.asfortranarray(array), "reversed": array[::-1], "readonly": readonly})
    store.put("scalar", array[1, 2, 3])
    assert np.array_equal(store["plain"].numpy(), array)
    assert np.array_equal(store["fortran"].numpy(), array)
    assert np.array_equal(store["reversed"].numpy(), array[::-1])
    assert np.array_equal(store["readonly"].numpy(), array)
    assert store["scalar"].shape == ()
    assert store["scalar"].item() == array[1, 2, 3]


def test_numpy_that_cannot_be_kept(store):
    for array, words in [
        (np.arange(3, dtype=">i4"), "byte order"),
        (np.array(["a"]), "dtype <U1"),
        (np.array([object()]), "dtype object"),
        (np.zeros(2, dtype=[("x", "f4")]), "dtype"),
        (np.zeros(2, dtype="datetime64[s]"), "datetime64"),
    ]:
        with pytest.raises(ts.UnsupportedTensorError, match=words):
            store.put("a", array)
    assert len(store) == 0


def test_dlpack(store):
    class Exporter:
        def __init__(self, tensor):
            self.tensor = tensor

        def __dlpack__(self, **keywords):
            return self.tensor.__dlpack__(**keywords)

        def __dlpack_device__(self):
            return self.tensor.__dlpack_device__()

    tensor = torch.arange(6).reshape(2, 3)
    store.put("d", Exporter(tensor))
    assert torch.equal(store["d"], tensor)


# What cannot be kept


class Wrapper(torch.Tensor):
    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise NotImplementedError


def fake_tensor():
    with FakeTensorMode():
        return torch.zeros(3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.zeros(3, 3).to_sparse(), "sparse"),
        (lambda: torch.zeros(3, 3).to_sparse_csr(), "sparse"),
        (lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.quint8), "quantized"),
        (lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), "nested"),
        (lambda: torch.empty(3, device="meta"), "meta"),
        (fake_tensor, "FakeTensor"),
        (lambda: Wrapper(torch.zeros(3)), "Wrapper"),
        (lambda: "text", "str"),
        (lambda: 3.5, "float"),
        (lambda: [1, 2], "list"),
        (lambda: None, "NoneType"),
    ],
    ids=["coo", "csr", "quantized", "nested", "meta", "fake", "wrapper", "str", "float", "list", "none"],
)
def test_values_that_cannot_be_kept(store, make, words):
    with pytest.raises(ts.UnsupportedTensorError, match=words) as caught:
        store.put_many({"good": torch.ones(2), "bad": make()})
    assert "bad" in str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert "good" not in store


def test_mkldnn(store):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no mkldnn")
    with pytest.raises(ts.UnsupportedTensorError, match="mkldnn"):
        store.put("m", torch.zeros(3, 3).to_mkldnn())


def test_functorch(store):
    def put(x):
        store.put("x", x)
        return x

    with pytest.raises(ts.UnsupportedTensorError, match="functorch"):
        torch.func.vmap(put)(torch.zeros(2, 3))


def test_dtensor(store):
    tensor_module = pytest.importorskip("torch.distributed.tensor")
    if not torch.distributed.is_available():
        pytest.skip("this torch has no distributed")
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        with pytest.raises(ts.UnsupportedTensorError, match="DTensor"):
            store.put("d", tensor_module.distribute_tensor(torch.ones(4), mesh))
    finally:
        torch.distributed.destroy_process_group()


def test_plain_subclass_is_kept(store):
    class Named(torch.Tensor):
        pass

    store.put("n", torch.ones(3).as_subclass(Named))
    assert type(store["n"]) is torch.Tensor
