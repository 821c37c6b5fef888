"""Trains a small GPT, saves every step in the background, and goes on after a crash where it was.

    python train_crash_resume.py /nvme/shelf --steps 40 --crash-at 25      # dies, as by kill -9
    python train_crash_resume.py /nvme/shelf --steps 40                    # goes on from the last durable step

A step's save costs what changed and blocks for a copy in memory. The result is that of a run without a crash.
"""

import argparse
import os
import pathlib
import signal

import tensorshelf as ts
import torch
from torch import nn

TEXT = pathlib.Path(__file__).read_text()


class SmallGPT(nn.Module):
    def __init__(self, width: int = 32, context: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.tokens = nn.Embedding(128, width)
        self.places = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.1, batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.head = nn.Linear(width, 128)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        length = text.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        x = self.tokens(text) + self.places(torch.arange(length))
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        return self.head(x)


def batch(context: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    codes = torch.tensor([min(ord(character), 127) for character in TEXT])
    starts = torch.randint(len(codes) - context - 1, (8,))
    rows = torch.stack([codes[start : start + context + 1] for start in starts])
    return rows[:, :-1], rows[:, 1:]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("shelf")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--crash-at", type=int)
    options = parser.parse_args()
    if not os.path.exists(options.shelf):
        ts.create(options.shelf, capacity="256MiB")

    torch.manual_seed(0)
    model = SmallGPT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = 0
    with ts.open(options.shelf) as store:
        try:
            state = ts.checkpoint.load(store, "run/")
        except ts.checkpoint.CheckpointNotFoundError:
            print("from the start")
        else:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["random"])
            first = state["step"]
            print(f"from step {first}")

        for step in range(first + 1, options.steps + 1):
            text, following = batch()
            loss = nn.functional.cross_entropy(model(text).flatten(0, 1), following.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "random": torch.get_rng_state(),
                "step": step,
            }
            # Every tenth step is kept under a name of its own, which costs no bytes of its own.
            snapshot = f"step-{step}/" if step % 10 == 0 else None
            ts.checkpoint.save_async(state, store, "run/", staging="64MiB", snapshot=snapshot)
            if step == options.crash_at:
                os.kill(os.getpid(), signal.SIGKILL)
    print(f"step {step}: loss {loss.item():.6f}")


if __name__ == "__main__":
    main()
