"""DeepSpeed's ``async_io`` on tensorshelf's engine: the same names, arguments and return values, without the losses.

::

    from tensorshelf import aio

    handle = aio.aio_handle(block_size=1 << 20, queue_depth=32, intra_op_parallelism=1)
    buffer = handle.new_cpu_locked_tensor(1 << 20, torch.empty(0, dtype=torch.bfloat16))
    handle.async_pwrite(buffer, "/nvme/a.swp")           # 0
    handle.wait()                                        # 1: as many calls as were pending
    handle.sync_pread(buffer, "/nvme/a.swp")             # 1

Any tensor with plain bytes, of any size and alignment, to and from any offset of any regular file. Tensors from
``new_cpu_locked_tensor`` and pinned ones go straight between memory and device and must not change while a call is
pending; the bytes of others pass through 64 MiB of buffers that all handles of the process share.

Return values are DeepSpeed's: ``-1`` means a missing file or a missing folder, and that nothing was started. Everything
else that goes wrong is an exception, from the call or from ``wait()``: ``ValueError`` and ``TypeError`` for arguments,
``OSError`` with ``errno`` and ``filename`` for the rest, ``ENODATA`` for a read past the end of a file.
Whatever was reported as written is on the device or in its caches; nothing here flushes those.

``python -m tensorshelf.aio install`` makes an installed DeepSpeed use this module, in every process that is started
later; ``use_in_this_process()`` does the same for the running one alone. Handles do not work in a forked child.
"""

import atexit

from .._core import aio as _aio
from .._core.aio import aio_handle, aio_read, aio_write, deepspeed_memcpy, pin_handle
from ._deepspeed import use_in_this_process

# Calls that are pending when the interpreter ends are finished before its modules are taken apart.
atexit.register(_aio._drain)

__all__ = [
    "aio_handle",
    "aio_read",
    "aio_write",
    "deepspeed_memcpy",
    "pin_handle",
    "use_in_this_process",
]
