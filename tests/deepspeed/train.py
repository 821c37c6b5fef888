"""A few ZeRO stage-3 steps on the CPU: `train.py MODE FOLDER [save|load]`; prints one line with the losses, exactly.

MODE says what goes to files: none, parameters, optimizer, pipelined, or all. With a checkpoint the optimizer is RMSprop
in place of Adam: DeepSpeed loads a swapped optimizer's tensors alone, not its count of steps, which Adam needs."""

import json
import os
import pathlib
import sys

import deepspeed
import tensorshelf.aio
import torch
from deepspeed.accelerator import get_accelerator

STEPS = 4
WIDTH = 1024  # 2 MiB in bf16: smaller tensors than 1 MiB are not swapped


def configuration(mode: str, folder: str) -> dict:
    zero = {"stage": 3, "stage3_param_persistence_threshold": 0, "sub_group_size": 2 * WIDTH * WIDTH}
    nvme = {"device": "nvme", "nvme_path": folder, "pin_memory": True}
    if mode in ("parameters", "all"):
        zero["offload_param"] = {**nvme, "buffer_count": 6, "buffer_size": 2 * WIDTH * WIDTH, "max_in_cpu": 0}
    if mode in ("optimizer", "pipelined", "all"):
        pipelined = mode == "pipelined"
        zero["offload_optimizer"] = {
            **nvme,
            "buffer_count": 10 if pipelined else 5,
            "pipeline_read": pipelined,
            "pipeline_write": pipelined,
        }
    return {
        "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": 1,
        "bf16": {"enabled": True},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # that one would have to be compiled
        "aio": {"block_size": 1 << 20, "queue_depth": 8, "intra_op_parallelism": 1, "overlap_events": True},
    }


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return (x.float() ** 2).mean()


def swappers(engine) -> dict:
    """The classes that swap, and the classes of their handles."""
    found = {}
    parameters = getattr(engine.module.layers[0].weight, "nvme_swapper", None)
    optimizer = getattr(engine.optimizer, "optimizer_swapper", None)
    for swapper in (parameters, optimizer):
        if swapper is None:
            continue
        handles = [value for name, value in vars(swapper).items() if name.endswith("_handle")]
        handles = [value for value in handles if not isinstance(value, type)]  # one attribute is the class itself
        found[type(swapper).__name__] = sorted({f"{type(h).__module__}.{type(h).__name__}" for h in handles})
    return found


def make_pinning_work() -> None:
    """Up to 0.19 DeepSpeed's CPU accelerator pins nothing, and its swappers insist that their buffers are pinned."""
    accelerator = get_accelerator()
    if accelerator.is_pinned(accelerator.pin_memory(torch.zeros(1))):
        return
    pins = tensorshelf.aio.pin_handle()

    def pin_memory(tensor: torch.Tensor, align_bytes: int = 1) -> torch.Tensor:
        pinned = pins.new_cpu_locked_tensor(tensor.numel(), tensor)
        return pinned.copy_(tensor.view(-1)).view(tensor.shape)

    accelerator.pin_memory = pin_memory
    accelerator.is_pinned = pins.is_pinned


def main(mode: str, folder: str, action: str = "") -> None:
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
    # Ours is the op under test; no other one is to be compiled.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    rendezvous = pathlib.Path(folder) / "rendezvous"
    rendezvous.unlink(missing_ok=True)
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=0, world_size=1)
    deepspeed.init_distributed(dist_backend="gloo")
    make_pinning_work()
    torch.manual_seed(1)
    config = configuration(mode, str(folder))
    with deepspeed.zero.Init(config_dict_or_path=config, dtype=torch.bfloat16):
        model = Model()
    optimizer = (torch.optim.RMSprop if action else torch.optim.Adam)(model.parameters(), lr=1e-3)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    losses = []

    def step(seed: int) -> None:
        batch = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)
        loss = engine(batch)
        engine.backward(loss)
        engine.step()
        losses.append(loss.item().hex())

    checkpoint = str(pathlib.Path(folder) / "checkpoint")
    if action == "load":
        # DeepSpeed reads the states of a swapped optimizer only where there have been some before.
        step(1000)
        losses.clear()
        engine.load_checkpoint(checkpoint, tag="saved")
    for seed in range(STEPS):
        step(seed + (STEPS if action == "load" else 0))
    if action == "save":
        engine.save_checkpoint(checkpoint, tag="saved")
        for seed in range(STEPS, 2 * STEPS):
            step(seed)
    swapped = sorted(str(path.relative_to(folder)) for path in pathlib.Path(folder, "zero_stage_3").rglob("*.swp"))
    print(
        "RESULT",
        json.dumps(
            {
                "losses": losses,
                "swappers": swappers(engine),
                "swapped": len(swapped),
                "accelerator": get_accelerator()._name,
            }
        ),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
