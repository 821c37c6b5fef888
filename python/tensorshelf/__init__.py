"""tensorshelf: named tensors on preallocated files, durable, checked, at the speed of the device.

A store is a directory. You give it a name and a tensor; it keeps the bytes on NVMe and the name in an index. When
``put`` returns, the tensor survives a power loss; when ``get`` returns, every byte has been compared with its
checksum.

::

    import tensorshelf as ts

    ts.create("/nvme/shelf", capacity="64GiB")          # open() never creates
    with ts.open("/nvme/shelf") as store:               # mode "a" (default) or "r"
        store.put("layers.0.weight", tensor, metadata={"step": "100"})
        t = store.get("layers.0.weight")                # owns its memory
        store.get("layers.0.weight", out=buffer)        # into the caller's tensor
        rows = store.slice("layers.0.weight")[0:128]    # reads only what it needs
        store.put_many(model.state_dict(), prefix="model/")
        state = store.get_many(prefix="model/")
        store.clone_prefix("model/", "step-100/")       # a snapshot that copies no bytes
        with store.transaction() as tx:                 # all or nothing
            tx.put("a", tensor)
            tx.delete("b")
        t = store.get("a", copy=False)                  # lent from memory; see open(memory=...)
        future = store.put_async("c", tensor)           # future.result(), or: await future
        for name, t in store.stream(names):             # reads ahead of the loop
            ...
        with store.view() as view:                      # a consistent view of one commit
            view.get("a")

Functions
    create(path, capacity)   makes a store and preallocates its files
    open(path, mode="a")     opens it; see Store for everything else
    empty(shape, dtype)      a tensor in memory that goes to and from the device without a copy
    load_into(module, store, prefix)                     a state dict from a store straight into a module
    import_safetensors(store, files, prefix)             and export_safetensors(store, file, prefix)

Modules
    checkpoint    save and load whole objects, torch.distributed.checkpoint, saves in the background
    offload       activations and optimizer states on the shelf while a model trains

Classes
    Store         an open store, a MutableMapping from names to tensors
    Transaction   many changes with one commit
    View          the store as one commit left it
    StoredTensor  a tensor to be read in parts
    ObjectInfo    what the store knows of an object
    Commit        what a commit did
    Compaction    what a compaction did, and Growth, Drained what grow and drain did
    Future        the result of a call in the background

Errors are listed in ``tensorshelf.errors`` and are importable from here. Sizes are in bytes; where one is asked
for, texts such as "64GiB" are taken too. Notices (no direct I/O here, memory could not be locked) go to
``logging.getLogger("tensorshelf")``.
"""

import torch as _torch  # noqa: F401  (first: it brings the libraries that _core is linked to)

from . import errors
from ._async import Future
from ._core import __version__
from ._reading import Names, ObjectInfo, StoredTensor
from ._space import Compaction, Drained, Growth, SpaceShape
from .errors import *  # noqa: F403
from .safetensors_files import export_safetensors, import_safetensors
from .store import Commit, Store, Transaction, View, create, empty, open
from .weights import StoredWeights, load_into

from . import checkpoint, offload  # isort: skip  (they stand on everything above)

__all__ = [
    "Commit",
    "Compaction",
    "Drained",
    "Future",
    "Growth",
    "Names",
    "ObjectInfo",
    "SpaceShape",
    "Store",
    "StoredTensor",
    "StoredWeights",
    "Transaction",
    "View",
    "__version__",
    "checkpoint",
    "create",
    "empty",
    "errors",
    "export_safetensors",
    "import_safetensors",
    "load_into",
    "offload",
    "open",
    *errors.__all__,
]
