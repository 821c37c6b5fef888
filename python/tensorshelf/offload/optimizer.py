"""``OffloadedOptimizer``: any element-wise optimizer, with its states on the shelf."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from .. import checkpoint
from .._values import parse_size
from ..errors import StoreError
from ..store import Store, empty

#: under the prefix: what is not a large tensor
_REST = "rest/"


class _Bucket:
    """Parameters whose states are read, used and written together."""

    def __init__(self) -> None:
        self.parameters: list[torch.Tensor] = []
        self.state_bytes = 0


class OffloadedOptimizer(torch.optim.Optimizer):
    """Trains with optimizer states that lie on the shelf::

        optimizer = OffloadedOptimizer(model.parameters(), torch.optim.AdamW, store=store, prefix="opt/", lr=1e-4)

    params, kw       as for ``optimizer_class``, any optimizer that treats each parameter by itself (AdamW, SGD,
                     Adafactor; not LBFGS)
    store, prefix    where the states lie: a tensor "opt/12/exp_avg" for parameter 12. What lies there is replaced
    window_bytes     memory for states: a third is read ahead, a third is in use, a third is being written
    min_bytes        smaller tensors of a state stay in memory
    write_policy     "async": ``step`` returns while the last states are being written; "sync": all are durable then

    It is an Optimizer: schedulers, GradScaler, closures, ``param_groups``, ``zero_grad`` and ``state_dict`` are as
    ever; ``state_dict()`` brings everything to memory, ``iter_state()`` one parameter's state at a time. Bit-equal to
    the optimizer it runs. ``snapshot(prefix)`` keeps the states of this moment under another prefix, without reading or
    writing them; ``restore(prefix)`` goes back.

    When a step fails half-way, states and parameters are of two different steps: go back to a snapshot. A failed write
    surfaces in that step or at the next call. Used by one thread at a time.
    """

    def __init__(
        self,
        params: Any,
        optimizer_class: type[torch.optim.Optimizer],
        *,
        store: Store,
        prefix: str,
        window_bytes: int | str = "256MiB",
        min_bytes: int | str = "1MiB",
        write_policy: str = "async",
        **kw: Any,
    ) -> None:
        if write_policy not in ("async", "sync"):
            raise ValueError(f"write_policy must be 'async' or 'sync', not {write_policy!r}")
        self._inner = optimizer_class(params, **kw)
        self._store = store
        self._prefix = prefix
        self._window = parse_size(window_bytes, "window_bytes")
        self._min_bytes = parse_size(min_bytes, "min_bytes")
        self._write_policy = write_policy
        self._stored: dict[torch.Tensor, dict[str, tuple[torch.Size, torch.dtype]]] = {}  # what is on the shelf
        self._index: dict[torch.Tensor, int] = {}
        self._per_parameter_bytes = 0.0  # bytes of state for a byte of parameter, once known
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="tensorshelf-optimizer-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="tensorshelf-optimizer-write")
        self._writing: list[Future] = []
        self._last_write: dict[torch.Tensor, Future] = {}
        super().__init__(self._inner.param_groups, self._inner.defaults)
        self._number_parameters()
        store._before_close.append(weakref.WeakMethod(self.close))
        if store.keys(prefix):
            self._forget_stored()

    def __repr__(self) -> str:
        return f"Offloaded {self._inner!r}"

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("an OffloadedOptimizer cannot be pickled; save its state_dict(), or snapshot() it")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the inner optimizer, bucket after bucket, with reads ahead and writes behind."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._raise_failed_writes()
        buckets = list(self._buckets())
        ahead: Future | None = None
        for number, bucket in enumerate(buckets):
            states = self._read(bucket) if ahead is None else ahead.result()
            ahead = None
            if number + 1 < len(buckets):
                self._wait_for_writes(1)  # two buckets in memory, and one being written
                ahead = self._reader.submit(self._read, buckets[number + 1])
            self._step_bucket(bucket, states)
            self._write(bucket, states)
        if self._write_policy == "sync":
            self.flush()
        return loss

    def flush(self) -> None:
        """Waits until all states are durable. Raises what went wrong with a write."""
        self._wait_for_writes(0)

    def close(self) -> None:
        """Waits for writes. Twice is fine; the states stay on the shelf."""
        self._reader.shutdown(wait=True)
        self._writer.shutdown(wait=True)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        if self._index:  # not while the base class is being set up
            self._inner.param_groups = self.param_groups
            self._number_parameters()

    # Buckets

    def _number_parameters(self) -> None:
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        self._index = {parameter: index for index, parameter in enumerate(parameters)}

    def _buckets(self) -> Iterator[_Bucket]:
        """Parameters with a gradient, in order, with up to a third of the window of states, or one parameter."""
        bucket = _Bucket()
        for parameter in self._index:
            if parameter.grad is None:
                continue
            size = self._state_bytes(parameter)
            if bucket.parameters and bucket.state_bytes + size > self._window // 3:
                yield bucket
                bucket = _Bucket()
            bucket.parameters.append(parameter)
            bucket.state_bytes += size
        if bucket.parameters:
            yield bucket

    def _state_bytes(self, parameter: torch.Tensor) -> int:
        stored = self._stored.get(parameter)
        if stored is not None:
            return sum(shape.numel() * dtype.itemsize for shape, dtype in stored.values())
        return int(parameter.nbytes * (self._per_parameter_bytes or 2))

    def _name(self, parameter: torch.Tensor, key: str) -> str:
        return f"{self._prefix}{self._index[parameter]}/{key}"

    def _read(self, bucket: _Bucket) -> dict[torch.Tensor, dict[str, torch.Tensor]]:
        """The stored tensors of a bucket's states, in staging memory, once they are written."""
        for parameter in bucket.parameters:
            if parameter in self._last_write:
                self._last_write[parameter].result()
        states: dict[torch.Tensor, dict[str, torch.Tensor]] = {}
        out: dict[str, torch.Tensor] = {}
        for parameter in bucket.parameters:
            stored = self._stored.get(parameter, {})
            states[parameter] = {key: empty(list(shape), dtype) for key, (shape, dtype) in stored.items()}
            out.update((self._name(parameter, key), buffer) for key, buffer in states[parameter].items())
        if out:
            self._store.get_many(out=out)
        return states

    def _step_bucket(self, bucket: _Bucket, states: dict[torch.Tensor, dict[str, torch.Tensor]]) -> None:
        """Runs the inner optimizer on the bucket alone, its states bound to the staging memory."""
        members = set(bucket.parameters)
        inner = self._inner
        inner.state.clear()
        for parameter in bucket.parameters:
            state = dict(self.state.get(parameter, {}))
            state.update((key, tensor.to(parameter.device)) for key, tensor in states[parameter].items())
            if state:
                inner.state[parameter] = state
        groups = self.param_groups
        inner.param_groups = [{**group, "params": [p for p in group["params"] if p in members]} for group in groups]
        try:
            inner.step()
            for group, used in zip(groups, inner.param_groups, strict=True):
                group.update((key, value) for key, value in used.items() if key != "params")
            for parameter in bucket.parameters:
                self._sort(parameter, inner.state.get(parameter, {}), states[parameter])
        finally:
            inner.state.clear()
            inner.param_groups = groups

    def _sort(self, parameter: torch.Tensor, state: dict[str, Any], buffers: dict[str, torch.Tensor]) -> None:
        """Large tensors of a new state to `buffers`, for the shelf; the rest to ``self.state``."""
        large = {k: v for k, v in state.items() if isinstance(v, torch.Tensor) and v.nbytes >= self._min_bytes}
        self.state[parameter] = {key: value for key, value in state.items() if key not in large}
        for key in [key for key in buffers if key not in large]:
            del buffers[key]
        for key, value in large.items():
            if key not in buffers:
                buffers[key] = value.detach()
            elif buffers[key].data_ptr() != value.data_ptr():
                buffers[key].copy_(value)
        self._stored[parameter] = {key: (value.shape, value.dtype) for key, value in buffers.items()}
        if parameter.nbytes:
            self._per_parameter_bytes = sum(value.nbytes for value in buffers.values()) / parameter.nbytes

    def _write(self, bucket: _Bucket, states: dict[torch.Tensor, dict[str, torch.Tensor]]) -> None:
        values = {self._name(p, key): tensor for p in bucket.parameters for key, tensor in states[p].items()}
        states.clear()
        if values:
            writing = self._writer.submit(self._put, values)
            self._writing.append(writing)
            self._last_write.update((parameter, writing) for parameter in bucket.parameters)

    def _put(self, values: dict[str, torch.Tensor]) -> None:
        self._store.put_many(values)
        values.clear()

    def _wait_for_writes(self, count_max: int) -> None:
        while len(self._writing) > count_max:
            self._writing.pop(0).result()
        if not self._writing:
            self._last_write.clear()

    def _raise_failed_writes(self) -> None:
        for writing in [writing for writing in self._writing if writing.done()]:
            self._writing.remove(writing)
            writing.result()

    # States

    def _forget_stored(self) -> None:
        self._stored.clear()
        self._store.delete_prefix(self._prefix)

    def iter_state(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(index of the parameter, its state) as in ``state_dict()["state"]``, one at a time in memory."""
        self.flush()
        for parameter, index in self._index.items():
            state = dict(self.state.get(parameter, {}))
            for key in self._stored.get(parameter, {}):
                state[key] = self._store.get(self._name(parameter, key)).to(parameter.device)
            if state:
                yield index, state

    @torch._disable_dynamo
    def state_dict(self) -> dict[str, Any]:
        """As of the inner optimizer, all of it in memory."""
        state = dict(self.iter_state())
        groups = [{**group, "params": [self._index[p] for p in group["params"]]} for group in self.param_groups]
        return {"state": state, "param_groups": groups}

    @torch._disable_dynamo
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes a state dict of this or of the inner class; tensors that are read lazily are read one parameter at a
        time. Raises ValueError where the groups do not fit; then nothing is changed.
        """
        groups = state_dict["param_groups"]
        sizes = [len(group["params"]) for group in groups]
        if sizes != [len(group["params"]) for group in self.param_groups]:
            raise ValueError(
                f"the state dict has groups of {sizes} parameters, this optimizer has groups of "
                f"{[len(group['params']) for group in self.param_groups]}"
            )
        self.flush()
        self._forget_stored()
        self.state.clear()
        for group, loaded in zip(self.param_groups, groups, strict=True):
            group.update((key, value) for key, value in loaded.items() if key != "params")
        parameters = dict(zip((i for group in groups for i in group["params"]), self._index, strict=True))
        for index, state in state_dict["state"].items():
            parameter = parameters[index]
            values = {key: self._cast(parameter, key, value) for key, value in state.items()}
            buffers: dict[str, torch.Tensor] = {}
            self._sort(parameter, values, buffers)
            if buffers:
                self._store.put_many({self._name(parameter, key): buffer for key, buffer in buffers.items()})

    @staticmethod
    def _cast(parameter: torch.Tensor, key: str, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if isinstance(value, checkpoint.LazyTensor):
            value = value.materialize()
        if key == "step" or not parameter.is_floating_point():
            return value.detach().clone()
        return value.detach().to(dtype=parameter.dtype, device=parameter.device, copy=True)

    def snapshot(self, prefix: str) -> None:
        """Keeps all states and options of this moment under another prefix, in one commit, without moving bytes.

        A snapshot that is there is replaced. ``checkpoint.load(store, prefix + "rest/")`` has what is no large tensor.
        """
        if prefix.startswith(self._prefix) or self._prefix.startswith(prefix):
            raise ValueError(f"a snapshot under {prefix!r} would mix with the states under {self._prefix!r}")
        self.flush()
        rest = {
            "small": {index: self.state[p] for p, index in self._index.items() if p in self.state},
            "stored": {index: list(self._stored.get(p, ())) for p, index in self._index.items()},
            "param_groups": [{k: v for k, v in group.items() if k != "params"} for group in self.param_groups],
            "sizes": [len(group["params"]) for group in self.param_groups],
        }
        taken = checkpoint.codec.dump(rest, prefix + _REST)
        with self._store.transaction() as tx:
            tx.delete_prefix(prefix)
            tx.clone_prefix(self._prefix, prefix, replace=True)
            tx.put_many(taken.records, prefix=prefix + _REST)
            tx.put(prefix + _REST + checkpoint.codec.SKELETON, taken.skeleton)

    def restore(self, prefix: str) -> None:
        """Goes back to a snapshot, without moving bytes. Raises CheckpointNotFoundError, and ValueError if it is of
        other parameters.
        """
        rest = checkpoint.load(self._store, prefix + _REST)
        if rest["sizes"] != [len(group["params"]) for group in self.param_groups]:
            raise ValueError(f"the snapshot has groups of {rest['sizes']} parameters; this optimizer has others")
        with contextlib.suppress(StoreError):  # a failed write is what one goes back for
            self.flush()
        self._writing.clear()
        self._last_write.clear()
        parameters = list(self._index)
        with self._store.transaction() as tx:
            tx.delete_prefix(self._prefix)
            for index, keys in rest["stored"].items():
                for key in keys:
                    tx.clone(f"{prefix}{index}/{key}", f"{self._prefix}{index}/{key}", replace=True)
        for group, options in zip(self.param_groups, rest["param_groups"], strict=True):
            group.update(options)
        self.state.clear()
        self.state.update((parameters[index], state) for index, state in rest["small"].items())
        self._stored = {parameters[index]: self._shapes(index, keys) for index, keys in rest["stored"].items() if keys}

    def _shapes(self, index: int, keys: Iterable[str]) -> dict[str, Any]:
        infos = {key: self._store.stat(f"{self._prefix}{index}/{key}") for key in keys}
        return {key: (torch.Size(info.shape or ()), info.torch_dtype) for key, info in infos.items()}
