#!/usr/bin/env python3
"""The demo model's golden cases through real processes on GPUs, for each group size and type.

usage: gpu_demo_goldens.py BUNDLE_FOLDER DEMO_MODEL_FOLDER [WORLDS [WORKER_OPTION...]]

BUNDLE_FOLDER is made by `deploy/bundle`, DEMO_MODEL_FOLDER is deploy/demo-model, WORLDS is 1,2 by default, and
WORKER_OPTION is NAME=VALUE, by default max-sequences=16. All cases are submitted together. In fp32 the 64 greedy ids
must be the goldens'; in half precision a case whose smallest gap of the two best logits is below 0.01 may differ.
"""
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

TIE = {'fp32': 0.0, 'fp16': 0.01}


def main():
    bundle, source = sys.argv[1], sys.argv[2]
    worlds = [int(world) for world in (sys.argv[3] if len(sys.argv) > 3 else '1,2').split(',')]
    options = sys.argv[4:] or ['max-sequences=16']
    cli = os.path.join(bundle, 'bin', 'optserve')
    with open(os.path.join(source, 'golden.json')) as file:
        cases = json.load(file)['cases']
    bad = 0
    with tempfile.TemporaryDirectory() as work:
        model = os.path.join(work, 'demo')
        subprocess.run([cli, 'convert', source, model], check=True, stdout=subprocess.DEVNULL)
        for world in worlds:
            for dtype, tie in TIE.items():
                folder = os.path.join(work, f'stack-{world}-{dtype}')
                subprocess.run([cli, 'up', '--model', model, '--world', str(world), '--device', 'cuda', '--dir', folder,
                                *(f'--worker-option={option}' for option in [f'dtype={dtype}', *options])],
                               check=True, stdout=subprocess.DEVNULL)
                try:
                    def generate(case):
                        done = subprocess.run([cli, 'generate', '--dir', folder, '--prompt', case['prompt'], '--json',
                                               '--temperature', '0', '--max-new-tokens', '64'],
                                              check=True, capture_output=True, text=True)
                        return json.loads(done.stdout)['ids']
                    with ThreadPoolExecutor(len(cases)) as pool:
                        found = list(pool.map(generate, cases))
                finally:
                    subprocess.run([cli, 'down', '--dir', folder], stdout=subprocess.DEVNULL)
                same = [ids == case['greedy_ids'] for ids, case in zip(found, cases)]
                excused = [case['smallest_top2_gap'] < tie for case in cases]
                wrong = sum(not s and not e for s, e in zip(same, excused))
                bad += wrong
                print(f'world {world}, {dtype}: {sum(same)} of {len(cases)} cases are the goldens, {wrong} wrong')
    sys.exit(1 if bad else 0)


if __name__ == '__main__':
    main()
