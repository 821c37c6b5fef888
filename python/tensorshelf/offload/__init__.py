"""State that is too large for memory, on the shelf while a model trains.

::

    offload = ts.offload.save_on_store(store)
    with offload:                                     # outside;
        loss = model(batch)                           # inside, the layers use torch.utils.checkpoint
    loss.backward()

    AdamW = torch.optim.AdamW
    optimizer = ts.offload.OffloadedOptimizer(model.parameters(), AdamW, store=store, prefix="opt/", lr=1e-4)
"""

from .activations import no_offload, save_on_store
from .optimizer import OffloadedOptimizer

__all__ = ["OffloadedOptimizer", "no_offload", "save_on_store"]
