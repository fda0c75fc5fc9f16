#!/usr/bin/env python3
"""A checkpoint folder with a manifest and a tokenizer but no weights, to drive a whole pipeline with random weights.

usage: shape_only_model.py FOLDER NAME LAYERS HIDDEN HEADS TOKENIZER_FOLDER

`optserve bench latency --model NAME=FOLDER --random-weights --through pipeline` runs with it: the tokenizer reads the
vocabulary, the worker only the shape. TOKENIZER_FOLDER has gpt2-vocab.json and gpt2-merges.txt.
"""
import hashlib
import json
import shutil
import sys
from pathlib import Path

SHARDS = 4  # groups of 1, 2 and 4 ranks


def entry(path):
    data = path.read_bytes()
    return {'name': path.name, 'bytes': len(data), 'sha256': hashlib.sha256(data).hexdigest()}


def main():
    folder, name, layers, hidden, heads, tokenizer = sys.argv[1:]
    folder = Path(folder)
    folder.mkdir(parents=True)
    files = []
    for file in ('gpt2-vocab.json', 'gpt2-merges.txt'):
        shutil.copy(Path(tokenizer) / file, folder)
        files.append(entry(folder / file))
    nothing = hashlib.sha256(b'').hexdigest()
    names = [f'shard-{i:03}-of-{SHARDS:03}.safetensors' for i in range(SHARDS)]
    absent = [{'name': name, 'bytes': 0, 'sha256': nothing} for name in names]
    config = {'activation': 'relu', 'bos_id': 2, 'embed_dim': int(hidden), 'eos_id': 2, 'ffn': 4 * int(hidden),
              'hidden': int(hidden), 'max_positions': 2048, 'name': name, 'norm_before': True, 'num_heads': int(heads),
              'num_layers': int(layers), 'pad_id': 1, 'tied_output': True, 'vocab': 50272, 'vocab_real': 50265}
    manifest = {'format': 'optserve-checkpoint', 'format_version': 1, 'created_by': 'shape_only_model.py',
                'config': config, 'dtype': 'F16', 'quantisation': 'none', 'shards': SHARDS,
                'tokenizer': {'vocab': 'gpt2-vocab.json', 'merges': 'gpt2-merges.txt'}, 'files': [*absent, *files],
                'source': {'layout': 'none: shape only', 'files': []}}
    (folder / 'manifest.json').write_text(json.dumps(manifest, indent=2))


if __name__ == '__main__':
    main()
