#!/usr/bin/env python3
"""A plain PyTorch training loop of a small Llama, to compare preflow's `pretrain` with.

Without arguments: prints tokens a second at the shape of the workshop's model. With two text files
(to train on, held out): trains a character-level model and prints seconds and held-out loss as JSON.
"""

import argparse, json, math, os, statistics, time
import torch
from torch import nn
from torch.nn import functional as F

LAYERS, WIDTH, HEADS, CONTEXT = 4, 128, 4, 64
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
torch.manual_seed(0)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        hidden = -(-(8 * WIDTH // 3) // 32) * 32
        self.before, self.after = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate, self.up = nn.Linear(WIDTH, hidden, bias=False), nn.Linear(WIDTH, hidden, bias=False)
        self.down = nn.Linear(hidden, WIDTH, bias=False)

    def forward(self, x, cos, sin):
        batch, time_, _ = x.shape
        split = self.qkv(self.before(x)).view(batch, time_, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        q, k, v = rotate(split[0], cos, sin), rotate(split[1], cos, sin), split[2]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, time_, WIDTH))
        y = self.after(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Model(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.embed = nn.Embedding(vocab, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, vocab, bias=False)
        self.head.weight = self.embed.weight
        half = WIDTH // HEADS // 2
        angle = torch.outer(torch.arange(CONTEXT), 10000 ** (-torch.arange(half) / half))
        self.cos, self.sin = angle.cos(), angle.sin()
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                branch = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * LAYERS) if branch else 0.02)

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.head(self.norm(x))


def loss_of(model, rows):
    logits = model(rows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def step(model, optimiser, rows):
    loss = loss_of(model, rows)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()


def speed():
    vocab, batch = 512, 16
    model = Model(vocab)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rates = []
    for i in range(60):
        rows = torch.randint(vocab, (batch, CONTEXT + 1))
        start = time.perf_counter()
        step(model, optimiser, rows)
        if i >= 10:
            rates.append(batch * CONTEXT / (time.perf_counter() - start))
    print(statistics.median(rates))


def train(args):
    texts = [open(path, encoding="utf-8").read() for path in (args.train, args.held_out)]
    letters = {c: i for i, c in enumerate(sorted(set("".join(texts))))}
    data, held_out = (torch.tensor([letters[c] for c in text]) for text in texts)
    model = Model(len(letters))
    matrices = [p for p in model.parameters() if p.dim() > 1]
    gains = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.99))
    start = time.perf_counter()
    warmup = 0.05 * args.steps
    for i in range(args.steps):
        share = (i - warmup) / (args.steps - warmup)
        factor = (i + 1) / warmup if i < warmup else 0.1 + 0.45 * (1 + math.cos(math.pi * share))
        for group in optimiser.param_groups:
            group["lr"] = args.lr * factor
        places = torch.randint(len(data) - CONTEXT, (args.batch,)).tolist()
        step(model, optimiser, torch.stack([data[p:p + CONTEXT + 1] for p in places]))
    seconds = time.perf_counter() - start
    with torch.no_grad():
        starts = range(0, len(held_out) - CONTEXT, CONTEXT)
        rows = torch.stack([held_out[s:s + CONTEXT + 1] for s in starts])
        losses = [loss_of(model, part).item() * len(part) for part in rows.split(64)]
    print(json.dumps({"seconds": seconds, "loss": sum(losses) / len(rows)}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", nargs="?")
    parser.add_argument("held_out", nargs="?")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--lr", type=float, default=2e-3)
    args = parser.parse_args()
    train(args) if args.train else speed()
