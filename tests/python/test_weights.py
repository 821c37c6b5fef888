"""store.mapping, load_into and safetensors files: what comes out is what was put in, memory is read ahead within the
window, and everything that does not fit is an error that names the tensor.
"""

from __future__ import annotations

import itertools
import json

import pytest
import safetensors.torch
import tensorshelf as ts
import torch


class Tied(torch.nn.Module):
    def __init__(self, device=None) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(20, 8, device=device)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(8, 8, device=device) for _ in range(12))
        self.norm = torch.nn.BatchNorm1d(8, device=device)
        self.head = torch.nn.Linear(8, 20, bias=False, device=device)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        x = self.embedding(x)
        for layer in self.layers:
            x = layer(x).tanh()
        return self.head(self.norm(x))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Tied().eval()


def put(store, model, prefix="model/") -> None:
    ts.checkpoint.save(dict(model.state_dict()), store, prefix)


# Mapping


def test_mapping(store, model):
    store.put_many(model.state_dict(), prefix="m/")
    store.put("m/note", b"text")
    weights = store.mapping("m/")
    assert list(weights) == list(model.state_dict())  # in the order of the state dict, not of the alphabet
    assert len(weights) == len(model.state_dict())
    assert "layers.0.weight" in weights
    assert "layers.0.weight.SCB" not in weights
    assert "note" not in weights
    for name, tensor in model.state_dict().items():
        assert torch.equal(weights[name], tensor)
        assert weights[name].dtype == tensor.dtype
    with pytest.raises(KeyError, match="missing"):
        weights["missing"]
    assert weights.all_keys == list(weights)
    assert weights.state_dict == {}
    assert weights.save_folder is None
    assert weights.index["norm.num_batches_tracked"] == {"dtype": "int64", "shape": []}


def test_mapping_keeps_tied_weights_tied(store):
    store.put("m/a", torch.arange(4))
    store.clone("m/a", "m/b")
    weights = store.mapping("m/")
    first = weights["a"]
    assert weights["b"] is first
    del first
    assert weights["b"].tolist() == [0, 1, 2, 3]


def test_mapping_learns_the_order(store):
    names = [f"n{i}" for i in range(10)]
    store.put_many({name: torch.full((1024,), i) for i, name in enumerate(names)}, prefix="m/")
    weights = store.mapping("m/", window=2 * 8192)
    order = [names[i] for i in (3, 1, 4, 0, 9, 2, 6, 5, 8, 7)]
    for _ in range(2):
        for name in order:
            assert weights[name][0] == int(name[1:])
            assert len(weights._ahead) <= 2
    for here, following in itertools.pairwise(order):
        weights[here]
        # The thread that read a tensor may hold it a moment longer than its user; what is in memory is not read again.
        assert following in weights._ahead or weights._generation[following] in weights._in_use
    later = store.mapping("m/", window=0)
    assert later["n3"][0] == 3
    assert not later._ahead


# load_into


def test_load_into_in_place(store, model):
    put(store, model)
    target = Tied().eval()
    pointers = [parameter.data_ptr() for parameter in target.parameters()]
    assert "model/head.weight" not in store  # it is the embedding, stored once
    assert ts.load_into(target, store, "model/") == ([], [])
    assert [parameter.data_ptr() for parameter in target.parameters()] == pointers
    for name, tensor in model.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor)
    double = Tied().double()
    ts.load_into(double, store, "model/")
    assert torch.equal(double.layers[3].weight, model.layers[3].weight.double())


@pytest.mark.parametrize("tied_in_store", [False, True])
def test_load_into_meta_module(store, model, tied_in_store):
    put(store, model, "m/") if tied_in_store else store.put_many(model.state_dict(), prefix="m/")
    target = Tied(device="meta").eval()
    ts.load_into(target, store, "m/", assign=True)
    assert target.head.weight is target.embedding.weight
    x = torch.arange(20)
    assert torch.equal(target(x), model(x))
    assert target.layers[0].weight.requires_grad


@pytest.mark.parametrize("assign", [False, True])
def test_load_into_what_does_not_fit(store, assign):
    store.put_many({"weight": torch.ones(3, 2), "bias": torch.ones(3)}, prefix="m/")
    for module, error, tensor in (
        (torch.nn.Linear(3, 2), r"\[3, 2\].*\[2, 3\]", "weight"),
        (torch.nn.Linear(2, 3, bias=False), "'bias'", "bias"),
        (torch.nn.BatchNorm1d(3), "running_mean", "running_mean"),
    ):
        before = {name: value.clone() for name, value in module.state_dict().items()}
        with pytest.raises(ts.checkpoint.CheckpointMismatchError, match=error) as caught:
            ts.load_into(module, store, "m/", assign=assign)
        assert caught.value.tensor == tensor
        assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    found = ts.load_into(torch.nn.Linear(2, 3, bias=False), store, "m/", strict=False, assign=assign)
    assert found.unexpected_keys == ["bias"]


# safetensors


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    found = {
        name: torch.randint(0, 2, (3, 5)).to(getattr(torch, name))
        for name in ts.safetensors_files._NAMES
        if name != "float8_e8m0fnu"
    }
    return found | {"empty": torch.empty(0, 2), "scalar": torch.tensor(2.5), "odd": torch.arange(7, dtype=torch.int8)}


def test_import_and_export(store, tmp_path):
    values = tensors()
    safetensors.torch.save_file(values, tmp_path / "a.safetensors", metadata={"format": "pt"})
    commit = ts.import_safetensors(store, tmp_path / "a.safetensors", "in/")
    assert len(commit.generations) == len(values)
    assert store.stat("in/odd").metadata == {"format": "pt"}
    store.put("in/note", b"left out")
    assert ts.export_safetensors(store, tmp_path / "b.safetensors", "in/", metadata={"x": "y"}) == len(values)
    found = safetensors.torch.load_file(tmp_path / "b.safetensors")
    assert found.keys() == values.keys()
    for name, value in values.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert torch.equal(found[name].view(-1).view(torch.uint8), value.view(-1).view(torch.uint8)), name
    with safetensors.safe_open(tmp_path / "b.safetensors", "pt") as file:
        assert file.metadata() == {"x": "y"}
    again = ts.import_safetensors(store, tmp_path / "a.safetensors", "in/", skip_unchanged=True)
    assert again.unchanged == len(values)


def test_shards(store, tmp_path):
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "1.safetensors")
    safetensors.torch.save_file({"b": torch.zeros(3)}, tmp_path / "2.safetensors")
    index = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    ts.import_safetensors(store, tmp_path / "model.safetensors.index.json", "m/")
    assert list(store) == ["m/a", "m/b"]
    files = [tmp_path / "1.safetensors", tmp_path / "1.safetensors"]
    with pytest.raises(ValueError, match=r"'a'.*more than one"):
        ts.import_safetensors(store, files, "x/")
    (tmp_path / "3.safetensors").write_bytes(b"nonsense, not a file of tensors")
    with pytest.raises(safetensors.SafetensorError):
        ts.import_safetensors(store, [tmp_path / "1.safetensors", tmp_path / "3.safetensors"], "x/")
    assert list(store) == ["m/a", "m/b"]


def test_export_that_fails_leaves_no_file(store, tmp_path):
    store.put_many({"ok": torch.ones(3), "odd": torch.ones(3, dtype=torch.complex128)}, prefix="m/")
    with pytest.raises(ts.UnsupportedTensorError, match=r"odd.*complex128"):
        ts.export_safetensors(store, tmp_path / "x.safetensors", "m/")
    with pytest.raises(FileNotFoundError):
        ts.export_safetensors(store, tmp_path / "no" / "x.safetensors", "m/ok")
    assert list(tmp_path.iterdir()) == []
