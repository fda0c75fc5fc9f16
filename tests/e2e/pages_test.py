#!/usr/bin/env python3
"""Walks the commands of README.md, docs/first_five_minutes.md and docs/coming_from.md, line by line, as a new user
does: in a fresh folder with a checkpoint in checkpoints/opt-125m. Every line must succeed. Also tries every option
name that coming_from.md maps, and reads every example file of deploy/config.

usage: pages_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

# Lines that need the network, a compiler or a GPU; the build that is tested stands in for them.
SKIPPED = [r'^\./', r'^cmake ', r'^export PATH=', r'^git ']
# What is added to a line so that it does not collide with another stack on this machine, or take minutes.
ADDED = [(r'^optserve up (?!.*--ports)', ' --ports auto'),
         (r'^optserve bench latency ', ' --batches 1 --input-tokens 4 --output-tokens 8 --repeats 1')]
LIMIT_S = 120


def commands_of(page):
    """The lines of the page's shell blocks, without comments."""
    text = open(page, encoding='utf-8').read()
    for block in re.findall(r'```sh\n(.*?)```', text, flags=re.S):
        for line in block.splitlines():
            line = re.sub(r'\s+#.*$', '', line).strip()
            if line and not any(re.search(pattern, line) for pattern in SKIPPED):
                yield line


def api_url(folder):
    """Of the stack that a line has started in this folder, on ports of its own."""
    for path in pathlib.Path(folder).rglob('stack.json'):
        return json.loads(path.read_text(encoding='utf-8'))['api_url']
    return 'http://127.0.0.1:8000'


def run(line, folder, environment):
    line = line.replace('http://127.0.0.1:8000', api_url(folder))
    for pattern, addition in ADDED:
        if re.search(pattern, line):
            line += addition
    done = subprocess.run(['bash', '-c', line], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=LIMIT_S)
    print(f'[{done.returncode}] {line}')
    if done.returncode != 0:
        sys.exit(f'{line}\nended with {done.returncode}\n{done.stdout}{done.stderr}')
    return done.stdout


def walk(page, sources, environment):
    with tempfile.TemporaryDirectory(prefix='optserve-pages-') as folder:
        shutil.copytree(os.path.join(sources, 'deploy/demo-model'), os.path.join(folder, 'checkpoints/opt-125m'))
        lines = list(commands_of(page))
        if not lines:
            sys.exit(f'{page} has no commands')
        try:
            for line in lines:
                run(line, folder, environment)
        finally:
            subprocess.run(['optserve', 'down', '--now'], cwd=folder, env=environment, capture_output=True)


def check_names(page, environment):
    """Each name of the table is accepted: the command only misses its scheduler."""
    rows = re.findall(r'^\| `(--[\w-]+)` \|[^|]*\| `(--[\w-]+)` \|$', open(page, encoding='utf-8').read(), flags=re.M)
    if len(rows) < 10:
        sys.exit(f'{page}: expected a table of option names, found {len(rows)} rows')
    for theirs, ours in rows:
        for name in (theirs, ours):
            tried = subprocess.run(['optserve', 'generate', 'x', name, '1', '--scheduler', 'tcp://127.0.0.1:9',
                                    '--timeout-ms', '1'], env=environment, capture_output=True, text=True)
            if tried.returncode not in (1, 3) or 'unknown option' in tried.stderr:
                sys.exit(f'{name}: {tried.stderr}')


def check_examples(sources, environment):
    """The programs accept the example files: a wrong one would end them with status 78 and its name."""
    folder = os.path.join(sources, 'deploy/config')
    arguments = {'optserve': (['generate', 'x', '--scheduler', 'tcp://127.0.0.1:9'], 3),
                 'optserve-converter': (['serve', '--http-port', '70000'], 2)}
    for name in sorted(os.listdir(folder)):
        program = name.removesuffix('.yaml')
        # With a port out of range, a service ends after it has read the file and before it starts.
        command, expected = arguments.get(program, (['--http-port', '70000'], 2))
        tried = subprocess.run([program, '--config', os.path.join(folder, name), *command], env=environment,
                               capture_output=True, text=True, timeout=LIMIT_S)
        if tried.returncode != expected:
            sys.exit(f'{name}: {program} ended with {tried.returncode}: {tried.stderr}')
        print(f'{name}: accepted')


def main():
    programs, sources = (os.path.abspath(argument) for argument in sys.argv[1:3])
    environment = {name: value for name, value in os.environ.items() if not name.startswith('OPTSERVE_')}
    environment['PATH'] = programs + ':' + environment['PATH']
    check_names(os.path.join(sources, 'docs/coming_from.md'), environment)
    check_examples(sources, environment)
    for page in ('README.md', 'docs/first_five_minutes.md', 'docs/coming_from.md'):
        walk(os.path.join(sources, page), sources, environment)


main()
