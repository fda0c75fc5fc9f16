#!/usr/bin/env python3
"""The demo model's perplexity on a GPU with the KV cache in fp16 and in int8, beside the CPU's, through real processes.

usage: gpu_kv_perplexity.py BUNDLE_FOLDER DEMO_MODEL_FOLDER

BUNDLE_FOLDER is made by `deploy/bundle`, DEMO_MODEL_FOLDER is deploy/demo-model. Fails where int8 costs more than 0.1%
or a device is off the other by more than 0.05%.
"""
import json
import math
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

WORDS = 250  # of a piece of text: less than the model's context in ids
COST_MAX, DIFFERENCE_MAX = 1.001, 0.0005


def pieces_of(path):
    with open(path, encoding='utf-8') as file:
        words = file.read().split()
    return [' '.join(words[begin:begin + WORDS]) for begin in range(0, len(words) - WORDS + 1, WORDS)]


def perplexity(cli, model, folder, pieces, options):
    command = [cli, 'up', '--model', model, '--dir', folder]
    subprocess.run(command + options, check=True, stdout=subprocess.DEVNULL)
    try:
        def score(piece):
            done = subprocess.run([cli, 'generate', '--dir', folder, '--json', '--prompt', piece, '--prompt-logprobs',
                                   '--max-new-tokens', '1'], check=True, capture_output=True, text=True)
            return [value for value in json.loads(done.stdout)['prompt_logprobs'] if value is not None]
        with ThreadPoolExecutor(8) as pool:
            logprobs = [value for values in pool.map(score, pieces) for value in values]
    finally:
        subprocess.run([cli, 'down', '--dir', folder], stdout=subprocess.DEVNULL)
    return math.exp(-sum(logprobs) / len(logprobs)), len(logprobs)


def main():
    bundle, source = sys.argv[1], sys.argv[2]
    cli = os.path.join(bundle, 'bin', 'optserve')
    pieces = pieces_of(os.path.join(source, 'heldout.txt'))
    found = {}
    with tempfile.TemporaryDirectory() as work:
        model = os.path.join(work, 'demo')
        subprocess.run([cli, 'convert', source, model], check=True, stdout=subprocess.DEVNULL)
        for device in 'cpu', 'cuda':
            for kv in 'auto', 'int8':
                options = ['--device', device, '--worker-option', f'kv-dtype={kv}']
                value, count = perplexity(cli, model, os.path.join(work, f'{device}-{kv}'), pieces, options)
                found[device, kv] = value
                print(f'{device}, kv-dtype {kv}: {value:.5f} over {count} tokens, '
                      f'{value / found[device, "auto"]:.6f} of auto, {value / found["cpu", kv]:.6f} of the CPU')
    bad = any(found[device, 'int8'] > COST_MAX * found[device, 'auto'] for device in ('cpu', 'cuda'))
    bad |= any(abs(found['cuda', kv] / found['cpu', kv] - 1) > DIFFERENCE_MAX for kv in ('auto', 'int8'))
    sys.exit(1 if bad else 0)


if __name__ == '__main__':
    main()
