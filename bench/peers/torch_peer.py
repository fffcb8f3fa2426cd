#!/usr/bin/env python3
"""PyTorch's side of `noisewright bench`: one process per job, driven line by line so that rounds alternate with ours.

    python3 bench/peers/torch_peer.py JOB [--batch 32] [--threads 2] [--config JSON] [--layout paper|diffusers]

Prints {"ready": true, "parameters": ...}; then for every line "round N" on stdin runs N steps and prints
{"times_ms": [...], "peak_rss_kb": ...}. A train step is: forward, mean squared error, backward, AdamW. --config overrides
the model's sizes by the names of its constructor (dit.py, unet.py). The caller sets OPENBLAS_CORETYPE and OMP_WAIT_POLICY.
"""
import argparse
import json
import os
import resource
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("job", choices=["dit-train", "dit-forward", "unet-train", "unet-forward", "sd15-step", "sd15-vae-decode"])
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--config", type=json.loads, default={})
parser.add_argument("--layout", choices=["paper", "diffusers"], default="paper")
parser.add_argument("--channels-last", action="store_true", help="memory format of the UNet (slower here than the default)")
parser.add_argument("--model", help="of sd15: the folder that both sides open")
args = parser.parse_args()
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read once, when torch loads
    os.environ[name] = str(args.threads)

import torch
import torch.nn.functional as F

from dit import DiT
from unet import UNet

peer = f"torch {torch.__version__}" + (", OpenMP passive" if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE" else "")
torch.set_num_threads(args.threads)
torch.manual_seed(0)


def sd15_step():
    """The step, and what it has run on: its folder is opened, and it is made once."""
    from sd15 import Decoder, UNet as TextUNet, open_model

    begin = time.perf_counter()
    is_step = args.job == "sd15-step"
    model = open_model(*((TextUNet, args.model + "/unet") if is_step else (Decoder, args.model + "/vae")))
    side = args.config.get("size", 64)
    x = torch.randn(args.batch, 4, side, side)
    inputs = (x, torch.full((args.batch,), 500.0), torch.randn(args.batch, 77, 768)) if is_step else (x,)
    step = torch.no_grad()(lambda: model(*inputs))
    step()
    return step, model, {"open_ms": (time.perf_counter() - begin) * 1000}


def small_step():
    kind, mode = args.job.split("-")
    model = DiT(**{"layout": args.layout, **args.config}) if kind == "dit" else UNet(**args.config)
    size, channels, classes = (args.config.get(name, default) for name, default in (("size", 28), ("channels", 1), ("classes", 10)))
    x, noise = torch.randn(2, args.batch, channels, size, size)
    t, y = torch.randint(0, 1000, (args.batch,)), torch.randint(0, classes + 1, (args.batch,))
    if args.channels_last:
        model, x, noise = (v.to(memory_format=torch.channels_last) for v in (model, x, noise))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)

    def train_step():
        optimizer.zero_grad(set_to_none=True)
        loss = F.mse_loss(model(x, t, y), noise)
        loss.backward()
        optimizer.step()
        return loss.item()

    @torch.no_grad()
    def forward_step():
        return model(x, t, y)

    model.train(mode == "train")
    return train_step if mode == "train" else forward_step, model, {}


step, model, ready = sd15_step() if args.job.startswith("sd15") else small_step()
print(json.dumps({"ready": True, "parameters": sum(p.numel() for p in model.parameters()), "peer": peer, **ready}), flush=True)
for line in sys.stdin:
    words = line.split()
    if len(words) != 2 or words[0] != "round":
        sys.exit(f'torch_peer: expected "round N", got {line.strip()!r}')
    times = []
    for _ in range(int(words[1])):
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1000)
    print(json.dumps({"times_ms": times, "peak_rss_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}), flush=True)
