"""Trains a sharded model (FSDP2, gloo, CPU) on some ranks, and goes on with another number of ranks.

    torchrun --nproc-per-node 2 fsdp_resume.py /nvme/run 10
    torchrun --nproc-per-node 4 fsdp_resume.py /nvme/run 20
    torchrun --nproc-per-node 1 fsdp_resume.py /nvme/run 30

Each rank saves to a store of its own under the root; a checkpoint is there on all ranks or on none.
"""

import sys

import tensorshelf as ts
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard


class Training:
    """A Stateful: DCP calls state_dict to save, and again before it loads into the tensors that are there."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 1))
        for layer in self.model:
            if isinstance(layer, nn.Linear):
                fully_shard(layer)
        fully_shard(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.step = 0

    def state_dict(self) -> dict:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "step": self.step}

    def load_state_dict(self, state: dict) -> None:
        set_state_dict(self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        self.step = state["step"]

    def train_step(self) -> float:
        inputs = torch.randn(32, 64, generator=torch.Generator().manual_seed(self.step))
        loss = (self.model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return loss.item()


def train(root: str, until: int) -> float:
    training = Training()
    last = ts.checkpoint.latest(root)
    if last is not None:
        dcp.load({"training": training}, checkpoint_id=last, storage_reader=ts.checkpoint.ShelfReader(root))
    dist.barrier()  # nobody saves before everybody has looked for the latest
    writer = ts.checkpoint.ShelfWriter(root, capacity="64MiB")
    group = dist.new_group(backend="gloo")  # what is saved in the background has collectives of its own
    loss, saving = float("nan"), None
    while training.step < until:
        loss = training.train_step()
        if training.step % 5 == 0:
            if saving is not None:
                saving.result()  # raises if the save before failed
            saving = dcp.async_save(
                {"training": training},
                checkpoint_id=f"step-{training.step}",
                storage_writer=writer,
                process_group=group,
            )
    if saving is not None:
        saving.result()
    if dist.get_rank() == 0:
        ts.checkpoint.keep(root, last=2)
    dist.barrier()
    return loss


if __name__ == "__main__":
    dist.init_process_group("cpu:gloo")
    final = train(sys.argv[1], int(sys.argv[2]))
    if dist.get_rank() == 0:
        print(f"{dist.get_world_size()} ranks, step {sys.argv[2]}: loss {final:.6f}")
    dist.destroy_process_group()
