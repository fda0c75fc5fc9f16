#!/usr/bin/env python3
"""OPT's forward pass in NumPy, written from the model's definition and from nothing of the engine's: a test oracle.

usage: opt_reference.py CHECKPOINT_FOLDER CASES.json

Reads the shards of a checkpoint, joins them, computes log-probabilities in float64 for the sequences of CASES.json
(written by logits_dump: {"groups": {name: [{"tokens", "prompt_tokens", "logprobs"}]}}), where logprobs[i] belongs to
tokens[i + 1] and tokens beyond prompt_tokens were drawn greedily. Exit status 1 if a log-probability is off by more
than rounding in float32 explains, or a greedy token is not the best one.
"""
import json
import struct
import sys
from pathlib import Path

import numpy as np

STORED = {'F32': np.dtype('<f4'), 'F16': np.dtype('<f2')}


def read_safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack('<Q', data[:8])
    header = json.loads(data[8:8 + length])
    header.pop('__metadata__', None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry['data_offsets']
        raw = np.frombuffer(data[8 + length + begin:8 + length + end], STORED[entry['dtype']])
        tensors[name] = raw.reshape(entry['shape']).astype(np.float64)
    return tensors


def join(name, blocks):
    """The whole tensor from the blocks of all shards."""
    if '.qkv.' in name:  # each shard stacks its own q, k and v rows
        parts = [np.split(block, 3) for block in blocks]
        return np.concatenate([part[i] for i in range(3) for part in parts])
    if name.startswith(('embed_tokens', 'output_projection')) or '.up.' in name:
        return np.concatenate(blocks)
    if name.endswith(('.out.weight', '.down.weight')):
        return np.concatenate(blocks, axis=1)
    for block in blocks[1:]:
        assert np.array_equal(block, blocks[0]), f'{name} differs between shards'
    return blocks[0]


def load(folder):
    config = json.loads((folder / 'manifest.json').read_text())['config']
    shards = [read_safetensors(path) for path in sorted(folder.glob('shard-*.safetensors'))]
    return config, {name: join(name, [shard[name] for shard in shards]) for name in shards[0]}


def layer_norm(x, weights, name):
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + 1e-5) * weights[name + '.weight'] + weights[name + '.bias']


def linear(x, weights, name):
    return x @ weights[name + '.weight'].T + weights[name + '.bias']


def attention(x, weights, prefix, num_heads):
    length, hidden = x.shape
    q, k, v = np.split(linear(x, weights, prefix + 'attention.qkv'), 3, axis=1)
    width = hidden // num_heads
    out = np.empty_like(x)
    visible = np.tril(np.ones((length, length), bool))
    for head in range(num_heads):
        part = slice(head * width, (head + 1) * width)
        scores = np.where(visible, (q[:, part] * width ** -0.5) @ k[:, part].T, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, part] = scores / scores.sum(-1, keepdims=True) @ v[:, part]
    return linear(out, weights, prefix + 'attention.out')


def feed_forward(x, weights, prefix):
    return linear(np.maximum(linear(x, weights, prefix + 'ffn.up'), 0), weights, prefix + 'ffn.down')


def logits(config, weights, tokens):
    x = weights['embed_tokens.weight'][tokens]
    if 'project_in.weight' in weights:
        x = x @ weights['project_in.weight'].T
    x = x + weights['embed_positions.weight'][:len(tokens)]
    for layer in range(config['num_layers']):
        prefix = f'layers.{layer}.'
        if config['norm_before']:
            x = x + attention(layer_norm(x, weights, prefix + 'attention_norm'), weights, prefix, config['num_heads'])
            x = x + feed_forward(layer_norm(x, weights, prefix + 'ffn_norm'), weights, prefix)
        else:
            x = layer_norm(x + attention(x, weights, prefix, config['num_heads']), weights, prefix + 'attention_norm')
            x = layer_norm(x + feed_forward(x, weights, prefix), weights, prefix + 'ffn_norm')
    if config['norm_before']:
        x = layer_norm(x, weights, 'final_norm')
    if 'project_out.weight' in weights:
        x = x @ weights['project_out.weight'].T
    table = weights['embed_tokens.weight' if config['tied_output'] else 'output_projection.weight']
    return (x @ table.T)[:, :config['vocab_real']]


def check_case(config, weights, case, name):
    """Largest error over its bound, and what is wrong."""
    tokens = np.array(case['tokens'])
    rows = logits(config, weights, tokens[:-1])
    top = rows.max(-1, keepdims=True)
    logprobs = rows - top - np.log(np.exp(rows - top).sum(-1, keepdims=True))
    expected = logprobs[np.arange(len(tokens) - 1), tokens[1:]]
    error = np.abs(np.array(case['logprobs']) - expected)
    # A float32 logit is a sum of `embed_dim` rounded products of numbers that went through all layers. Each operation
    # contributes some 2^-24 of the size of its row; errors add up like a random walk over the depth and the width.
    scale = np.abs(rows).max(-1)
    bound = 2 ** -24 * 64 * (1 + scale)
    faults = []
    worst = int((error / bound).argmax())
    if not np.all(error <= bound):
        faults.append(f'{name}: position {worst + 1}: expected log p {expected[worst]:.7f} within {bound[worst]:.1e}, '
                      f'found {case["logprobs"][worst]:.7f}')
    for position in range(case['prompt_tokens'], len(tokens)):
        row = rows[position - 1].copy()
        row[config['pad_id']] = -np.inf
        if row[tokens[position]] < row.max() - 2 * bound[position - 1]:
            faults.append(f'{name}: position {position}: drew {tokens[position]}, the best is {int(row.argmax())}')
    return float((error / bound).max()), float(error.max()), faults


def main():
    config, weights = load(Path(sys.argv[1]))
    faults = []
    for group, cases in json.loads(Path(sys.argv[2]).read_text())['groups'].items():
        results = [check_case(config, weights, case, f'{group} case {i}') for i, case in enumerate(cases)]
        faults += [fault for result in results for fault in result[2]]
        print(f'{config["name"]} {group}: {len(cases)} sequences, largest error {max(r[1] for r in results):.2e}, '
              f'{max(r[0] for r in results):.2f} of its bound')
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
