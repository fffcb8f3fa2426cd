"""Stable Diffusion 1.5's UNet and the decoder of its autoencoder in plain PyTorch, with diffusers' names of the weights,
so that both sides of `noisewright bench sd15-step` and `sd15-vae-decode` open the same folder.
"""
import json
import math
import os

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class Names(nn.Module):
    """Submodules by name, for layouts that the forward pass does not care about."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, nn.ModuleList(part) if isinstance(part, list) else part)


class Resnet(nn.Module):
    def __init__(self, inner, outer, temb=0, eps=1e-5):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, inner, eps), nn.Conv2d(inner, outer, 3, padding=1)
        self.time_emb_proj = nn.Linear(temb, outer) if temb else None
        self.norm2, self.conv2 = nn.GroupNorm(32, outer, eps), nn.Conv2d(outer, outer, 3, padding=1)
        self.conv_shortcut = None if inner == outer else nn.Conv2d(inner, outer, 1)

    def forward(self, x, temb=None):
        h = self.conv1(F.silu(self.norm1(x)))
        if temb is not None:
            h = h + self.time_emb_proj(F.silu(temb))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nn.Module):
    def __init__(self, dim, context, heads, bias=False, norm=False):
        super().__init__()
        self.heads = heads
        self.group_norm = nn.GroupNorm(32, dim, 1e-6) if norm else None
        self.to_q, self.to_k, self.to_v = nn.Linear(dim, dim, bias), nn.Linear(context, dim, bias), nn.Linear(context, dim, bias)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])

    def forward(self, x, context):
        n, _, dim = x.shape
        q, k, v = (f(h).reshape(n, -1, self.heads, dim // self.heads).transpose(1, 2) for f, h in ((self.to_q, x), (self.to_k, context), (self.to_v, context)))
        weights = (q * (dim // self.heads) ** -0.5 @ k.transpose(-2, -1)).softmax(-1)
        return self.to_out[0]((weights @ v).transpose(1, 2).reshape(n, -1, dim))


class SpatialAttention(Attention):
    """The autoencoder's: over the positions of an image, added to it."""

    def __init__(self, dim):
        super().__init__(dim, dim, 1, bias=True, norm=True)

    def forward(self, x):
        h = self.group_norm(x).flatten(2).transpose(1, 2)
        return x + super().forward(h, h).transpose(1, 2).reshape(x.shape)


class Gated(nn.Module):
    def __init__(self, dim, inner):
        super().__init__()
        self.proj = nn.Linear(dim, 2 * inner)

    def forward(self, x):
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


class Block(nn.Module):
    def __init__(self, dim, context, heads):
        super().__init__()
        self.norm1, self.attn1 = nn.LayerNorm(dim), Attention(dim, dim, heads)
        self.norm2, self.attn2 = nn.LayerNorm(dim), Attention(dim, context, heads)
        self.norm3, self.ff = nn.LayerNorm(dim), Names(net=[Gated(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim)])

    def forward(self, x, context):
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        x = x + self.attn2(self.norm2(x), context)
        h = self.norm3(x)
        for layer in self.ff.net:
            h = layer(h)
        return x + h


class Transformer(nn.Module):
    def __init__(self, dim, context, heads):
        super().__init__()
        self.norm, self.proj_in = nn.GroupNorm(32, dim, 1e-6), nn.Conv2d(dim, dim, 1)
        self.transformer_blocks = nn.ModuleList([Block(dim, context, heads)])
        self.proj_out = nn.Conv2d(dim, dim, 1)

    def forward(self, x, context):
        h = self.proj_in(self.norm(x))
        h = self.transformer_blocks[0](h.flatten(2).transpose(1, 2), context)
        return x + self.proj_out(h.transpose(1, 2).reshape(x.shape))


class UNet(nn.Module):
    def __init__(self, widths=(320, 640, 1280, 1280), layers=2, context=768, heads=8):
        super().__init__()
        temb, lowest = 4 * widths[0], len(widths) - 1
        resnet = lambda inner, outer: Resnet(inner, outer, temb)
        transformer = lambda dim: Transformer(dim, context, heads)
        self.conv_in = nn.Conv2d(4, widths[0], 3, padding=1)
        self.time_embedding = Names(linear_1=nn.Linear(widths[0], temb), linear_2=nn.Linear(temb, temb))
        self.down_blocks, skips, width = nn.ModuleList(), [widths[0]], widths[0]
        for i, w in enumerate(widths):
            parts = {"resnets": [resnet(width if j == 0 else w, w) for j in range(layers)]}
            if i < lowest:
                parts["attentions"] = [transformer(w) for _ in range(layers)]
                parts["downsamplers"] = [Names(conv=nn.Conv2d(w, w, 3, stride=2, padding=1))]
            self.down_blocks.append(Names(**parts))
            skips += [w] * (layers + (i < lowest))
            width = w
        self.mid_block = Names(resnets=[resnet(width, width) for _ in range(2)], attentions=[transformer(width)])
        self.up_blocks = nn.ModuleList()
        for i, w in reversed(list(enumerate(widths))):
            parts = {"resnets": [resnet((width if j == 0 else w) + skips.pop(), w) for j in range(layers + 1)]}
            if i < lowest:
                parts["attentions"] = [transformer(w) for _ in range(layers + 1)]
            if i > 0:
                parts["upsamplers"] = [Names(conv=nn.Conv2d(w, w, 3, padding=1))]
            self.up_blocks.append(Names(**parts))
            width = w
        self.conv_norm_out, self.conv_out = nn.GroupNorm(32, widths[0], 1e-5), nn.Conv2d(widths[0], 4, 3, padding=1)

    def forward(self, x, t, context):
        half = self.conv_in.out_channels // 2
        angles = t[:, None] * torch.exp(-math.log(10000.0) * torch.arange(half) / half)[None]
        temb = self.time_embedding.linear_1(torch.cat([angles.cos(), angles.sin()], -1))
        temb = self.time_embedding.linear_2(F.silu(temb))
        h = self.conv_in(x)
        skips = [h]
        for block in self.down_blocks:
            for i, resnet in enumerate(block.resnets):
                h = resnet(h, temb)
                if hasattr(block, "attentions"):
                    h = block.attentions[i](h, context)
                skips.append(h)
            if hasattr(block, "downsamplers"):
                h = block.downsamplers[0].conv(h)
                skips.append(h)
        h = self.mid_block.resnets[0](h, temb)
        h = self.mid_block.resnets[1](self.mid_block.attentions[0](h, context), temb)
        for block in self.up_blocks:
            for i, resnet in enumerate(block.resnets):
                h = resnet(torch.cat([h, skips.pop()], 1), temb)
                if hasattr(block, "attentions"):
                    h = block.attentions[i](h, context)
            if hasattr(block, "upsamplers"):
                h = block.upsamplers[0].conv(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.conv_out(F.silu(self.conv_norm_out(h)))


class Decoder(nn.Module):
    def __init__(self, widths=(512, 512, 256, 128), layers=3):
        super().__init__()
        resnet = lambda inner, outer: Resnet(inner, outer, eps=1e-6)
        width = widths[0]
        parts = {"conv_in": nn.Conv2d(4, width, 3, padding=1)}
        parts["mid_block"] = Names(resnets=[resnet(width, width) for _ in range(2)], attentions=[SpatialAttention(width)])
        parts["up_blocks"] = []
        for i, w in enumerate(widths):
            up = {"upsamplers": [Names(conv=nn.Conv2d(w, w, 3, padding=1))]} if i < len(widths) - 1 else {}
            parts["up_blocks"].append(Names(resnets=[resnet(width if j == 0 else w, w) for j in range(layers)], **up))
            width = w
        parts["conv_norm_out"], parts["conv_out"] = nn.GroupNorm(32, width, 1e-6), nn.Conv2d(width, 3, 3, padding=1)
        self.decoder, self.post_quant_conv = Names(**parts), nn.Conv2d(4, 4, 1)

    def forward(self, z):
        d = self.decoder
        h = d.mid_block.resnets[0](d.conv_in(self.post_quant_conv(z)))
        h = d.mid_block.resnets[1](d.mid_block.attentions[0](h))
        for block in d.up_blocks:
            for resnet in block.resnets:
                h = resnet(h)
            if hasattr(block, "upsamplers"):
                h = block.upsamplers[0].conv(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return d.conv_out(F.silu(d.conv_norm_out(h)))


def open_model(kind, folder):
    """The module with the weights of a .safetensors file, each read straight into its place."""
    for name in ("kaiming_uniform_", "uniform_", "ones_", "zeros_"):  # what they would draw is replaced
        setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)
    model = kind()
    with open(os.path.join(folder, "diffusion_pytorch_model.safetensors"), "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        for name, parameter in model.named_parameters():
            entry = header[name]
            assert entry["shape"] == list(parameter.shape), name
            file.seek(8 + length + entry["data_offsets"][0])
            if entry["dtype"] == "F32":
                file.readinto(memoryview(parameter.detach().numpy()).cast("B"))
            else:
                begin, end = entry["data_offsets"]
                parameter.detach().numpy()[...] = np.frombuffer(file.read(end - begin), np.float16).reshape(parameter.shape)
    return model.eval()
