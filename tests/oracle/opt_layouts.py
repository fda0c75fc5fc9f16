"""One random OPT model in every layout that its tools write, through torch.save and the safetensors package.

Each writer is made from the layout's description and shares nothing with the converter or with another writer. A model
is a dictionary of whole fp16 tensors, [out, in], with q, k and v apart: "layers.0.q.weight". A tool for tests.
"""

import argparse
import collections
import json
import math
import sys
import types

import safetensors.torch
import torch


class Sizes:
    def __init__(self, layers, heads, head_dim, vocab, positions, embed=None):
        self.layers, self.heads, self.vocab, self.positions = layers, heads, vocab, positions
        self.hidden = heads * head_dim
        self.ffn = 4 * self.hidden
        self.embed = embed or self.hidden
        self.is_post_norm = embed is not None


def random_model(sizes, seed):
    generator = torch.Generator().manual_seed(seed)

    def tensor(*shape):
        return torch.randn(*shape, generator=generator).half()

    h, f = sizes.hidden, sizes.ffn
    model = {"embed_tokens": tensor(sizes.vocab, sizes.embed), "embed_positions": tensor(sizes.positions, h)}
    if sizes.is_post_norm:
        model["project_in"], model["project_out"] = tensor(h, sizes.embed), tensor(sizes.embed, h)
    else:
        model["final_norm.weight"], model["final_norm.bias"] = tensor(h), tensor(h)
    for i in range(sizes.layers):
        for name, rows, columns in (("q", h, h), ("k", h, h), ("v", h, h), ("out", h, h), ("fc1", f, h), ("fc2", h, f)):
            model[f"layers.{i}.{name}.weight"] = tensor(rows, columns)
            model[f"layers.{i}.{name}.bias"] = tensor(rows)
        for name in ("attention_norm", "ffn_norm"):
            model[f"layers.{i}.{name}.weight"], model[f"layers.{i}.{name}.bias"] = tensor(h), tensor(h)
    return model


# Metaseq.

def with_unused_rows(positions):
    return torch.cat([torch.full((2, positions.shape[1]), math.nan).to(positions.dtype), positions])


def metaseq_layer(model, i, part=0, parts=1, separate=False):
    """A layer's tensors in the order in which its modules register them."""
    def rows(name):
        return model[f"layers.{i}.{name}"].chunk(parts, 0)[part]

    def columns(name):
        return model[f"layers.{i}.{name}"].chunk(parts, 1)[part]

    def whole(name):
        return model[f"layers.{i}.{name}"]

    out = collections.OrderedDict()
    if separate:
        for letter in "kvq":
            for leaf in ("weight", "bias"):
                out[f"self_attn.{letter}_proj.{leaf}"] = rows(f"{letter}.{leaf}")
    else:
        for leaf in ("weight", "bias"):
            out[f"self_attn.qkv_proj.{leaf}"] = torch.cat([rows(f"{letter}.{leaf}") for letter in "kvq"])
    out["self_attn.out_proj.weight"], out["self_attn.out_proj.bias"] = columns("out.weight"), whole("out.bias")
    for leaf in ("weight", "bias"):
        out[f"self_attn_layer_norm.{leaf}"] = whole(f"attention_norm.{leaf}")
    out["fc1.weight"], out["fc1.bias"] = rows("fc1.weight"), rows("fc1.bias")
    out["fc2.weight"], out["fc2.bias"] = columns("fc2.weight"), whole("fc2.bias")
    for leaf in ("weight", "bias"):
        out[f"final_layer_norm.{leaf}"] = whole(f"ffn_norm.{leaf}")
    return out


def metaseq_root(model, part=0, parts=1):
    out = collections.OrderedDict()
    out["decoder.embed_tokens.weight"] = model["embed_tokens"].chunk(parts, 0)[part]
    out["decoder.embed_positions.weight"] = with_unused_rows(model["embed_positions"])
    for name in ("project_in", "project_out"):
        if name in model:
            out[f"decoder.{name}_dim.weight"] = model[name]
    if "final_norm.weight" in model:
        for leaf in ("weight", "bias"):
            out[f"decoder.layer_norm.{leaf}"] = model[f"final_norm.{leaf}"]
    return out


def metaseq_part(model, sizes, part=0, parts=1, separate=False, views=False):
    """Named tensors of one part; `views` makes each group views into one storage, as reshard_fsdp leaves them."""
    groups = [metaseq_root(model, part, parts)]
    for i in range(sizes.layers):
        layer = metaseq_layer(model, i, part, parts, separate)
        groups.append(collections.OrderedDict((f"decoder.layers.{i}.{name}", t) for name, t in layer.items()))
    state = collections.OrderedDict([("decoder.version", torch.tensor([3.0]))])
    for group in groups:
        flat = torch.cat([tensor.reshape(-1) for tensor in group.values()])
        at = 0
        for name, tensor in group.items():
            state[name] = flat[at:at + tensor.numel()].view(tensor.shape) if views else tensor.clone()
            at += tensor.numel()
    return state


def metaseq_settings(sizes, parts=1, **more):
    return dict(decoder_layers=sizes.layers, decoder_attention_heads=sizes.heads, decoder_embed_dim=sizes.hidden,
                decoder_ffn_embed_dim=sizes.ffn, decoder_input_dim=sizes.embed, decoder_output_dim=sizes.embed,
                max_target_positions=sizes.positions, tokens_per_sample=sizes.positions, activation_fn="relu",
                decoder_learned_pos=True, no_scale_embedding=True, share_decoder_input_output_embed=True,
                decoder_normalize_before=not sizes.is_post_norm, model_parallel_size=parts, dropout=0.1, **more)


def metaseq_cfg(sizes, parts=1, **more):
    return {"common": argparse.Namespace(seed=7, fp16=True, model_parallel_size=parts),
            "model": argparse.Namespace(**metaseq_settings(sizes, parts, **more)),
            "distributed_training": argparse.Namespace(use_sharded_state=True)}


def container_cfg(sizes, parts=1):
    """The same as omegaconf pickles it: containers whose nodes wrap the values."""
    def make(name, **state):
        value = type(name, (), {})()
        value.__class__.__module__ = "omegaconf." + ("dictconfig" if name == "DictConfig" else "nodes")
        module = sys.modules.setdefault(value.__class__.__module__, types.ModuleType(value.__class__.__module__))
        sys.modules.setdefault("omegaconf", types.ModuleType("omegaconf"))
        value.__class__ = module.__dict__.setdefault(name, value.__class__)
        value.__dict__.update(state)
        return value

    def node(value):
        return make("DictConfig", _metadata=None, _content={key: node(inner) for key, inner in value.items()}) \
            if isinstance(value, dict) else make("AnyNode", _metadata=None, _val=value)
    return node({"model": metaseq_settings(sizes, parts), "common": {"seed": 7}})


def save_parts(folder, name, model, sizes, parts, cfg=None, **how):
    """`name` holds {} where the part's number goes."""
    folder.mkdir()
    for part in range(parts):
        state = {"cfg": cfg or metaseq_cfg(sizes, parts), "args": None, "criterion": None,
                 "model": metaseq_part(model, sizes, part, parts, **how), "optimizer_history": [{"num_updates": 4000}],
                 "task_state": {}, "extra_state": {"previous_training_time": 1.5}}
        torch.save(state, folder / name.format(part))


def save_old_350m(folder, model, sizes):
    """reshard.pt of OPT-350M: a Namespace 'args', separate projections, one part."""
    folder.mkdir()
    torch.save({"args": argparse.Namespace(**metaseq_settings(sizes)), "cfg": None,
                "model": metaseq_part(model, sizes, separate=True)}, folder / "reshard.pt")


def flat_modules(model, sizes, part, parts, unwrapped):
    """Modules that FSDP flattens, and their tensors; the root has what is in no other, in the order of its modules."""
    root, inside = metaseq_root(model, part, parts), collections.OrderedDict()
    norms = {name: root.pop(name) for name in list(root) if "layer_norm" in name}
    for i in unwrapped:
        layer = metaseq_layer(model, i, part, parts)
        inside.update((f"decoder.layers.{i}.{name}", tensor) for name, tensor in layer.items())
    modules = [("", collections.OrderedDict(**root, **inside, **norms))]
    return modules + [(f"decoder.layers.{i}", metaseq_layer(model, i, part, parts)) for i in range(sizes.layers)
                      if i not in unwrapped]


def save_flat(folder, model, sizes, parts, shards, metadata=True, cfg=True, unwrapped=()):
    """What FSDP leaves: one vector for each wrapped module, cut by torch.chunk and filled up with zeros."""
    folder.mkdir()
    for part in range(parts):
        modules = flat_modules(model, sizes, part, parts, unwrapped)
        files = [{"model": collections.OrderedDict(), "param_metadata": []} for _ in range(shards)]
        for path, tensors in modules:
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors.values()])
            chunks = list(flat.chunk(shards)) + [flat.new_empty(0)] * shards
            for file, chunk in zip(files, chunks):
                padding = chunks[0].numel() - chunk.numel()
                padded = torch.nn.functional.pad(chunk, [0, padding])
                file["model"][(path + "." if path else "") + "flat_param_0"] = padded.clone()
                file["param_metadata"].append({
                    "fsdp_path": path, "no_broadcast_optim_state": False,
                    "shared_param_info": [] if path else [("decoder.embed_tokens.weight",
                                                          "decoder.output_projection.weight")],
                    "params": {"flat_param_0": {"names": list(tensors), "shapes": [t.shape for t in tensors.values()],
                                                "numels": [t.numel() for t in tensors.values()], "padding": padding}}})
        for shard, file in enumerate(files):
            file["model"]["decoder.version"] = torch.tensor([3.0])
            state = {"model": file["model"], "criterion": None}
            if cfg:
                state["cfg"] = metaseq_cfg(sizes, parts)
            if metadata:
                state["shard_metadata"] = {"param_metadata": file["param_metadata"],
                                           "buffer_names": ["decoder.version"]}
            end = f"-shard{shard}" if shards > 1 else ""
            torch.save(state, folder / f"checkpoint_last-model_part-{part}{end}.pt")


# Hugging Face.

def huggingface_tensors(model, sizes, prefix="model."):
    out = {prefix + "decoder.embed_tokens.weight": model["embed_tokens"],
           prefix + "decoder.embed_positions.weight": with_unused_rows(model["embed_positions"])}
    for name in ("project_in", "project_out"):
        if name in model:
            out[prefix + f"decoder.{name}.weight"] = model[name]
    names = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "out": "self_attn.out_proj",
             "attention_norm": "self_attn_layer_norm", "fc1": "fc1", "fc2": "fc2", "ffn_norm": "final_layer_norm"}
    for leaf in ("weight", "bias"):
        if f"final_norm.{leaf}" in model:
            out[prefix + f"decoder.final_layer_norm.{leaf}"] = model[f"final_norm.{leaf}"]
        for i in range(sizes.layers):
            for ours, theirs in names.items():
                out[prefix + f"decoder.layers.{i}.{theirs}.{leaf}"] = model[f"layers.{i}.{ours}.{leaf}"]
    return out


def huggingface_config(sizes, **more):
    return {"model_type": "opt", "architectures": ["OPTForCausalLM"], "activation_function": "relu",
            "num_hidden_layers": sizes.layers, "hidden_size": sizes.hidden, "num_attention_heads": sizes.heads,
            "ffn_dim": sizes.ffn, "vocab_size": sizes.vocab, "word_embed_proj_dim": sizes.embed,
            "max_position_embeddings": sizes.positions, "do_layer_norm_before": not sizes.is_post_norm,
            "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1, "torch_dtype": "float16", **more}


def save_huggingface(folder, tensors, config, safe=True, shards=1, index=True):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    stem, end = ("model", ".safetensors") if safe else ("pytorch_model", ".bin")
    places = {}
    for shard in range(shards):
        name = stem + (f"-{shard + 1:05}-of-{shards:05}" if shards > 1 else "") + end
        piece = {key: tensor.contiguous() for key, tensor in list(tensors.items())[shard::shards]}
        places.update(dict.fromkeys(piece, name))
        if safe:
            safetensors.torch.save_file({key: tensor.clone() for key, tensor in piece.items()}, folder / name,
                                        metadata={"format": "pt"})
        else:
            torch.save(piece, folder / name)
    if shards > 1 and index:
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        (folder / f"{stem}{end}.index.json").write_text(
            json.dumps({"metadata": {"total_size": size}, "weight_map": places}))


# FasterTransformer, as Metaseq's convert_metaseq_ft writes it.

def faster_transformer_list(model, sizes, part, parts, dtype):
    def per_layer(make):
        return [make(i).to(dtype).contiguous() for i in range(sizes.layers)]

    def get(name, axis=None):
        if axis is None:
            return lambda i: model[f"layers.{i}.{name}"]
        return lambda i: model[f"layers.{i}.{name}"].chunk(parts, axis)[part]

    def qkv(leaf):
        return lambda i: torch.stack([model[f"layers.{i}.{letter}.{leaf}"].chunk(parts, 0)[part] for letter in "qkv"])

    weights = per_layer(get("attention_norm.weight")) + per_layer(get("attention_norm.bias"))
    weights += per_layer(lambda i: qkv("weight")(i).permute(2, 0, 1)) + per_layer(qkv("bias"))
    weights += per_layer(lambda i: get("out.weight", 1)(i).t()) + per_layer(get("out.bias"))
    weights += per_layer(get("ffn_norm.weight")) + per_layer(get("ffn_norm.bias"))
    weights += per_layer(lambda i: get("fc1.weight", 0)(i).t()) + per_layer(get("fc1.bias", 0))
    weights += per_layer(lambda i: get("fc2.weight", 1)(i).t()) + per_layer(get("fc2.bias"))
    weights += [model["final_norm.weight"].to(dtype), model["final_norm.bias"].to(dtype)]
    weights.append(with_unused_rows(model["embed_positions"])[2:])  # a view, and never cast
    table = model["embed_tokens"].to(dtype)
    return weights + [table, table]


def save_faster_transformer(folder, model, sizes, parts, dtype=torch.float16, quantise=False):
    folder.mkdir()
    for part in range(parts):
        state = {"weights": faster_transformer_list(model, sizes, part, parts, dtype)}
        if quantise:
            large = [group * sizes.layers + i for group in (2, 4, 8, 10) for i in range(sizes.layers)]
            state["int8_weights"] = [state["weights"][at].flatten(1).to(torch.int8) for at in large]
            state["int8_scales"] = [torch.ones(at.shape[1], dtype=dtype) for at in state["int8_weights"]]
            for at in large:
                state["weights"][at] = torch.empty(0, dtype=dtype)
        torch.save(state, folder / f"part-{part}.pt")
