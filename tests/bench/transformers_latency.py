#!/usr/bin/env python3
"""Hugging Face transformers on the benchmark of `optserve bench latency`: 4-token prompts, 256 new tokens, greedy.

usage: transformers_latency.py OUT.jsonl [--models opt-125m,opt-1.3b,opt-6.7b] [--batches 1,64] [--static-batches 1]

Random fp16 weights of the published shapes. Eager, and with the static cache (which compiles the forward pass). One
line of JSON a measurement, in the shape that `optserve bench plot` reads.
"""
import argparse
import json
import time

import torch
from transformers import OPTConfig, OPTForCausalLM

SHAPES = {'opt-125m': (12, 768, 12), 'opt-1.3b': (24, 2048, 32), 'opt-2.7b': (32, 2560, 32), 'opt-6.7b': (32, 4096, 32),
          'opt-13b': (40, 5120, 40)}
INPUT_TOKENS, NEW_TOKENS, REPEATS = 4, 256, 2


def make_model(name):
    layers, hidden, heads = SHAPES[name]
    config = OPTConfig(num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads, ffn_dim=4 * hidden,
                       word_embed_proj_dim=hidden, vocab_size=50272, max_position_embeddings=2048)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float16)
    with torch.device('cuda'):
        return OPTForCausalLM(config).eval()


@torch.inference_mode()
def measure(model, batch, **options):
    ids = torch.randint(4, 50000, (batch, INPUT_TOKENS), device='cuda')
    ids[:, 0] = 2

    def run():
        torch.cuda.synchronize()
        begin = time.perf_counter()
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=NEW_TOKENS,
                             max_new_tokens=NEW_TOKENS, pad_token_id=1, **options)
        torch.cuda.synchronize()
        assert out.shape == (batch, INPUT_TOKENS + NEW_TOKENS)
        return time.perf_counter() - begin

    run()
    return min(run() for _ in range(REPEATS))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('out')
    parser.add_argument('--models', default='opt-125m,opt-1.3b,opt-6.7b')
    parser.add_argument('--batches', default='1,64')
    parser.add_argument('--static-batches', default='1')
    args = parser.parse_args()
    with open(args.out, 'w') as out:
        for name in args.models.split(','):
            model = make_model(name)
            for engine, batches, options in (('transformers-eager', args.batches, {}),
                                             ('transformers-static', args.static_batches,
                                              {'cache_implementation': 'static'})):
                for batch in [int(b) for b in batches.split(',') if b]:
                    took = measure(model, batch, **options)
                    row = {'engine': engine, 'model': name, 'dtype': 'fp16', 'tp': 1, 'batch': batch,
                           'in': INPUT_TOKENS, 'out': NEW_TOKENS, 'ms_per_token': round(took / NEW_TOKENS * 1e3, 4),
                           'qps': round(batch / took, 4), 'device': torch.cuda.get_device_name()}
                    print(json.dumps(row), file=out, flush=True)
                    print(json.dumps(row), flush=True)
            del model
            torch.cuda.empty_cache()


if __name__ == '__main__':
    main()
