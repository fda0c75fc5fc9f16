"""Conversions that are killed or cancelled at random moments and started again, one or several side by side, until
they are done: no finished shard is written again, the result is that of an undisturbed conversion, nothing else
is left.

usage: resume_test.py CONVERTER [ROUNDS [SEED]]
"""

import hashlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import building

ATTEMPTS_MAX = 60
CANCELLED = 130
PASS_MIB = 20  # about one shard of the model below


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def start(converter, source, target, *options):
    return subprocess.Popen([converter, "convert", str(source), str(target), "--name", "model", "--progress=false",
                             "--pass-mib-max", str(PASS_MIB), *options],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished_shards(target):
    """Inode and time of the shards that have a record."""
    staging = target.parent / f".{target.name}.staging"
    found = {}
    for shard in (*staging.glob("checkpoint/shard-*"), *target.glob("shard-*")):
        if (staging / f"{shard.name[:len('shard-000')]}.json").exists():
            state = shard.stat()
            found[shard.name] = (state.st_ino, state.st_mtime_ns)
    return found


def check_kept(target, before):
    """Shards that were finished before are the same files, in the staging folder or published."""
    place = target if target.exists() else target.parent / f".{target.name}.staging/checkpoint"
    for name, state in before.items():
        now = (place / name).stat()
        if (now.st_ino, now.st_mtime_ns) != state:
            sys.exit(f"FAILED: {name} was finished and was written again")


def one_attempt(converter, source, target, dice, seconds, processes):
    """Starts converters and ends each at a moment of its own; true if one was done before."""
    running = [start(converter, source, target) for _ in range(processes)]
    kills = sorted((dice.uniform(0, seconds), process) for process in running)
    begin = time.monotonic()
    done = False
    for moment, process in kills:
        try:
            output = process.communicate(timeout=max(0, begin + moment - time.monotonic()))[0]
        except subprocess.TimeoutExpired:
            process.send_signal(dice.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
            output = process.communicate()[0]
        if process.returncode not in (0, -signal.SIGKILL, -signal.SIGTERM, CANCELLED):
            sys.exit(f"FAILED: a converter ended with {process.returncode}: {output}")
        done = done or process.returncode == 0
    return done


def one_round(converter, source, root, expected, seconds, dice):
    target = root / "out" / "model"
    target.parent.mkdir()
    kept, attempts, resumed = {}, 0, 0
    processes = dice.choice((1, 1, 2, 3))
    while not one_attempt(converter, source, target, dice, 0.6 * seconds, processes):
        attempts += 1
        if attempts > ATTEMPTS_MAX:
            sys.exit(f"FAILED: not done after {ATTEMPTS_MAX} attempts")
        check_kept(target, kept)
        kept = finished_shards(target) or kept
        resumed += len(kept) > 0
    # A process that was killed after the checkpoint was published may have left its folder; the same command removes
    # it.
    last = start(converter, source, target)
    output = last.communicate()[0]
    if last.returncode != 0 or "written before" not in output:
        sys.exit(f"FAILED: the same command again ended with {last.returncode}: {output}")
    check_kept(target, kept)
    if digests(target) != expected:
        sys.exit("FAILED: other bytes than those of an undisturbed conversion")
    if (left := [path.name for path in target.parent.iterdir() if path != target]):
        sys.exit(f"FAILED: left beside the checkpoint: {left}")
    shutil.rmtree(target.parent)
    print(f"ok: {processes} at a time, {attempts} attempts ended, {resumed} of them with finished shards", flush=True)
    return resumed


def run(converter, root, rounds, seed):
    source, reference = root / "in", root / "reference"
    source.mkdir()
    building.HIDDEN, building.FFN, building.VOCAB, building.HEADS = 1024, 4096, 60_000, 16
    building.PtModel().write(source)
    for _ in range(2):  # the second time everything is in the page cache
        shutil.rmtree(reference, ignore_errors=True)
        begin = time.monotonic()
        if start(converter, source, reference).wait() != 0:
            sys.exit("FAILED: an undisturbed conversion")
        seconds = time.monotonic() - begin
    expected = digests(reference)
    dice = random.Random(seed)
    print(f"seed {seed}, an undisturbed conversion takes {seconds:.2f} s", flush=True)
    resumed = sum(one_round(converter, source, root, expected, seconds, dice) for _ in range(rounds))
    if resumed == 0:
        sys.exit("FAILED: no attempt found finished shards of another one")


def main():
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 6
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(1 << 32)
    root = pathlib.Path(tempfile.mkdtemp(prefix="optserve-resume-"))
    try:
        run(os.path.abspath(sys.argv[1]), root, rounds, seed)
    finally:
        shutil.rmtree(root)


main()
