# SPDX-License-Identifier: Apache-2.0
"""Tiny models of the transformers library with random weights, for hf_oracle_test.cpp.

usage: hf_oracle.py --probe | hf_oracle.py FOLDER

Writes FOLDER/FAMILY.safetensors for each family, in float64: every parameter under its checkpoint name, its gradient as "grad:NAME", "tokens" [B, S] int64,
"logits" [B, S, V], "loss" (mean over next tokens), and where the model has the function "aux_pooled" (its
load-balancing loss as it defines it: all layers' tokens in one pool) and "aux_per_layer" (the sum of the same function
over single layers). The gradients are those of loss + AUX_WEIGHT * aux_per_layer, where there is one.
"""
import sys
from importlib.metadata import version
from importlib.util import find_spec

AUX_WEIGHT = 0.25


def configs():
    import transformers as t

    common = dict(vocab_size=31, hidden_size=12, num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=64,
                  rms_norm_eps=1e-5, use_cache=False, attention_dropout=0.0, tie_word_embeddings=False,
                  pad_token_id=None, bos_token_id=None, eos_token_id=None)
    rope = dict(rope_type="default", rope_theta=5000.0)
    return {
        "llama": lambda: (t.LlamaForCausalLM, t.LlamaConfig(
            **{**common, "tie_word_embeddings": True}, num_hidden_layers=2, intermediate_size=14, rope_parameters=rope)),
        "mixtral": lambda: (t.MixtralForCausalLM, t.MixtralConfig(
            **common, num_hidden_layers=2, intermediate_size=7, num_local_experts=5, num_experts_per_tok=2,
            sliding_window=None, rope_parameters=rope)),
        "qwen2_moe": lambda: (t.Qwen2MoeForCausalLM, t.Qwen2MoeConfig(
            **common, num_hidden_layers=2, intermediate_size=14, moe_intermediate_size=7,
            shared_expert_intermediate_size=9, num_experts=5, num_experts_per_tok=3, norm_topk_prob=False,
            decoder_sparse_step=1, qkv_bias=False, rope_parameters=rope)),
        "qwen3_moe": lambda: (t.Qwen3MoeForCausalLM, t.Qwen3MoeConfig(
            **common, num_hidden_layers=3, head_dim=10, intermediate_size=14, moe_intermediate_size=7, num_experts=5,
            num_experts_per_tok=2, norm_topk_prob=True, decoder_sparse_step=2, rope_parameters=rope)),
        "olmoe": lambda: (t.OlmoeForCausalLM, t.OlmoeConfig(
            **common, num_hidden_layers=2, intermediate_size=7, num_experts=5, num_experts_per_tok=3,
            norm_topk_prob=False, clip_qkv=None, rope_parameters=rope)),
        # The routing of DeepSeek-V3 (sigmoid scores, selection bias, scaling, shared expert, dense first layer) with
        # ordinary attention.
        "glm4_moe": lambda: (t.Glm4MoeForCausalLM, t.Glm4MoeConfig(
            **common, num_hidden_layers=3, head_dim=10, intermediate_size=14, moe_intermediate_size=7,
            n_routed_experts=5, num_experts_per_tok=2, n_shared_experts=2, routed_scaling_factor=2.5, n_group=1,
            topk_group=1, first_k_dense_replace=1, norm_topk_prob=True, use_qk_norm=True, num_mtp_layers=0,
            rope_parameters={**rope, "partial_rotary_factor": 1.0})),
    }


def stay_in_double(torch):
    """transformers rounds norms, angles and router scores to float32 whatever the model's dtype is. Here the name
    float32 means float64, so that its formulas can be compared to 1e-9."""
    torch.set_default_dtype(torch.float64)
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double


def checkpoint_names(family, state):
    """Stacked expert tensors under the names of the published checkpoints, one expert each."""
    for name, value in state.items():
        parent, _, leaf = name.rpartition(".")
        if family == "mixtral":
            name, parent = (text.replace(".mlp.", ".block_sparse_moe.") for text in (name, parent))
        if leaf not in ("gate_up_proj", "down_proj") or not parent.endswith(".experts"):
            yield name, value
            continue
        for e in range(value.shape[0]):
            if family == "mixtral":
                gate, up, down = (f"{parent}.{e}.{p}.weight" for p in ("w1", "w3", "w2"))
            else:
                gate, up, down = (f"{parent}.{e}.{p}_proj.weight" for p in ("gate", "up", "down"))
            if leaf == "down_proj":
                yield down, value[e]
            else:
                half = value.shape[1] // 2
                yield gate, value[e, :half]
                yield up, value[e, half:]


def aux_losses(module, logits, config):
    function = getattr(module, "load_balancing_loss_func", None)
    if function is None or not logits:
        return None
    experts = getattr(config, "num_local_experts", None) or config.num_experts
    return (function(tuple(logits), experts, config.num_experts_per_tok),
            sum(function((one,), experts, config.num_experts_per_tok) for one in logits))


def write_family(family, model_class, config, out):
    import safetensors.torch
    import torch

    torch.manual_seed(7)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model = model_class(config).double()
    for name, parameter in model.named_parameters():
        center = 1.0 if "norm" in name else 0.0
        torch.nn.init.normal_(parameter, center, 0.3)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            # Exact in float32, in which it is kept; large enough to change the choice of experts.
            buffer.copy_(torch.randint(-8, 9, buffer.shape) / 16.0)
    tokens = torch.randint(0, config.vocab_size, (3, 11))

    router_logits = []
    for name, child in model.named_modules():
        if type(child).__name__.endswith("TopKRouter"):
            child.register_forward_hook(lambda module, inputs, output: router_logits.append(output[0]))
    logits = model(input_ids=tokens).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, config.vocab_size), tokens[:, 1:].reshape(-1))
    aux = aux_losses(sys.modules[model_class.__module__], router_logits, config)
    objective = loss if aux is None else loss + AUX_WEIGHT * aux[1]
    objective.backward()

    tensors = {"tokens": tokens, "logits": logits, "loss": loss}
    if aux is not None:
        tensors["aux_pooled"], tensors["aux_per_layer"] = aux
    state = dict(model.named_parameters())
    tensors.update(checkpoint_names(family, state))
    tensors.update((f"grad:{n}", g) for n, g in checkpoint_names(family, {n: p.grad for n, p in state.items()}))
    tensors.update((n, b) for n, b in model.named_buffers() if n.endswith("e_score_correction_bias"))
    for name, value in tensors.items():
        assert value.dtype in (torch.float64, torch.int64), (name, value.dtype)
    safetensors.torch.save_file({n: v.detach().clone().contiguous() for n, v in tensors.items()}, out)


def main():
    if sys.argv[1] == "--probe":  # without importing them, which takes seconds
        assert int(version("transformers").split(".")[0]) >= 5 and find_spec("torch") and find_spec("safetensors")
        return
    import torch

    stay_in_double(torch)
    torch.set_num_threads(1)
    for family, make in configs().items():
        write_family(family, *make(), f"{sys.argv[1]}/{family}.safetensors")


if __name__ == "__main__":
    main()
