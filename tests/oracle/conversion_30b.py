"""Converts a checkpoint of OPT-30B's sizes, 60 GB in two parts, to int4; the peak memory stays below 2 GB.

usage: conversion_30b.py CONVERT_TOOL [FOLDER_FOR_ABOUT_16_GB]

Each tensor begins with a megabyte of pseudo-random weights and ends with zeros that are holes of the file: they are
read and checked like others, but take no disk.
"""

import pathlib
import shutil
import sys
import tempfile

import numpy

import checkpoint_memory
import metaseq_files

LAYERS, HIDDEN, FFN, HEADS = 48, 7168, 28672, 56
LIMIT_MIB = 2e9 / 2 ** 20
ZEROS = numpy.zeros(8 << 20, numpy.float16)


def pieces(shape):
    left = int(numpy.prod(shape))
    first = checkpoint_memory.PATTERN[:left]
    yield first
    left -= first.size
    while left > 0:
        count = min(left, ZEROS.size)
        yield ZEROS[:count]
        left -= count


def write_source(folder):
    folder.mkdir()
    for part in range(checkpoint_memory.PARTS):
        shapes = checkpoint_memory.shapes_of_part(LAYERS, HIDDEN, FFN)
        tensors = {name: ("float16", shape, pieces(shape)) for name, shape in shapes.items()}
        file = metaseq_files.SparseFile(folder / f"reshard-model_part-{part}.pt")
        metaseq_files.write_pt(file, tensors, {"decoder_attention_heads": HEADS, "activation_fn": "relu"})
        file.close()
    return sum(path.stat().st_size for path in folder.iterdir())


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="optserve-conversion-30b-",
                                           dir=sys.argv[2] if len(sys.argv) > 2 else None))
    try:
        size = write_source(folder / "source")
        seconds, peak_mib = checkpoint_memory.measure(sys.argv[1], "convert", folder / "source", folder / "target",
                                                      "--quantize", "int4")
        print(f"{size / 1e9:.1f} GB in {seconds:.0f} s, {size / 1e6 / seconds:.0f} MB/s of input, peak "
              f"{peak_mib:.0f} MiB, limit {LIMIT_MIB:.0f} MiB")
        if size < 59e9 or peak_mib > LIMIT_MIB:
            sys.exit("FAILED: the peak exceeds the limit or the input is too small")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
