"""Converts a synthetic checkpoint of more than 4 GB and holds the peak memory to 3 x the largest tensor + 200 MB.

usage: checkpoint_memory.py CONVERT_TOOL [FOLDER_FOR_ABOUT_9_GB]
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy

import metaseq_files

HIDDEN, FFN, VOCAB, POSITIONS, LAYERS, PARTS = 4096, 16384, 50272, 2048, 10, 2
PATTERN = (numpy.arange(1 << 20, dtype=numpy.uint32) * 2654435761 >> 18 & 0x3BFF).astype(numpy.uint16).view("f2")


def pieces(shape):
    """Pseudo-random finite halves, made a megabyte at a time."""
    left = int(numpy.prod(shape))
    while left > 0:
        count = min(left, PATTERN.size)
        yield PATTERN[:count]
        left -= count


def shapes_of_part(layers):
    shapes = {"decoder.embed_tokens.weight": (VOCAB // PARTS, HIDDEN),
              "decoder.embed_positions.weight": (POSITIONS + 2, HIDDEN),
              "decoder.layer_norm.weight": (HIDDEN,), "decoder.layer_norm.bias": (HIDDEN,)}
    for layer in range(layers):
        leaves = {"self_attn.qkv_proj.weight": (3 * HIDDEN // PARTS, HIDDEN),
                  "self_attn.qkv_proj.bias": (3 * HIDDEN // PARTS,),
                  "self_attn.out_proj.weight": (HIDDEN, HIDDEN // PARTS), "self_attn.out_proj.bias": (HIDDEN,),
                  "self_attn_layer_norm.weight": (HIDDEN,), "self_attn_layer_norm.bias": (HIDDEN,),
                  "fc1.weight": (FFN // PARTS, HIDDEN), "fc1.bias": (FFN // PARTS,),
                  "fc2.weight": (HIDDEN, FFN // PARTS), "fc2.bias": (HIDDEN,),
                  "final_layer_norm.weight": (HIDDEN,), "final_layer_norm.bias": (HIDDEN,)}
        shapes.update({f"decoder.layers.{layer}.{leaf}": shape for leaf, shape in leaves.items()})
    return shapes


def write_source(folder, layers):
    """Writes the parts of a Metaseq checkpoint and returns their bytes."""
    folder.mkdir()
    for part in range(PARTS):
        tensors = {name: ("float16", shape, pieces(shape)) for name, shape in shapes_of_part(layers).items()}
        metaseq_files.write_pt(folder / f"reshard-model_part-{part}.pt", tensors,
                               {"decoder_attention_heads": 32, "activation_fn": "relu"})
    return sum(path.stat().st_size for path in folder.iterdir())


def measure(tool, source, target, *options):
    begin = time.time()
    done = subprocess.run([tool, "convert", str(source), str(target), *options], capture_output=True, text=True)
    seconds = time.time() - begin
    if done.returncode != 0:
        sys.exit(f"FAILED: {done.stderr}")
    peak_mib = int(done.stdout.split("peak_kib ")[1]) / 1024
    shutil.rmtree(target)
    return seconds, peak_mib


def main():
    parent = sys.argv[2] if len(sys.argv) > 2 else None
    folder = pathlib.Path(tempfile.mkdtemp(prefix="optserve-checkpoint-memory-", dir=parent))
    try:
        source = folder / "source"
        size = write_source(source, LAYERS)
        largest_mib = VOCAB * HIDDEN * 2 / 2 ** 20
        limit_mib = 3 * largest_mib + 200e6 / 2 ** 20
        print(f"input {size / 1e9:.2f} GB in {PARTS} parts, largest tensor {largest_mib:.0f} MiB, "
              f"limit {limit_mib:.0f} MiB")
        for options in (("--dtype", "keep"), ("--dtype", "bf16"), ("--quantize", "int8"), ("--quantize", "int4")):
            seconds, peak_mib = measure(sys.argv[1], source, folder / "target", *options)
            name = f"{options[0][2:]} {options[1]}"
            print(f"{name}: {seconds:.1f} s, {size / 1e6 / seconds:.0f} MB/s, peak {peak_mib:.1f} MiB")
            if size < 4e9 or peak_mib > limit_mib:
                sys.exit("FAILED: the peak exceeds the limit or the input is too small")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
