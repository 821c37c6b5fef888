"""Fine-tunes a model whose optimizer states, twice its size, lie on the shelf instead of in memory.

    python optimizer_on_shelf.py /nvme/shelf

Memory holds a window of the states, whatever the size of the model. A snapshot of them copies no bytes.
"""

import argparse
import os

import tensorshelf as ts
import torch
from torch import nn


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("shelf")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    if not os.path.exists(options.shelf):
        ts.create(options.shelf, capacity=256 << 20 if options.width <= 512 else "16GiB")

    torch.manual_seed(0)
    width = options.width
    model = nn.Sequential(*[layer for _ in range(8) for layer in (nn.Linear(width, width), nn.GELU())])
    with ts.open(options.shelf) as store:
        optimizer = ts.offload.OffloadedOptimizer(
            model.parameters(), torch.optim.AdamW, store=store, prefix="opt/", window_bytes="8MiB", lr=1e-3
        )
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=options.steps)
        for step in range(1, options.steps + 1):
            inputs = torch.randn(16, width, generator=torch.Generator().manual_seed(step))
            loss = (model(inputs) - inputs).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            print(f"step {step}: loss {loss.item():.4f}")
            if step == options.steps // 2:
                optimizer.snapshot("half/opt/")
                schedule_then = schedule.state_dict()
                ts.checkpoint.save(model.state_dict(), store, "half/model/")
        before = [parameter.detach().clone() for parameter in model.parameters()]

        # Back to the snapshot, and the same steps again.
        ts.load_into(model, store, "half/model/")
        optimizer.restore("half/opt/")
        schedule.load_state_dict(schedule_then)
        for step in range(options.steps // 2 + 1, options.steps + 1):
            inputs = torch.randn(16, width, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            (model(inputs) - inputs).square().mean().backward()
            optimizer.step()
            schedule.step()
        same = all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        stored = sum(store.stat(name).nbytes for name in store.keys("opt/"))
        print(f"{stored >> 20} MiB of states on the shelf; the second half again: {'equal' if same else 'different'}")


if __name__ == "__main__":
    main()
