"""Small random OPT models in transformers' spelling and the folders that tools make of them. Needs torch and
safetensors."""

import json
import pathlib
import shutil

import safetensors.torch
import torch

TABLE, HEAD = "model.decoder.embed_tokens.weight", "lm_head.weight"


def config(vocab=131, hidden=32, layers=2, heads=4, ffn=64, positions=40, embed=None, pre=True, **more):
    return {"model_type": "opt", "architectures": ["OPTForCausalLM"], "activation_function": "relu",
            "do_layer_norm_before": pre, "hidden_size": hidden, "ffn_dim": ffn, "num_hidden_layers": layers,
            "num_attention_heads": heads, "max_position_embeddings": positions, "vocab_size": vocab,
            "word_embed_proj_dim": embed or hidden, "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1,
            "torch_dtype": "float16", **more}


def state(cfg, seed=0, dtype=torch.float16):
    """All tensors that OPTForCausalLM has under a configuration; a head of its own only if the weights are not tied."""
    generator = torch.Generator().manual_seed(seed)
    random = lambda *shape: torch.randn(*shape, generator=generator) * 0.3
    hidden, embed, vocab = cfg["hidden_size"], cfg["word_embed_proj_dim"], cfg["vocab_size"]
    biases, affine = cfg.get("enable_bias", True), cfg.get("layer_norm_elementwise_affine", True)
    tensors = {TABLE: random(vocab, embed),
               "model.decoder.embed_positions.weight": random(cfg["max_position_embeddings"] + 2, hidden)}
    if embed != hidden:
        tensors["model.decoder.project_in.weight"] = random(hidden, embed)
        tensors["model.decoder.project_out.weight"] = random(embed, hidden)

    def norm(name):
        if affine:
            tensors[name + ".weight"], tensors[name + ".bias"] = 1 + random(hidden), random(hidden)

    if cfg["do_layer_norm_before"] and not cfg.get("_remove_final_layer_norm", False):
        norm("model.decoder.final_layer_norm")
    for i in range(cfg["num_hidden_layers"]):
        layer = f"model.decoder.layers.{i}."
        for name, rows, columns in (("self_attn.k_proj", hidden, hidden), ("self_attn.v_proj", hidden, hidden),
                                    ("self_attn.q_proj", hidden, hidden), ("self_attn.out_proj", hidden, hidden),
                                    ("fc1", cfg["ffn_dim"], hidden), ("fc2", hidden, cfg["ffn_dim"])):
            tensors[layer + name + ".weight"] = random(rows, columns)
            if biases:
                tensors[layer + name + ".bias"] = random(rows)
        norm(layer + "self_attn_layer_norm")
        norm(layer + "final_layer_norm")
    if not cfg.get("tie_word_embeddings", True):
        tensors[HEAD] = random(vocab, embed)
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def write_json(path, value):
    path.write_text(json.dumps(value))


def new_folder(path, cfg=None):
    shutil.rmtree(path, ignore_errors=True)
    pathlib.Path(path).mkdir(parents=True)
    if cfg is not None:
        write_json(path / "config.json", cfg)
    return path


def save_bin(path, tensors, name="pytorch_model.bin", **options):
    torch.save(tensors, path / name, **options)


def save_safetensors(path, tensors, name="model.safetensors"):
    safetensors.torch.save_file({key: value.contiguous().clone() for key, value in tensors.items()}, str(path / name),
                                metadata={"format": "pt"})
