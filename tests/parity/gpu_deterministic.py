#!/usr/bin/env python3
"""Deterministic mode through real processes on GPUs: the same ids and the same log-probabilities, to the last bit, for
jobs that run alone, all together, and on workers that cut steps otherwise.

usage: gpu_deterministic.py BUNDLE_FOLDER CHECKPOINT TEXT [--world N] [--jobs N] [--seed N]
           [--draft-model FOLDER] [--worker-option NAME=VALUE]...

CHECKPOINT has a tokenizer. Prompts are pieces of TEXT of 1 to 300 words; most are sampled. The last lines say how many
jobs differ without the mode, which shows that there was something to be found.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

# Of steps, all with the same answer: whole prompts, many chunks, everything computed, guesses and kept prefixes.
WORKERS = {'plain': ['max-step-tokens=2048', 'draft-tokens=0', 'prefix-cache=false'],
           'chunks': ['max-step-tokens=96', 'draft-tokens=0', 'prefix-cache=false', 'max-sequences=24'],
           'all': ['max-step-tokens=512', 'draft-tokens=7', 'prefix-cache=true']}


def make_jobs(text, count, draw):
    words = text.split()
    jobs = []
    for number in range(count):
        begin = draw.randrange(len(words) - 300)
        prompt = ' '.join(words[begin:begin + draw.choice([1, 5, 20, 60, 150, 300])])
        job = ['--prompt', prompt, '--max-new-tokens', str(draw.randint(1, 64)), '--logprobs', '0', '--ignore-eos']
        job += draw.choice([['--temperature', '0'], ['--temperature', '1', '--seed', str(number)],
                            ['--temperature', '0.9', '--top-k', '40', '--repetition-penalty', '1.2',
                             '--seed', str(number)]])
        jobs.append(job)
    return jobs


class Stack:
    def __init__(self, arguments, folder, options):
        self.cli = os.path.join(arguments.bundle, 'bin', 'optserve')
        self.folder = folder
        command = [self.cli, 'up', '--model', arguments.checkpoint, '--world', str(arguments.world), '--device', 'cuda',
                   '--dir', folder]
        for option in options + arguments.worker_option:
            command += ['--worker-option', option]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run([self.cli, 'down', '--dir', self.folder], stdout=subprocess.DEVNULL)

    def run(self, job):
        done = subprocess.run([self.cli, 'generate', '--dir', self.folder, '--json', *job], capture_output=True,
                              text=True)
        if done.returncode != 0:
            sys.exit('FAILED: ' + done.stderr)
        result = json.loads(done.stdout)
        return result['ids'], result['logprobs']

    def run_all(self, jobs):
        with ThreadPoolExecutor(len(jobs)) as pool:
            return list(pool.map(self.run, jobs))


def differing(expected, found):
    return sum(a != b for a, b in zip(expected, found))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('bundle')
    parser.add_argument('checkpoint')
    parser.add_argument('text')
    parser.add_argument('--world', type=int, default=1)
    parser.add_argument('--jobs', type=int, default=48)
    parser.add_argument('--seed', type=int, default=random.randrange(2 ** 32))
    parser.add_argument('--draft-model', help='folder of a checkpoint, for one more worker that guesses with it')
    parser.add_argument('--worker-option', action='append', default=[])
    arguments = parser.parse_args()
    print('seed', arguments.seed)
    draw = random.Random(arguments.seed)
    with open(arguments.text, encoding='utf-8') as file:
        jobs = make_jobs(file.read(), arguments.jobs, draw)
    workers = dict(WORKERS)
    if arguments.draft_model:
        workers['draft model'] = ['draft-tokens=0', 'draft-model=' + arguments.draft_model]
    wrong, expected = 0, None
    with tempfile.TemporaryDirectory() as work:
        for name, options in workers.items():
            with Stack(arguments, os.path.join(work, name), options + ['deterministic=true']) as stack:
                if expected is None:
                    expected = [stack.run(job) for job in jobs]
                order = list(range(len(jobs)))
                draw.shuffle(order)
                found = stack.run_all([jobs[i] for i in order])
                count = differing([expected[i] for i in order], found)
                print(f'{name}, all together: {count} of {len(jobs)} jobs differ from those that ran alone')
                wrong += count
        with Stack(arguments, os.path.join(work, 'fast'), WORKERS['all']) as stack:
            count = differing([stack.run(job) for job in jobs], stack.run_all(jobs))
            print(f'without the mode: {count} of {len(jobs)} jobs differ')
    sys.exit(1 if wrong else 0)


if __name__ == '__main__':
    main()
