# SPDX-License-Identifier: Apache-2.0
"""The model of configs/quickstart.yaml as a plain PyTorch program, for comparison with bench_train_step.

Started with the folder that bench_train_step wrote: loads weights and batches, answers the objective and the gradients
of batch 0 (and those in fp32), then speaks the same protocol: each line "N" on stdin runs N optimizer steps and prints their milliseconds.
"""
import argparse
import json
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path)
parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
parser.add_argument("--heads", type=int, default=4)
parser.add_argument("--top-k", type=int, default=2)
parser.add_argument("--lr", type=float, default=1.5e-3)
parser.add_argument("--pad", type=int, default=64, help="bf16: rows of an expert are padded to a multiple of this")
args = parser.parse_args()

weights = {name: value.requires_grad_() for name, value in load_file(args.folder / "weights.safetensors").items()}
batches = load_file(args.folder / "batches.safetensors")
num_batches = sum(name.startswith("token.") for name in batches)
num_layers = 1 + max(int(name.split("_")[1].split(".")[0]) for name in weights if name.startswith("layers_"))
num_experts = 1 + max(int(n.split(".experts.")[1].split(".")[0]) for n in weights if ".experts." in n)


def rms_norm(x, weight):
    return F.rms_norm(x, (x.shape[-1],), weight, 1e-6)


def rotate(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def attention(x, prefix, angles, mask):
    batch, length, width = x.shape

    def heads(name):
        return F.linear(x, weights[f"{prefix}.{name}_proj.weight"]).view(batch, length, args.heads, -1)

    q = rms_norm(heads("q"), weights[f"{prefix}.q_norm.weight"]).transpose(1, 2)
    k = rms_norm(heads("k"), weights[f"{prefix}.k_norm.weight"]).transpose(1, 2)
    q, k = rotate(q, *angles).to(x.dtype), rotate(k, *angles).to(x.dtype)
    y = F.scaled_dot_product_attention(q, k, heads("v").transpose(1, 2), attn_mask=mask, is_causal=mask is None)
    return F.linear(y.transpose(1, 2).reshape(batch, length, width), weights[f"{prefix}.o_proj.weight"])


def moe(x, prefix):
    """Token choice with a loop over experts, index_select in and index_add out."""
    x = x.reshape(-1, x.shape[-1])
    logits = F.linear(x.float(), weights[f"{prefix}.router.weight"])
    probs = logits.softmax(-1)
    top, chosen = probs.topk(args.top_k, dim=-1)
    top = top / top.sum(-1, keepdim=True)
    out = torch.zeros_like(x)
    for e in range(num_experts):
        token, choice = torch.where(chosen == e)
        rows = x[token]
        pad = -len(token) % args.pad if args.precision == "bf16" else 0
        if pad:
            rows = F.pad(rows, (0, 0, 0, pad))
        w = f"{prefix}.experts.{e}."
        h = F.silu(F.linear(rows, weights[w + "gate_proj.weight"])) * F.linear(rows, weights[w + "up_proj.weight"])
        y = F.linear(h, weights[w + "down_proj.weight"])[: len(token)]
        out.index_add_(0, token, (y * top[token, choice, None]).to(out.dtype))
    share = F.one_hot(chosen, num_experts).sum((0, 1)).float() / chosen.numel()
    balance = num_experts * (share * probs.mean(0)).sum()
    z = logits.logsumexp(-1).square().mean()
    return out, 0.01 * balance + 0.001 * z


def objective(i):
    token, target = batches[f"token.{i}"].long(), batches[f"target.{i}"].long()
    document, position = batches[f"document.{i}"], batches[f"position.{i}"]
    head_dim = weights["layers_0.self_attn.q_proj.weight"].shape[0] // args.heads
    frequency = 10000.0 ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angle = (position.double()[..., None] * frequency)[:, None]
    angles = angle.cos().float(), angle.sin().float()
    mask = None
    if (document != document[:, :1]).any():
        mask = (document[:, None, :, None] == document[:, None, None, :]).tril()
    x = F.embedding(token, weights["embed_tokens"])
    aux = 0.0
    for layer in range(num_layers):
        p = f"layers_{layer}"
        x = x + attention(rms_norm(x, weights[f"{p}.input_layernorm.weight"]), f"{p}.self_attn", angles, mask)
        y, layer_aux = moe(rms_norm(x, weights[f"{p}.post_attention_layernorm.weight"]), f"{p}.moe")
        x, aux = x + y.view_as(x), aux + layer_aux
    logits = F.linear(rms_norm(x, weights["norm.weight"]), weights["lm_head"])
    return F.cross_entropy(logits.flatten(0, 1).float(), target.flatten(), ignore_index=-1) + aux


def forward_backward(i, precision=args.precision):
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        loss = objective(i)
    loss.backward()
    return loss.item()


decayed = [w for n, w in weights.items() if "norm" not in n]
kept = [w for n, w in weights.items() if "norm" in n]
optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": kept, "weight_decay": 0.0}],
                              lr=args.lr, betas=(0.9, 0.95), fused=True)



def save_gradients(name):
    save_file({n: w.grad for n, w in weights.items() if w.grad is not None}, args.folder / name)
    optimizer.zero_grad()


forward_backward(0, "fp32")
save_gradients("gradients_fp32.safetensors")
loss = forward_backward(0)
save_gradients("gradients_peer.safetensors")
print(json.dumps({"objective": loss, "torch": torch.__version__}), flush=True)

step = 0
for line in sys.stdin:
    times = []
    for _ in range(int(line)):
        begin = time.perf_counter()
        forward_backward(step % num_batches)
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        times.append(1e3 * (time.perf_counter() - begin))
    print(json.dumps({"ms": times}), flush=True)
