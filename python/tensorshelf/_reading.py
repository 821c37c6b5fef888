"""What a store and a view of it have in common: everything that reads."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from . import _core
from ._async import Background
from ._streaming import Calls, stream_values
from ._values import access_order, cache_hint, parse_size, priority_of, verifies
from .errors import NameNotFoundError

_MISSING: Any = object()
_NAMES_PER_PAGE = 4096


@dataclass(frozen=True)
class ObjectInfo:
    """What the store knows of an object without reading its bytes. See ``Store.stat``."""

    name: str
    #: "tensor" or "bytes"
    kind: str
    #: "float32", "bfloat16", ...; None for bytes
    dtype: str | None
    #: the torch.dtype of that name; None for bytes, and when this torch has no such dtype
    torch_dtype: torch.dtype | None
    #: None for bytes
    shape: tuple[int, ...] | None
    #: bytes of the value
    nbytes: int
    #: bytes on disk, without padding and trailer
    stored_bytes: int
    #: the number of this version; no number is ever used twice in a store
    generation: int
    #: nanoseconds since the Unix epoch
    created_ns: int
    metadata: dict[str, str] = field(hash=False)
    #: 128-bit hash of dtype, shape and content, hexadecimal
    fingerprint: str
    #: bytes of a checksum block: the least that a read of a part fetches
    block_size: int
    #: "extents", "inline" (in the index), "none" (no bytes), "external"
    placement: str
    #: (file_id, offset, length) in bytes, of each run in the data files
    extents: tuple[tuple[int, int, int], ...]
    ephemeral: bool


class Names(KeysView):
    """The names that begin with a prefix, in order of their UTF-8 bytes. Reads the index as it goes."""

    def __init__(self, reader: Reader, prefix: str) -> None:
        super().__init__(reader)  # type: ignore[arg-type]
        self._reader = reader
        self._prefix = prefix

    def __iter__(self) -> Iterator[str]:
        start = ""
        while True:
            core, view = self._reader._source()
            page = core.names(self._prefix, start, _NAMES_PER_PAGE, view)
            yield from page
            if len(page) < _NAMES_PER_PAGE:
                return
            start = page[-1] + "\0"  # the next possible name

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.startswith(self._prefix) and name in self._reader

    def __len__(self) -> int:
        return self._reader._count(self._prefix)

    def __repr__(self) -> str:
        return f"<names of {self._reader!r} that begin with {self._prefix!r}>"


class StoredTensor:
    """A tensor in the store, to be read in parts. Made by ``slice(name)``.

    Holds the version that was current when it was made: later puts and deletes of the name do not change what it
    reads, and its space is not reused while it lives.

    ``t[index]`` takes what a ``torch.Tensor`` takes of ints, slices with positive steps, ``...`` and ``None``, and
    as first component a list or 1-D tensor of row numbers (or a 1-D bool mask). The result is a new, contiguous
    tensor that owns its memory. Only the checksum blocks (64 KiB, or the ``block_size=`` of the put) that the
    index touches are read; where many tiny runs would be needed, the range around them is read and picked from.
    """

    def __init__(self, core: _core.Object, verify: bool) -> None:
        self._core = core
        self._verify = verify
        self.info = info_of(core.describe())

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def shape(self) -> torch.Size:
        return torch.Size(self.info.shape or ())

    @property
    def dtype(self) -> torch.dtype | None:
        return self.info.torch_dtype

    @property
    def ndim(self) -> int:
        return len(self.info.shape or ())

    @property
    def nbytes(self) -> int:
        return self.info.nbytes

    def __len__(self) -> int:
        if not self.info.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.info.shape[0]

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self.read(index)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self[row] for row in range(len(self)))

    def read(
        self,
        index: Any = ...,
        *,
        out: torch.Tensor | None = None,
        device: torch.device | str | None = None,
        verify: bool | str | None = None,
    ) -> torch.Tensor:
        """``self[index]``, into ``out`` (same dtype and shape, any strides or device) or onto ``device``."""
        check = self._verify if verify is None else verifies(verify)
        rows, rest = split_rows(index, self.shape)
        if rows is None:
            part = self._core.read_part(index, out, check)
        elif not rest:
            part = self._core.read_part(rows, out, check)
        else:
            part = self._core.read_part(rows, None, check)[(slice(None), *rest)].contiguous()
            part = part if out is None else out.copy_(part)
        return part if device is None else part.to(device)

    def __repr__(self) -> str:
        return f"<stored tensor {self.name!r} {self.info.dtype}{list(self.shape)}>"


class Reader:
    """The methods that ``Store`` and ``View`` share."""

    _verify: bool

    # Equal only if they are one: comparing as mappings would read everything.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def _source(self) -> tuple[_core.Store, _core.View | None]:
        raise NotImplementedError

    def _background_calls(self) -> Background:
        raise NotImplementedError

    def _one_commit(self) -> contextlib.AbstractContextManager[Reader]:
        """Itself, if it shows one commit for as long as it lives; else a view."""
        raise NotImplementedError

    def _listing(self, prefix: str) -> tuple[_core.Store, str, _core.View | None]:
        core, view = self._source()
        return core, prefix, view

    def _check_of(self, verify: bool | str | None) -> bool:
        return self._verify if verify is None else verifies(verify)

    def get(
        self,
        name: str,
        default: Any = _MISSING,
        *,
        out: torch.Tensor | None = None,
        device: torch.device | str | None = None,
        non_blocking: bool = False,
        as_bytes: bool = False,
        verify: bool | str | None = None,
        copy: bool = True,
        cache: str | None = None,
        order: str = "any",
        priority: str = "normal",
    ) -> Any:
        """The tensor (or bytes) with this name.

        name      as given to put
        default   returned when there is no such name. Without it that is NameNotFoundError, a KeyError: unlike
                  dict.get
        out       a tensor of the same dtype and shape to read into; it is returned. Contiguous CPU memory is read
                  into directly, and without a copy where it comes from ``tensorshelf.empty``; any strides and
                  devices work. Values are never converted. After an error its content is undefined
        device    where the result goes, as in ``torch.Tensor.to``; ``non_blocking`` likewise
        as_bytes  True: the raw bytes (C order, little-endian) of a tensor of any dtype, also one that this torch
                  lacks
        verify    "always" (default) or "never": whether the bytes are compared with their checksums on the way
        copy      False: a tensor that lies in the memory tier (see ``open``), or comes to lie there now, is lent
                  instead of copied. The result is for reading: when it is written to, or asked for ``data_ptr()`` or
                  ``numpy()``, torch gives it memory of its own first. The tier cannot reuse the bytes while it
                  lives. What does not lie in the tier (no room, a few KiB, bytes) is copied as ever
        cache     for the memory tier: "keep" (wanted again: gives way to other kept objects alone), "once" (not
                  wanted again soon: takes no room and gives up what it has), "none" (the default: the tier decides)
        order     "sweep": one of a long list that is read again and again, like the layers of a model that does not
                  fit. A part of the list then stays in the tier, instead of each object pushing out the next one
        priority  "high", "normal" or "background": who goes first where reads and writes wait for a device. None is
                  ever shut out. What is in flight already is not overtaken

        The result owns its memory (or, with ``copy=False``, its lease) and outlives the store. It is contiguous, on
        the CPU unless ``device`` says otherwise, and does not require grad. Large results lie in recycled,
        page-aligned memory.

        Raises NameNotFoundError, CorruptionError (the bytes on disk are damaged), UnsupportedTensorError (this
        torch has no such dtype), ValueError (out does not fit), StoreIOError, ClosedError, ForkedError.
        """
        _check_kind(out, device, as_bytes, copy)
        hints = (cache_hint(cache), access_order(order), copy, priority_of(priority))
        core, view = self._source()
        try:
            value = core.get(name, out, as_bytes, self._check_of(verify), view, *hints)
        except NameNotFoundError:
            if default is _MISSING:
                raise
            return default
        if device is not None and isinstance(value, torch.Tensor):
            value = value.to(device, non_blocking=non_blocking)
        return value

    def get_many(
        self,
        names: Iterable[str] | None = None,
        *,
        prefix: str = "",
        out: Mapping[str, torch.Tensor] | Sequence[torch.Tensor] | None = None,
        device: torch.device | str | None = None,
        non_blocking: bool = False,
        as_bytes: bool = False,
        verify: bool | str | None = None,
        copy: bool = True,
        cache: str | None = None,
        order: str = "any",
        priority: str = "normal",
    ) -> dict[str, Any]:
        """Many objects, all of one commit, in one submission to the device.

        names   which; None: those of ``out`` if that is a mapping, else all that begin with ``prefix``
        prefix  put before each name on the way in and taken off again: ``get_many(prefix="model/")`` returns what
                ``put_many(state_dict, prefix="model/")`` was given
        out     tensors to read into: a mapping by name (without prefix), or a sequence in the order of ``names``

        Returns a dict in the order of ``names`` (else in byte order of the names). The other arguments and the
        errors are those of ``get``; NameNotFoundError names the first name that is missing.
        """
        _check_kind(out, device, as_bytes, copy)
        hints = (cache_hint(cache), access_order(order), copy, priority_of(priority))
        core, view = self._source()
        if names is None and isinstance(out, Mapping):
            names = out
        if names is None:
            if view is None:
                view = core.view()  # listing and reading must see one commit
            full = list(_all_names(core, prefix, view))
            keys = [name[len(prefix) :] for name in full] if prefix else full
        else:
            if isinstance(names, str):
                raise TypeError("names must be an iterable of names, not one str")
            keys = list(names)
            full = [prefix + name for name in keys] if prefix else keys
        targets = [out[key] for key in keys] if isinstance(out, Mapping) else out if out is None else list(out)
        values = core.get_many(full, targets, as_bytes, self._check_of(verify), view, *hints)
        if device is not None:
            values = [v.to(device, non_blocking=non_blocking) if isinstance(v, torch.Tensor) else v for v in values]
        return dict(zip(keys, values, strict=True))

    def stream(
        self,
        names: Iterable[str] | None = None,
        *,
        prefix: str = "",
        window: int | str = "256MiB",
        device: torch.device | str | None = None,
        non_blocking: bool = False,
        as_bytes: bool = False,
        verify: bool | str | None = None,
        copy: bool = True,
        cache: str | None = None,
        order: str = "any",
        priority: str = "normal",
    ) -> Generator[tuple[str, Any], None, None]:
        """Reads ahead of a loop: ``for name, tensor in store.stream(names, window="2GiB"): ...``

        names   which, in the order in which the loop gets them; may be a generator, which is then asked for some
                hundred names at a time; None: all that begin with ``prefix``, in byte order, all of one commit
        prefix  put before each name on the way in and taken off again
        window  bytes that are being read or wait for the loop, beyond what the loop has taken; a value that alone has
                more is read when it is its turn

        The other arguments are those of ``get``. Each name is read once, with its neighbours, and shows its newest
        value at that moment. Memory of values that the loop drops is used again for the next ones.

        What is wrong with a name is raised when it is its turn, after all names before it, and ends the stream; the
        errors are those of ``get``. A loop that is left (``break``, an exception, Ctrl-C, ``close()`` of the
        generator) cancels what has not begun, and waits for what has.
        """
        if isinstance(names, str):
            raise TypeError("names must be an iterable of names, not one str")
        _check_kind(None, device, as_bytes, copy)
        hints = (cache_hint(cache), access_order(order), copy, priority_of(priority))
        check = self._check_of(verify)
        window_bytes = parse_size(window, "window")

        def run(reader: Reader) -> Generator[tuple[str, Any], None, None]:
            def full_names(keys: list[str]) -> list[str]:
                return [prefix + key for key in keys] if prefix else keys

            def sizes_of(keys: list[str]) -> list[int]:
                core, view = reader._source()
                return core.sizes(full_names(keys), view)

            def read(keys: list[str]) -> list[Any]:
                core, view = reader._source()
                values = core.get_many(full_names(keys), None, as_bytes, check, view, *hints)
                if device is None:
                    return values
                return [v.to(device, non_blocking=non_blocking) if isinstance(v, torch.Tensor) else v for v in values]

            keys = (name[len(prefix) :] for name in _all_names(*reader._listing(prefix))) if names is None else names
            calls = Calls(full_names, sizes_of, read)
            yield from stream_values(reader._background_calls(), keys, window_bytes, priority, calls)

        def run_on_view() -> Generator[tuple[str, Any], None, None]:
            with self._one_commit() as reader:
                yield from run(reader)

        return run_on_view() if names is None else run(self)

    def slice(self, name: str) -> StoredTensor:
        """The tensor with this name, to be read in parts: ``store.slice("w")[0:128]``. See StoredTensor."""
        core, view = self._source()
        return StoredTensor(core.find(name, view), self._verify)

    def read_slices(
        self,
        requests: Iterable[tuple[str, Any]],
        *,
        out: Sequence[torch.Tensor] | None = None,
        verify: bool | str | None = None,
    ) -> list[torch.Tensor]:
        """Many parts of tensors, all of one commit, in one submission to the device.

        requests  pairs (name, index); an index is what ``slice(name)[index]`` takes, row numbers alone if there
                  are any
        out       as many tensors to read into, of the parts' dtypes and shapes

        Returns the parts in the order of the requests.
        """
        core, view = self._source()
        plain = [request if _is_basic(request[1]) else _with_rows(core, request, view) for request in requests]
        return core.read_parts(plain, None if out is None else list(out), self._check_of(verify), view)

    def stat(self, name: str) -> ObjectInfo:
        """What is known of an object without reading it: shape, dtype, size, generation, metadata, place."""
        core, view = self._source()
        return info_of(core.find(name, view).describe())

    def contains(self, name: str) -> bool:
        """Whether there is an object with this name; also ``name in store``."""
        core, view = self._source()
        return core.contains(name, view)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name != "" and self.contains(name)

    def __getitem__(self, name: str) -> Any:
        return self.get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(Names(self, ""))

    def __len__(self) -> int:
        return self._count("")

    def keys(self, prefix: str = "") -> Names:
        """The names that begin with ``prefix``: a set-like view, in byte order, read from the index as you
        iterate.
        """
        return Names(self, prefix)

    def _count(self, prefix: str) -> int:
        return sum(1 for _ in Names(self, prefix))


def _check_kind(out: Any, device: Any, as_bytes: bool, copy: bool) -> None:
    if out is not None and (device is not None or as_bytes):
        raise ValueError("out= excludes device= and as_bytes=")
    if not copy and (out is not None or as_bytes):
        raise ValueError("copy=False excludes out= and as_bytes=")


def _all_names(core: _core.Store, prefix: str, view: _core.View | None) -> Iterator[str]:
    start = ""
    while True:
        page = core.names(prefix, start, _NAMES_PER_PAGE, view)
        yield from page
        if len(page) < _NAMES_PER_PAGE:
            return
        start = page[-1] + "\0"


def info_of(description: dict[str, Any]) -> ObjectInfo:
    known = description.pop("torch_has_dtype")
    torch_dtype = getattr(torch, description["dtype"], None) if known else None
    return ObjectInfo(torch_dtype=torch_dtype, **description)


def _is_basic(index: Any) -> bool:
    return type(index) in (slice, int, tuple) or index is ... or index is None


def _with_rows(core: _core.Store, request: tuple[str, Any], view: _core.View | None) -> tuple[str, Any]:
    name, index = request
    rows, _ = split_rows(index, core.find(name, view).describe()["shape"] or ())
    return (name, index if rows is None else rows)


def split_rows(index: Any, shape: Sequence[int]) -> tuple[torch.Tensor | None, tuple]:
    """(row numbers, rest of the index) when the index begins with a list or tensor of rows, else (None, ())."""
    first, rest = (index[0], index[1:]) if isinstance(index, tuple) and index else (index, ())
    if isinstance(first, list) and not first:
        return torch.empty(0, dtype=torch.int64), rest
    if not isinstance(first, list) and not (hasattr(first, "ndim") and first.ndim > 0):
        return None, ()
    rows = torch.as_tensor(first)
    if rows.dim() != 1 or rows.is_floating_point() or rows.is_complex():
        raise IndexError("row numbers must be a list or a 1-D tensor of integers, or a 1-D bool mask")
    if rows.dtype == torch.bool:
        if not shape or len(rows) != shape[0]:
            raise IndexError(f"a mask of {len(rows)} values does not fit a tensor of shape {tuple(shape)}")
        rows = rows.nonzero().flatten()
    return rows.to(device="cpu", dtype=torch.int64).contiguous(), rest
