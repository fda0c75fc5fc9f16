"""Converts a synthetic checkpoint of more than 4 GB and exports it again; the peak memory stays below 3 x the largest
tensor + 200 MB. Files of more than 4 GB have zip64 fields that Python's own reader must agree with.

usage: checkpoint_memory.py CONVERT_TOOL [FOLDER_FOR_ABOUT_14_GB]
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile

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


def shapes_of_part(layers, hidden=HIDDEN, ffn=FFN):
    shapes = {"decoder.embed_tokens.weight": (VOCAB // PARTS, hidden),
              "decoder.embed_positions.weight": (POSITIONS + 2, hidden),
              "decoder.layer_norm.weight": (hidden,), "decoder.layer_norm.bias": (hidden,)}
    for layer in range(layers):
        leaves = {"self_attn.qkv_proj.weight": (3 * hidden // PARTS, hidden),
                  "self_attn.qkv_proj.bias": (3 * hidden // PARTS,),
                  "self_attn.out_proj.weight": (hidden, hidden // PARTS), "self_attn.out_proj.bias": (hidden,),
                  "self_attn_layer_norm.weight": (hidden,), "self_attn_layer_norm.bias": (hidden,),
                  "fc1.weight": (ffn // PARTS, hidden), "fc1.bias": (ffn // PARTS,),
                  "fc2.weight": (hidden, ffn // PARTS), "fc2.bias": (hidden,),
                  "final_layer_norm.weight": (hidden,), "final_layer_norm.bias": (hidden,)}
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


def measure(tool, command, source, target, *options):
    begin = time.time()
    done = subprocess.run([tool, command, str(source), str(target), *options], capture_output=True, text=True)
    seconds = time.time() - begin
    if done.returncode != 0:
        sys.exit(f"FAILED: {done.stderr}")
    return seconds, int(done.stdout.split("peak_kib ")[1]) / 1024


def digests(folder):
    return [entry["sha256"] for entry in json.loads((folder / "manifest.json").read_text())["files"]]


def check_export(tool, converted, folder, report, *options):
    """Writes and converts again; the shards must be the same."""
    out, again = folder / "export", folder / "again"
    report("export " + " ".join(options), *measure(tool, "export", converted, out, *options))
    for path in sorted(out.glob("*.pt")):
        with zipfile.ZipFile(path) as archive:
            largest = max(entry.header_offset for entry in archive.infolist())
            if archive.testzip() is not None or (len(list(out.glob("*.pt"))) == 1 and largest < 2 ** 32):
                sys.exit(f"FAILED: {path} has a wrong checksum or no offset beyond 32 bits")
    measure(tool, "convert", out, again, "--heads", "32")
    if digests(again) != digests(converted):
        sys.exit(f"FAILED: another conversion of {options} gives other shards")
    shutil.rmtree(out)
    shutil.rmtree(again)


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

        def report(what, seconds, peak_mib):
            print(f"{what}: {seconds:.1f} s, {size / 1e6 / seconds:.0f} MB/s, peak {peak_mib:.1f} MiB")
            if size < 4e9 or peak_mib > limit_mib:
                sys.exit("FAILED: the peak exceeds the limit or the input is too small")

        converted = folder / "target"
        for options in (("--dtype", "bf16"), ("--quantize", "int8"), ("--quantize", "int4")):
            report("convert " + " ".join(options), *measure(sys.argv[1], "convert", source, converted, *options))
            shutil.rmtree(converted)
        report("convert", *measure(sys.argv[1], "convert", source, converted))
        shutil.rmtree(source)
        check_export(sys.argv[1], converted, folder, report, "--format", "metaseq", "--parts", "1")
        check_export(sys.argv[1], converted, folder, report, "--format", "metaseq", "--parts", "4")
        check_export(sys.argv[1], converted, folder, report, "--format", "huggingface", "--file-mb-max", "2000")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
