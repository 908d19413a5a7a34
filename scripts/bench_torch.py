#!/usr/bin/env python3
"""Prints tokens a second of a plain PyTorch training loop in the shape of the workshop's model."""

import os, statistics, time
import torch
from torch import nn
from torch.nn import functional as F

LAYERS, WIDTH, HEADS, CONTEXT, BATCH, VOCAB = 4, 128, 4, 64, 16, 512
torch.set_num_threads(os.cpu_count() or 1)
torch.manual_seed(0)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        hidden = 8 * WIDTH // 3 // 8 * 8
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
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, VOCAB, bias=False)
        half = WIDTH // HEADS // 2
        angle = torch.outer(torch.arange(CONTEXT), 10000 ** (-torch.arange(half) / half))
        self.cos, self.sin = angle.cos(), angle.sin()

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.head(self.norm(x))


model = Model()
optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
rates = []
for step in range(60):
    tokens = torch.randint(VOCAB, (BATCH, CONTEXT + 1))
    start = time.perf_counter()
    logits = model(tokens[:, :-1])
    loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    if step >= 10:
        rates.append(BATCH * CONTEXT / (time.perf_counter() - start))
print(statistics.median(rates))
