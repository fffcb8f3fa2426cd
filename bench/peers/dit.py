"""DiT (Peebles & Xie 2022) in plain PyTorch, as the peer that `noisewright bench` is measured against.

Two layouts of the same network:
- "paper": as facebookresearch/DiT has it: one timestep and one label embedder for the whole model, one linear for q, k and v.
- "diffusers": as diffusers' DiTTransformer2DModel has it: every block embeds timestep and label itself, q, k and v are three linears.
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F


def sincos_positions(dim, grid):
    """2-D sin-cos table of shape [grid * grid, dim]; the first half of the channels encodes the column, the second the row."""
    omega = 1.0 / 10000 ** (torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    row, column = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    halves = [torch.cat([a.sin(), a.cos()], 1) for a in (torch.outer(p.flatten().double(), omega) for p in (column, row))]
    return torch.cat(halves, 1).float()


class Conditioning(nn.Module):
    """Timestep (256 sinusoids, two linears) plus class label (the last row is the null class)."""

    def __init__(self, dim, classes, frequencies=256):
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(nn.Linear(frequencies, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.label = nn.Embedding(classes + 1, dim)

    def forward(self, t, y):
        half = self.frequencies // 2
        angles = t.float()[:, None] * torch.exp(-math.log(10000.0) * torch.arange(half) / half)[None]
        return self.mlp(torch.cat([angles.cos(), angles.sin()], -1)) + self.label(y)


class Attention(nn.Module):
    def __init__(self, dim, heads, fused_qkv):
        super().__init__()
        self.heads = heads
        self.qkv = nn.ModuleList([nn.Linear(dim, 3 * dim)] if fused_qkv else [nn.Linear(dim, dim) for _ in range(3)])
        self.out = nn.Linear(dim, dim)

    def forward(self, x):
        n, length, dim = x.shape
        head = dim // self.heads
        if len(self.qkv) == 1:
            q, k, v = self.qkv[0](x).reshape(n, length, 3, self.heads, head).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            q, k, v = (f(x).reshape(n, length, self.heads, head).transpose(1, 2) for f in self.qkv)
        weights = ((q * head**-0.5) @ k.transpose(-2, -1)).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(n, length, dim))


class Block(nn.Module):
    """Transformer block with adaLN-Zero: six modulation vectors from the conditioning."""

    def __init__(self, dim, heads, mlp_ratio, classes, own_conditioning, fused_qkv):
        super().__init__()
        self.condition = Conditioning(dim, classes) if own_conditioning else None
        self.modulation = nn.Linear(dim, 6 * dim)
        self.attention = Attention(dim, heads, fused_qkv)
        self.fc1 = nn.Linear(dim, int(dim * mlp_ratio))
        self.fc2 = nn.Linear(int(dim * mlp_ratio), dim)

    def forward(self, x, c, t, y):
        if self.condition is not None:
            c = self.condition(t, y)
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(c))[:, None].chunk(6, -1)
        norm = lambda h: F.layer_norm(h, h.shape[-1:], eps=1e-6)
        x = x + gate1 * self.attention(norm(x) * (1 + scale1) + shift1)
        return x + gate2 * self.fc2(F.gelu(self.fc1(norm(x) * (1 + scale2) + shift2), approximate="tanh"))


class DiT(nn.Module):
    def __init__(self, size=28, patch=2, channels=1, dim=192, depth=6, heads=3, mlp_ratio=4, classes=10, layout="paper"):
        super().__init__()
        self.patch, self.grid, self.channels = patch, size // patch, channels
        per_block = layout == "diffusers"
        self.embed = nn.Conv2d(channels, dim, patch, patch)
        self.register_buffer("positions", sincos_positions(dim, self.grid))
        self.condition = None if per_block else Conditioning(dim, classes)
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio, classes, per_block, not per_block) for _ in range(depth))
        self.final_modulation = nn.Linear(dim, 2 * dim)
        self.final = nn.Linear(dim, patch * patch * channels)

    def forward(self, x, t, y):
        h = self.embed(x).flatten(2).transpose(1, 2) + self.positions
        c = None if self.condition is None else self.condition(t, y)
        for block in self.blocks:
            h = block(h, c, t, y)
        if c is None:  # diffusers: the first block's embedder serves the output layer too
            c = self.blocks[0].condition(t, y)
        shift, scale = self.final_modulation(F.silu(c))[:, None].chunk(2, -1)
        h = self.final(F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift)
        h = h.reshape(len(x), self.grid, self.grid, self.patch, self.patch, self.channels).permute(0, 5, 1, 3, 2, 4)
        return h.reshape(len(x), self.channels, self.grid * self.patch, self.grid * self.patch)
