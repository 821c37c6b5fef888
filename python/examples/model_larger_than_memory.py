"""Runs a model that does not fit into a memory limit, from the shelf, through accelerate's hooks.

    python model_larger_than_memory.py /nvme/shelf --size-mib 512 --limit-mib 256

accelerate asks for each layer's weights as the forward pass comes to it; the mapping has read them ahead by then.
"""

import argparse
import os
import resource

import tensorshelf as ts
import torch
from accelerate.hooks import attach_align_device_hook
from torch import nn

WIDTH = 1024
LAYER_BYTES = 4 * WIDTH * (WIDTH + 1)


def build(layer_count: int) -> nn.Module:
    return nn.Sequential(*[layer for _ in range(layer_count) for layer in (nn.Linear(WIDTH, WIDTH), nn.Tanh())])


def store_model(store: ts.Store, layer_count: int) -> None:
    """Stores the weights layer by layer: the whole model is never in memory."""
    generator = torch.Generator().manual_seed(0)
    with store.transaction() as tx:
        for index in range(layer_count):
            weight = torch.randn(WIDTH, WIDTH, generator=generator) / WIDTH**0.5
            bias = torch.randn(WIDTH, generator=generator)
            tx.put_many({f"{2 * index}.weight": weight, f"{2 * index}.bias": bias}, prefix="model/")


def data_bytes() -> int:
    """Private writable memory of this process, which is what the limit limits."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmData:"))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("shelf")
    parser.add_argument("--size-mib", type=int, default=512)
    parser.add_argument("--limit-mib", type=int, default=256)
    options = parser.parse_args()
    layer_count = (options.size_mib << 20) // LAYER_BYTES
    if not os.path.exists(options.shelf):
        ts.create(options.shelf, capacity=(options.size_mib + 64) << 20)
    with ts.open(options.shelf) as store:
        if not store.keys("model/"):
            store_model(store, layer_count)
    inputs = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1))
    (inputs @ inputs.T).sum()  # starts torch's threads
    with ts.open(options.shelf, "r", result_pool="32MiB", staging="16MiB") as store:
        limit = data_bytes() + (options.limit_mib << 20)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        with torch.device("meta"):
            model = build(layer_count)
        weights = store.mapping("model/", window="64MiB")
        attach_align_device_hook(model, execution_device=torch.device("cpu"), offload=True, weights_map=weights)
        for _ in range(2):
            result = model(inputs)
        # The same, by hand.
        expected = inputs
        for index in range(layer_count):
            layer = store.get_many([f"{2 * index}.weight", f"{2 * index}.bias"], prefix="model/")
            expected = nn.functional.linear(expected, *layer.values()).tanh()
    print(
        f"{layer_count} layers, {layer_count * LAYER_BYTES >> 20} MiB, in {options.limit_mib} MiB of memory: ", end=""
    )
    print("equal" if torch.equal(result, expected) else "different")


if __name__ == "__main__":
    main()
