"""Speed of conversions against cp of the same bytes on the same disk, in one run.

usage: conversion_speed.py CONVERT_TOOL [FOLDER_FOR_ABOUT_5_GB] [ROUNDS]

The source is synthetic, 2.5 GB, just written and so mostly in the page cache. Both sides end with their bytes on the
disk: cp is followed by sync of the file system, a conversion syncs its files itself. Rounds interleave, medians count.
"""

import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import checkpoint_memory

LAYERS = 5


def copy(source, target):
    begin = time.time()
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    copied = time.time()
    subprocess.run(["sync", "-f", str(target)], check=True)
    end = time.time()
    shutil.rmtree(target)
    return copied - begin, end - begin


def main():
    tool = sys.argv[1]
    folder = pathlib.Path(tempfile.mkdtemp(prefix="optserve-conversion-speed-",
                                           dir=sys.argv[2] if len(sys.argv) > 2 else None))
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    kinds = {"as the input": ()}
    kinds.update({name: ("--quantize", name) for name in ("int8", "int8-mse", "fp8", "int4")})
    peaks = {}
    seconds = {name: [] for name in ("cp", "cp, sync", *kinds)}
    try:
        source = folder / "source"
        size = checkpoint_memory.write_source(source, LAYERS)
        subprocess.run(["sync", "-f", str(source)], check=True)
        for _ in range(rounds):
            copied, synced = copy(source, folder / "target")
            seconds["cp"].append(copied)
            seconds["cp, sync"].append(synced)
            for name, options in kinds.items():
                took, peaks[name] = checkpoint_memory.measure(tool, "convert", source, folder / "target", *options)
                seconds[name].append(took)
                shutil.rmtree(folder / "target")
    finally:
        shutil.rmtree(folder)
    base = statistics.median(seconds["cp, sync"])
    print(f"input {size / 1e9:.2f} GB, {rounds} rounds")
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(f"{name:14} {middle:6.2f} s ({min(values):.2f} to {max(values):.2f})  "
              f"{size / 1e6 / middle:6.0f} MB/s of input  "
              f"{base / middle:.2f} of cp with sync"
              + (f", peak {peaks[name]:.0f} MiB" if name in peaks else ""))


if __name__ == "__main__":
    main()
