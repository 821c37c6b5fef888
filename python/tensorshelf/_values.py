"""What may be stored, turned into what the core takes: tensors and bytes-like objects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from .errors import UnsupportedTensorError

_TAKEN_AS_THEY_ARE = (torch.Tensor, bytes, bytearray, memoryview)


def prepare(value: Any) -> Any:
    """The value itself if the core takes it, else a tensor on the same memory where that is possible."""
    if isinstance(value, _TAKEN_AS_THEY_ARE):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return tensor_of(np.asarray(value))
    if hasattr(value, "__dlpack__"):
        return torch.from_dlpack(value)
    return value  # the core refuses it by name and type


def prepare_all(values: Iterable[Any]) -> list[Any]:
    return [value if type(value) is torch.Tensor else prepare(value) for value in values]


def tensor_of(array: np.ndarray) -> torch.Tensor:
    """A tensor with the array's values. ``ml_dtypes`` (bfloat16, float8_*) become torch's types of the same
    name.
    """
    if not array.dtype.isnative:
        raise UnsupportedTensorError(
            f"cannot keep an array with byte order {array.dtype.byteorder!r}; "
            "use array.astype(array.dtype.newbyteorder('='))"
        )
    if array.dtype.kind == "V" and array.dtype.fields is None:
        return _tensor_of_extension_type(array)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()  # torch has neither read-only memory nor negative strides
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise UnsupportedTensorError(f"cannot keep an array of dtype {array.dtype}") from error


def _tensor_of_extension_type(array: np.ndarray) -> torch.Tensor:
    torch_dtype = getattr(torch, array.dtype.name, None)
    if not isinstance(torch_dtype, torch.dtype) or torch_dtype.itemsize != array.dtype.itemsize:
        raise UnsupportedTensorError(f"cannot keep an array of dtype {array.dtype}")
    integers = array.copy().view({1: np.uint8, 2: np.uint16}[array.dtype.itemsize])
    return torch.from_numpy(integers).view(torch_dtype)


def parse_size(size: int | str, what: str) -> int:
    """Bytes of an int or of a text such as "64GiB", "1.5 TB", "4096"."""
    if isinstance(size, bool) or not isinstance(size, int | str):
        raise TypeError(f"{what} must be an int or a text such as '64GiB', not {type(size).__name__}")
    value = size if isinstance(size, int) else _parse_size_text(size, what)
    if not 0 <= value < 1 << 63:
        raise ValueError(f"{what} is out of range: {size!r}")
    return value


def _parse_size_text(text: str, what: str) -> int:
    digits = text.strip()
    number = digits.rstrip("KMGTPEkmgtpeiBb ")
    unit = digits[len(number) :].strip().lower().removesuffix("b")
    factors = {"": 1, **{c: 1000 ** (i + 1) for i, c in enumerate("kmgtpe")}}
    factors.update({f"{c}i": 1024 ** (i + 1) for i, c in enumerate("kmgtpe")})
    try:
        factor = factors[unit]
        # Whole numbers stay exact; a fraction may round by a byte.
        return int(number) * factor if number.isdecimal() else int(float(number) * factor)
    except (KeyError, ValueError, OverflowError):
        raise ValueError(f"{what} is not a size: {text!r}; write bytes, or 64MiB, 64GiB, 1TB") from None


def block_log2_of(block_size: int | str | None) -> int:
    """The power of two that a checksum block has; the default is 64 KiB."""
    if block_size is None:
        return 16
    value = parse_size(block_size, "block_size")
    if value.bit_count() != 1 or not 4096 <= value <= 1 << 20:
        raise ValueError(f"block_size must be a power of two between 4 KiB and 1 MiB, not {block_size!r}")
    return value.bit_length() - 1


def verifies(verify: bool | str) -> bool:
    """True for "always", False for "never"; bools are taken too."""
    if isinstance(verify, bool):
        return verify
    if verify in ("always", "never"):
        return verify == "always"
    raise ValueError(f"verify must be 'always' or 'never', not {verify!r}")


def cache_hint(cache: str | None) -> str:
    """ "none", "keep" or "once"; None is "none"."""
    if cache not in (None, "none", "keep", "once"):
        raise ValueError(f"cache must be 'keep', 'once' or 'none', not {cache!r}")
    return cache or "none"


def access_order(order: str) -> str:
    if order not in ("any", "sweep"):
        raise ValueError(f"order must be 'any' or 'sweep', not {order!r}")
    return order


def priority_of(priority: str) -> str:
    if priority not in ("high", "normal", "background"):
        raise ValueError(f"priority must be 'high', 'normal' or 'background', not {priority!r}")
    return priority
