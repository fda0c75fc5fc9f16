#!/usr/bin/env python3
"""Ranks of a GPU group that die or hang in the middle of jobs: the group ends, starts again, and every job finishes.

usage: gpu_faults.py BUNDLE_FOLDER MODEL_FOLDER WORLD [WORKER_OPTION...]

BUNDLE_FOLDER is made by `deploy/bundle`, MODEL_FOLDER by `optserve convert` or tests/bench/shape_only_model.py (the
worker gets random weights). Each case submits 32 jobs, hurts a rank, and waits for all jobs; it prints how long the
group took to end and to be ready again, and how many texts are those of the run without a fault. Exit status 1 if a job
does not finish with as many tokens as it asked for. WORKER_OPTION is NAME=VALUE, such as collectives=nccl.
"""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

JOBS = 32
STEP_DEADLINE_MS = 3000
LONG, SHORT = 'Once upon a time there was a king who had a daughter. ' * 60, 'Once upon a time'


class Stack:
    def __init__(self, bundle, model, world, more_options):
        self.cli = os.path.join(bundle, 'bin', 'optserve')
        self.folder = tempfile.mkdtemp()
        options = [f'step-deadline-ms={STEP_DEADLINE_MS}', 'random-weights=true', 'max-sequences=32',
                   'max-step-tokens=2048', f'tuning-cache={self.folder}/tuning', 'dtype=fp16', *more_options]
        arguments = [self.cli, 'up', '--model', model, '--world', str(world), '--device', 'cuda', '--dir', self.folder]
        for option in options:
            arguments += ['--worker-option', option]
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)

    def run(self, *arguments):
        done = subprocess.run([self.cli, *arguments, '--dir', self.folder], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f'optserve {arguments[0]}: {done.stderr.strip()}')
        return done.stdout

    def submit(self, prompt, tokens):
        return self.run('submit', '--prompt', prompt, '--max-new-tokens', str(tokens), '--temperature', '0',
                        '--ignore-eos').strip()

    def result(self, job):
        return json.loads(self.run('result', job, '--wait', '--wait-seconds', '120', '--json'))

    def rank(self, rank):
        pids = subprocess.run(['pgrep', '-f', f'optserve-worker.*--rank={rank}( |$)'], capture_output=True, text=True)
        return [int(pid) for pid in pids.stdout.split()]

    def down(self):
        subprocess.run([self.cli, 'down', '--dir', self.folder], stdout=subprocess.DEVNULL)


def run_case(stack, prompt, tokens, hurt):
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda i: stack.submit(f'{prompt} {i}', tokens), range(JOBS)))
        ended = None
        if hurt:
            rank, how, after = hurt
            time.sleep(after)
            victim = stack.rank(rank)[0]
            begin = time.monotonic()
            os.kill(victim, how)
            while victim in stack.rank(rank):
                time.sleep(0.02)
            ended = time.monotonic() - begin
        results = list(pool.map(stack.result, jobs))
    return results, ended


def main():
    bundle, model, world = sys.argv[1], sys.argv[2], int(sys.argv[3])
    stack = Stack(bundle, model, world, sys.argv[4:])
    bad = 0
    try:
        sample, _ = run_case(stack, SHORT, 8, None)
        print('a result:', json.dumps(sample[0])[:400])
        last = world - 1
        cases = [('decode', SHORT, 500, None), ('decode, rank 0 killed', SHORT, 500, (0, signal.SIGKILL, 0.3)),
                 ('decode, last rank killed', SHORT, 500, (last, signal.SIGKILL, 0.3)),
                 ('decode, last rank hung', SHORT, 500, (last, signal.SIGSTOP, 0.3)),
                 ('prefill', LONG, 3, None), ('prefill, last rank killed', LONG, 3, (last, signal.SIGKILL, 0.0))]
        whole = {}
        for name, prompt, tokens, hurt in cases:
            begin = time.monotonic()
            results, ended = run_case(stack, prompt, tokens, hurt)
            took = time.monotonic() - begin
            texts = [result['text'] for result in results]
            kind = name.split(',')[0]
            whole.setdefault(kind, texts)
            same = sum(a == b for a, b in zip(texts, whole[kind]))
            attempts = sorted({result.get('attempts') for result in results}, key=str)
            complete = sum(result['output_tokens'] == tokens for result in results)
            bad += JOBS - complete
            gone = '' if ended is None else f'the rank was gone after {ended:.2f} s, '
            print(f'{name}: {gone}{complete} of {JOBS} jobs complete after {took:.1f} s, attempts {attempts}, '
                  f'{same} texts as without a fault')
    finally:
        stack.down()
    sys.exit(1 if bad else 0)


if __name__ == '__main__':
    main()
