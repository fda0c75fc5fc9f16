#!/usr/bin/env python3
"""The demo model's perplexity on a GPU in every weight format and with an int8 KV cache, beside the CPU's, through real
processes.

usage: gpu_perplexity.py BUNDLE_FOLDER DEMO_MODEL_FOLDER [--devices cpu,cuda]

BUNDLE_FOLDER is made by `deploy/bundle`, DEMO_MODEL_FOLDER is deploy/demo-model. Fails where an int8 cache costs more
than 0.1%, or fp8 activations more than 1%, or a device is off the first one by more than 0.05% in the same format.
"""
import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

WORDS = 250  # of a piece of text: less than the model's context in ids
KV_COST_MAX, ROUNDING_COST_MAX, DIFFERENCE_MAX = 1.001, 1.01, 0.0005
# Weights, KV cache, whether activations are rounded to fp8 too: always on the CPU, where it is faster on a GPU.
CASES = (('none', 'auto', False), ('none', 'int8', False), ('int8', 'auto', False), ('fp8', 'auto', False),
         ('fp8', 'auto', True), ('int4', 'auto', False))


def pieces_of(path):
    with open(path, encoding='utf-8') as file:
        words = file.read().split()
    return [' '.join(words[begin:begin + WORDS]) for begin in range(0, len(words) - WORDS + 1, WORDS)]


def perplexity(cli, model, folder, pieces, options):
    command = [cli, 'up', '--model', model, '--dir', folder, '--ports', 'auto']
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
    parser = argparse.ArgumentParser()
    parser.add_argument('bundle')
    parser.add_argument('source')
    parser.add_argument('--devices', default='cpu,cuda')
    arguments = parser.parse_args()
    cli = os.path.join(arguments.bundle, 'bin', 'optserve')
    pieces = pieces_of(os.path.join(arguments.source, 'heldout.txt'))
    bad = False
    with tempfile.TemporaryDirectory() as work:
        for quantise in sorted({quantise for quantise, _, _ in CASES}):
            subprocess.run([cli, 'convert', arguments.source, os.path.join(work, quantise), '--quantize', quantise],
                           check=True, stdout=subprocess.DEVNULL)
        first = {}
        for device in arguments.devices.split(','):
            plain = None
            for quantise, kv, rounds in CASES:
                options = ['--device', device, '--worker-option', f'kv-dtype={kv}', '--worker-option',
                           f'fp8-activations={str(rounds).lower()}']
                value, count = perplexity(cli, os.path.join(work, quantise),
                                          os.path.join(work, f'{device}-{quantise}-{kv}-{rounds}'), pieces, options)
                plain = plain or value
                of_first = value / first.setdefault((quantise, kv, rounds), value)
                name = f'{device}, weights {quantise}, kv-dtype {kv}' + (', fp8 activations' if rounds else '')
                print(f'{name}: {value:.5f} over {count} tokens, {value / plain:.6f} of the plain model, '
                      f'{of_first:.6f} of the first device', flush=True)
                bad |= value > ROUNDING_COST_MAX * plain if rounds else abs(of_first - 1) > DIFFERENCE_MAX
                bad |= kv == 'int8' and value > KV_COST_MAX * plain
    sys.exit(1 if bad else 0)


if __name__ == '__main__':
    main()
