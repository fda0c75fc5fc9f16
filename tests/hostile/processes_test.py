"""What is left when the reader of a checkpoint or the converter itself is killed in the middle: nothing. And the cage
changes no byte of a conversion.

usage: processes_test.py CONVERTER
"""

import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import building

PATIENCE_SECONDS = 60


def expect(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what}")


def wait_for(condition, what):
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        if time.monotonic() > end:
            sys.exit(f"FAILED: {what} did not happen within {PATIENCE_SECONDS} s")
        time.sleep(0.001)
    return found


def child_of(pid):
    try:
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        name = pathlib.Path(f"/proc/{children[0]}/comm").read_text() if children else ""
    except OSError:
        return None
    return int(children[0]) if name.startswith("optserve-checkp") else None


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def start(converter, source, target, *options):
    return subprocess.Popen([converter, "convert", str(source), str(target), "--progress=false", *options],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def start_and_stop_reader(converter, source, target):
    """A conversion whose reader stands still in the middle."""
    process = start(converter, source, target, "--sandbox", "require")
    reader = wait_for(lambda: child_of(process.pid), "a reader")
    wait_for(lambda: list(target.parent.glob(".*staging*")), "a staging folder")
    os.kill(reader, signal.SIGSTOP)
    return process, reader


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("shard-*")}


def run(converter, root):
    source, target = root / "in", root / "out" / "model"
    source.mkdir()
    target.parent.mkdir()
    building.HIDDEN, building.FFN, building.VOCAB, building.HEADS = 1024, 4096, 60_000, 16
    building.PtModel().write(source)

    process, reader = start_and_stop_reader(converter, source, target)
    os.kill(reader, signal.SIGKILL)
    output = process.communicate()[0]
    expect(process.returncode == 1 and "was killed by signal 9" in output,
           f"a killed reader is told of: {output.strip()}")
    expect(list(target.parent.iterdir()) == [], "a killed reader leaves no model and no staging folder")

    process, reader = start_and_stop_reader(converter, source, target)
    process.kill()
    process.communicate()
    wait_for(lambda: not is_alive(reader), "the end of the reader after that of its converter")
    expect(not target.exists(), "a killed converter ends its reader and publishes no half model")
    shutil.rmtree(target.parent)
    target.parent.mkdir()

    process, reader = start_and_stop_reader(converter, source, target)
    process.terminate()
    os.kill(reader, signal.SIGCONT)
    process.communicate()
    expect(process.returncode == 130 and not is_alive(reader), "a conversion that is cancelled ends its reader")
    expect(list(target.parent.iterdir()) == [], "and leaves nothing")

    process = start(converter, source, target, "--sandbox", "require", "--reader-seconds", "1")
    reader = wait_for(lambda: child_of(process.pid), "a reader")
    wait_for(lambda: list(target.parent.glob(".*staging*")), "a staging folder")
    os.kill(reader, signal.SIGSTOP)
    output = process.communicate()[0]
    expect(process.returncode == 1 and "gave no answer for 1 s" in output,
           f"a reader that hangs is ended: {output.strip()}")
    expect(list(target.parent.iterdir()) == [], "and leaves nothing")

    found = []
    for sandbox in ("require", "off"):
        process = start(converter, source, root / sandbox, "--sandbox", sandbox)
        expect(process.wait() == 0, f"--sandbox {sandbox} converts")
        found.append(digests(root / sandbox))
    expect(len(found[0]) == 8 and found[0] == found[1], "the same shards with and without the cage")
    process = start(converter, source, target, "--sandbox", "maybe")
    expect("expected require, try or off" in process.communicate()[0], "another mode is refused")


def main():
    root = pathlib.Path(tempfile.mkdtemp(prefix="optserve-reader-"))
    try:
        run(os.path.abspath(sys.argv[1]), root)
    finally:
        shutil.rmtree(root)


main()
