"""Weights from a store: as a mapping that reads ahead, into a module, from and to safetensors files."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

import torch

from ._reading import Reader
from ._values import parse_size
from .errors import NameNotFoundError, StoreError
from .store import Store


class StoredWeights(Mapping):
    """The tensors under a prefix, read when they are asked for. Made by ``Store.mapping``.

    What accelerate's ``attach_align_device_hook`` and ``OffloadedWeightsLoader`` users expect of a ``weights_map``:
    names without the prefix, one ``map[name]`` for each tensor and forward. While one is used, the next ones are read,
    up to ``window`` bytes: first in the order in which they were put (that of the state dict), later in the order in
    which they were used before. Nothing else is kept. Two names of one object give one tensor as long as it is in
    use, so tied weights stay tied.

    Thread-safe. Shows the names that were there when it was made, each with its newest value.
    """

    def __init__(self, store: Store, prefix: str, window: int | str) -> None:
        self._store = store
        self._prefix = prefix
        self._window = parse_size(window, "window")
        infos = [store.stat(name) for name in store.keys(prefix)]
        infos.sort(key=lambda info: info.generation)
        self._generation = {info.name[len(prefix) :]: info.generation for info in infos if info.kind == "tensor"}
        self._nbytes = {info.name[len(prefix) :]: info.nbytes for info in infos}
        names = list(self._generation)
        self._next = dict(itertools.pairwise(names))
        self._lock = threading.Lock()
        self._ahead: dict[str, Future] = {}
        self._in_use: weakref.WeakValueDictionary[int, torch.Tensor] = weakref.WeakValueDictionary()
        self._last: str | None = None
        # Other libraries look at these attributes of accelerate's own loader.
        self.index = {
            info.name[len(prefix) :]: {"dtype": info.dtype, "shape": list(info.shape or ())}
            for info in infos
            if info.kind == "tensor"
        }
        self.all_keys = names
        self.state_dict: dict[str, torch.Tensor] = {}
        self.save_folder = None

    def __getitem__(self, name: str) -> torch.Tensor:
        generation = self._generation.get(name)
        if generation is None:
            raise NameNotFoundError(f"there is no tensor {name!r} under {self._prefix!r}")
        with self._lock:
            self._learn(name)
            found = self._in_use.get(generation)
            reading = self._ahead.pop(name, None)
        if found is None:
            found = self._store.get(self._prefix + name) if reading is None else reading.result()
            with self._lock:
                found = self._in_use.setdefault(generation, found)
        with self._lock:
            self._read_ahead(name)
        return found

    def _learn(self, name: str) -> None:
        if self._last is not None:
            self._next[self._last] = name
        self._last = name

    def _read_ahead(self, name: str) -> None:
        """Starts reading what follows, within the window. What was read ahead and does not follow was a wrong guess,
        and its memory goes.
        """
        room = self._window
        expected: set[str] = set()
        following = self._next.get(name)
        while following is not None and following != name and following not in expected:
            room -= self._nbytes[following]
            if room < 0:
                break
            expected.add(following)
            if following not in self._ahead and self._in_use.get(self._generation[following]) is None:
                self._ahead[following] = self._store.get_async(self._prefix + following)
            following = self._next.get(following)
        for other in [other for other in self._ahead if other not in expected]:
            self._ahead.pop(other).cancel()

    def __iter__(self) -> Iterator[str]:
        return iter(self._generation)

    def __len__(self) -> int:
        return len(self._generation)

    def __contains__(self, name: object) -> bool:
        return name in self._generation

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{len(self)} weights under {self._prefix!r} of {self._store!r}>"


class Incompatible(NamedTuple):
    """What ``load_into`` could not match."""

    #: names in the module that the store lacks
    missing_keys: list[str]
    #: names under the prefix that the module lacks
    unexpected_keys: list[str]


def load_into(
    module: torch.nn.Module, store: Reader, prefix: str = "", *, assign: bool = False, strict: bool = True
) -> Incompatible:
    """Reads a state dict under a prefix into a module, each tensor straight to where it belongs: no second copy of the
    weights is ever in memory.

    assign  True: the module's parameters and buffers are replaced by what is stored, with its dtypes, on the CPU: for
            modules on the meta device
    strict  True: names that only one side has are an error, else they are returned

    Raises CheckpointMismatchError, naming the tensor, before anything is changed; then the errors of ``get_many``.
    """
    from .checkpoint.codec import SKELETON
    from .checkpoint.errors import CheckpointMismatchError, about

    own = module.state_dict(keep_vars=True)
    own = {name: value for name, value in own.items() if isinstance(value, torch.Tensor)}
    stored = {name[len(prefix) :] for name in store.keys(prefix)} - {SKELETON}
    there = {id(value) for name, value in own.items() if name in stored}  # tied tensors need one of their names
    missing = [name for name, value in own.items() if id(value) not in there]
    unexpected = sorted(stored - own.keys())
    if strict and (missing or unexpected):
        raise CheckpointMismatchError(
            f"the store has no {missing or 'tensor too few'}, and has {unexpected or 'none'} too many",
            checkpoint=prefix,
            tensor=(missing or unexpected)[0],
        )
    names = [name for name in own if name in stored]
    infos = {name: store.stat(prefix + name) for name in names}
    for name in names:
        if infos[name].shape != tuple(own[name].shape):
            raise CheckpointMismatchError(
                f"{infos[name].dtype}{list(infos[name].shape or ())} is stored, to be loaded into a tensor of shape "
                f"{list(own[name].shape)}",
                checkpoint=prefix,
                tensor=name,
            )
    try:
        if assign:
            _assign(module, own, store.get_many(names, prefix=prefix))
        else:
            _fill({name: own[name].detach() for name in names}, infos, store, prefix)
    except StoreError as error:
        raise about(error, checkpoint=prefix) from error
    return Incompatible(missing, unexpected)


def _fill(targets: dict[str, torch.Tensor], infos: dict[str, Any], store: Reader, prefix: str) -> None:
    same = {name: target for name, target in targets.items() if infos[name].torch_dtype == target.dtype}
    store.get_many(out=same, prefix=prefix)
    for name, target in targets.items():
        if name not in same:
            target.copy_(store.get(prefix + name))


def _assign(module: torch.nn.Module, own: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
    made: dict[int, torch.Tensor] = {}  # by the old tensor: tied parameters stay tied
    for name, value in values.items():
        old = own[name]
        is_parameter = isinstance(old, torch.nn.Parameter)
        made[id(old)] = torch.nn.Parameter(value, requires_grad=old.requires_grad) if is_parameter else value
    for name, old in own.items():
        if id(old) in made:
            owner, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(owner), attribute, made[id(old)])
