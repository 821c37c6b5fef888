"""An unpickler that calls only what is on a list of harmless classes and functions."""

from __future__ import annotations

import builtins
import collections
import datetime
import decimal
import enum
import fractions
import io
import pathlib
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from .errors import UnsafeObjectError

# Nothing here runs code of the pickle's choosing, opens anything, or takes memory that is out of proportion to the
# pickle: bytearray(10**12) is a call, so bytearray is not here (its own opcode is enough).
_ALLOWED: dict[tuple[str, str], Any] = {
    **{
        ("builtins", name): getattr(builtins, name)
        for name in ("set", "frozenset", "dict", "list", "tuple", "int", "float", "bool", "str", "complex", "slice")
    },
    ("builtins", "range"): range,
    **{("collections", kind.__name__): kind for kind in (collections.OrderedDict, collections.defaultdict)},
    **{("collections", kind.__name__): kind for kind in (collections.Counter, collections.deque)},
    **{("datetime", name): getattr(datetime, name) for name in ("date", "datetime", "time", "timedelta", "timezone")},
    ("decimal", "Decimal"): decimal.Decimal,
    ("fractions", "Fraction"): fractions.Fraction,
    **{("pathlib", name): getattr(pathlib, name) for name in ("Path", "PosixPath", "PurePath", "PurePosixPath")},
    **{("torch", name): value for name, value in vars(torch).items() if isinstance(value, torch.dtype | torch.layout)},
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
    ("numpy", "dtype"): np.dtype,
    **{("numpy.dtypes", kind.__name__): kind for kind in {type(np.dtype(code)) for code in "?bBhHiIlLqQefdgFDGSUVmM"}},
}


_make_scalar = np.float64(0).__reduce__()[0]


def _ndarray(*_: Any) -> Any:
    """Stands for NumPy's class, which pickles name but have no need to call: it takes shapes, buffers and strides."""
    raise UnsafeObjectError("the object calls numpy.ndarray, which no pickled array does")


def _empty_array(_kind: Any, _shape: Any, _typecode: Any) -> Any:
    """NumPy's ``_reconstruct``; the state that follows brings shape and type, so none is taken from the call."""
    return np.ndarray((0,), "b")


def _scalar(dtype: np.dtype, *data: Any) -> Any:
    if dtype.hasobject:
        raise UnsafeObjectError("the object makes a NumPy scalar of a Python object")
    return _make_scalar(dtype, *data)


def _array_from_buffer(buffer: Any, dtype: np.dtype, shape: Any, order: str) -> np.ndarray:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def _enum_member(kind: Any, name: Any) -> Any:
    """Stands for ``getattr``, by which Python 3.11.0 to 3.11.3 pickle a member of an enumeration."""
    if isinstance(kind, enum.EnumMeta) and isinstance(name, str) and name in kind.__members__:
        return kind[name]
    raise UnsafeObjectError(
        f"the object asks for the attribute {name!r} of {kind!r}, which is no member of an enumeration"
    )


_ALLOWED["builtins", "getattr"] = _enum_member
for _package in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_package}.multiarray", "_reconstruct"] = _empty_array
    _ALLOWED[f"{_package}.numeric", "_frombuffer"] = _array_from_buffer
    _ALLOWED[f"{_package}.multiarray", "scalar"] = _scalar
_ALLOWED["numpy", "ndarray"] = _ndarray


def _registered() -> dict[tuple[str, str], Any]:
    """What the user declared harmless with ``torch.serialization.add_safe_globals``."""
    found = {}
    for entry in torch.serialization.get_safe_globals():
        value, name = entry if isinstance(entry, tuple) else (entry, f"{entry.__module__}.{entry.__qualname__}")
        found[tuple(name.rsplit(".", 1))] = value
    return found


class AllowListUnpickler(pickle.Unpickler):
    """``more`` extends the list for one caller; ``persistent_load`` is what the pickle's persistent ids become."""

    def __init__(
        self, data: bytes, persistent_load: Callable[[Any], Any], more: Mapping[tuple[str, str], Any] | None = None
    ) -> None:
        super().__init__(io.BytesIO(data))
        self.persistent_load = persistent_load  # type: ignore[method-assign]
        self._more = {**_registered(), **(more or {})}

    def find_class(self, module: str, name: str) -> Any:
        key = (module, name)
        if key in _ALLOWED:
            return _ALLOWED[key]
        if key in self._more:
            return self._more[key]
        raise UnsafeObjectError(
            f"the object asks for {module}.{name}, which is not on the list of harmless classes and functions. "
            "If you trust whoever saved it, register that class with torch.serialization.add_safe_globals, "
            "or load with weights_only=False, which lets the object run any code"
        )


class _AnyUnpickler(pickle.Unpickler):
    def __init__(self, data: bytes, persistent_load: Callable[[Any], Any]) -> None:
        super().__init__(io.BytesIO(data))
        self.persistent_load = persistent_load  # type: ignore[method-assign]


def unpickle(
    data: bytes,
    persistent_load: Callable[[Any], Any],
    weights_only: bool,
    more: Mapping[tuple[str, str], Any] | None = None,
) -> Any:
    """The object; with ``weights_only`` by the list, else with whatever the pickle asks for."""
    if weights_only:
        return AllowListUnpickler(data, persistent_load, more).load()
    return _AnyUnpickler(data, persistent_load).load()
