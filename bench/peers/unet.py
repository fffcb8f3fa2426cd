"""diffusers' UNet2DModel, class-conditional, in plain PyTorch, as the peer that `noisewright bench` is measured against.

Attention sits in the lowest down block, the middle and the first up block (AttnDownBlock2D, UNetMidBlock2D, AttnUpBlock2D).
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F


class Resnet(nn.Module):
    def __init__(self, inner, outer, embedding, groups):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, inner, 1e-5), nn.Conv2d(inner, outer, 3, padding=1)
        self.embed = nn.Linear(embedding, outer)
        self.norm2, self.conv2 = nn.GroupNorm(groups, outer, 1e-5), nn.Conv2d(outer, outer, 3, padding=1)
        self.shortcut = nn.Identity() if inner == outer else nn.Conv2d(inner, outer, 1)

    def forward(self, x, emb):
        h = self.conv1(F.silu(self.norm1(x))) + self.embed(F.silu(emb))[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    def __init__(self, dim, head, groups):
        super().__init__()
        self.heads = dim // head
        self.norm = nn.GroupNorm(groups, dim, 1e-5)
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x):
        n, c, height, width = x.shape
        h = self.norm(x.reshape(n, c, height * width)).transpose(1, 2)
        q, k, v = (f(h).reshape(n, -1, self.heads, c // self.heads).transpose(1, 2) for f in (self.q, self.k, self.v))
        weights = (q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5).softmax(-1)
        h = self.out((weights @ v).transpose(1, 2).reshape(n, -1, c))
        return x + h.transpose(1, 2).reshape(x.shape)


class Stage(nn.Module):
    """Resnets of one resolution, attention after each where asked, then an optional resampling convolution."""

    def __init__(self, widths, outer, embedding, groups, head, resample):
        super().__init__()
        self.resnets = nn.ModuleList(Resnet(w, outer, embedding, groups) for w in widths)
        self.attentions = nn.ModuleList(Attention(outer, head, groups) for _ in widths) if head else None
        self.resample = nn.Conv2d(outer, outer, 3, padding=1, stride=2 if resample == "down" else 1) if resample else None

    def layer(self, i, x, emb):
        x = self.resnets[i](x, emb)
        return self.attentions[i](x) if self.attentions else x


class UNet(nn.Module):
    def __init__(self, size=28, channels=1, base=48, mults=(1, 2, 2), layers=2, groups=16, head=8, classes=10):
        super().__init__()
        widths = [base * m for m in mults]
        embedding = base * 4
        lowest = len(widths) - 1
        self.base = base
        self.time = nn.Sequential(nn.Linear(base, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.label = nn.Embedding(classes + 1, embedding)
        self.conv_in = nn.Conv2d(channels, base, 3, padding=1)
        self.down, skips, width = nn.ModuleList(), [base], base
        for i, w in enumerate(widths):
            last = i == lowest
            self.down.append(Stage([width] + [w] * (layers - 1), w, embedding, groups, head if last else 0, None if last else "down"))
            skips += [w] * (layers if last else layers + 1)
            width = w
        self.mid = nn.ModuleList([Resnet(width, width, embedding, groups), Attention(width, head, groups), Resnet(width, width, embedding, groups)])
        self.up = nn.ModuleList()
        for i, w in reversed(list(enumerate(widths))):
            inputs = [(width if j == 0 else w) + skips.pop() for j in range(layers + 1)]
            self.up.append(Stage(inputs, w, embedding, groups, head if i == lowest else 0, "up" if i else None))
            width = w
        self.norm_out, self.conv_out = nn.GroupNorm(groups, base, 1e-5), nn.Conv2d(base, channels, 3, padding=1)

    def forward(self, x, t, y):
        half = self.base // 2
        angles = t.float()[:, None] * torch.exp(-math.log(10000.0) * torch.arange(half) / half)[None]
        emb = self.time(torch.cat([angles.cos(), angles.sin()], -1)) + self.label(y)
        h = self.conv_in(x)
        skips = [h]
        for stage in self.down:
            for i in range(len(stage.resnets)):
                h = stage.layer(i, h, emb)
                skips.append(h)
            if stage.resample is not None:
                h = stage.resample(h)
                skips.append(h)
        h = self.mid[2](self.mid[1](self.mid[0](h, emb)), emb)
        for stage in self.up:
            for i in range(len(stage.resnets)):
                h = stage.layer(i, torch.cat([h, skips.pop()], 1), emb)
            if stage.resample is not None:
                h = stage.resample(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.conv_out(F.silu(self.norm_out(h)))
