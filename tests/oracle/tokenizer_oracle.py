#!/usr/bin/env python3
"""Compares optserve's tokenizer with Hugging Face's `tokenizers` package: equal ids on every line, and the text back.

    tests/oracle/tokenizer_oracle.py --dump build/bin/tokenizer_dump --venv /tmp/oracle
    tests/oracle/tokenizer_oracle.py --dump build/bin/tokenizer_dump --venv /tmp/oracle --bench

Needs the package, at the version PACKAGE: with --venv the script makes that virtual environment once, installs it there
with pip and runs itself in it. Exits with 77 (skipped, for ctest) where that is impossible.

Vocabularies: the demo model's, and OPT's own where --opt-tokenizer (or ../shared/tokenizer) holds gpt2-vocab.json and
gpt2-merges.txt. Lines: stories, Python sources, system texts, generated mixtures from --seed, and every code point
behind characters of each class. Exits with 1 and the first counterexample on any difference. --bench measures both
sides on the held-out stories, one thread each, in the same run, best pass by CPU time so that neighbours count less.
"""

import argparse
import array
import importlib.util
import os
import pathlib
import random
import struct
import subprocess
import sys
import sysconfig
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = ROOT / "deploy" / "demo-model"
PACKAGE = "tokenizers==0.23.3"
SKIPPED = 77
BATCH = 20_000  # lines handed over at a time

SCRIPTS = [  # ranges of letters, marks and digits that real text uses
    (0x20, 0x7E), (0xA0, 0x17F), (0x180, 0x24F), (0x250, 0x2FF), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x52F),
    (0x530, 0x58F), (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x10A0, 0x10FF), (0x1100, 0x11FF),
    (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x218F), (0x2190, 0x23FF), (0x2460, 0x27BF), (0x3000, 0x30FF),
    (0x3400, 0x34FF), (0x4E00, 0x9FFF), (0xA000, 0xA1FF), (0xAC00, 0xD7A3), (0xE000, 0xE0FF), (0xF900, 0xFAFF),
    (0xFE00, 0xFE0F), (0xFF00, 0xFFEF), (0x10000, 0x100FF), (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF), (0x20000, 0x200FF),
    (0xE0020, 0xE007F), (0x10FF00, 0x10FFFF),
]
EMOJI = ["\U0001F600", "\U0001F468\u200D\U0001F469\u200D\U0001F467", "\U0001F44D\U0001F3FD", "\U0001F1E9\U0001F1EA",
         "\u2764\uFE0F", "1\uFE0F\u20E3", "\U0001F3F4\U000E0067\U000E0062\U000E007F", "\u2615"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\u00A0", "\u2003", "\u3000", "\u0085", "\u2028", "\x0b", "\x1c",
          "\u200b", "\ufeff", " \n ", "\n\n\n", "        "]
WORDS = [
    "the", "Once", "upon", "HELLO", "don't", "we're", "I've", "she'll", "o'clock", "it's", "I'd", "I'm", "'S", "'T",
    "'re", "''s", "naïve", "Straße", "e\u0301tude", "日本語", "привет", "مرحبا", "שלום", "नमस्ते", "สวัสดี", "한국어", "</s>",
    "<s>", "<pad>", "<mask>", "<|endoftext|>", "madeupword0000", "3.14159", "1,000,000", "٣٤", "Ⅷ", "½", "²",
    "CamelCase", "http://x.org/?a=b&c=%20", "foo_bar", "x=[i*2 for i in y];", "#include <a.h>", "/* */", "->", "...", "--",
    "!!!", "\"quoted\"", "‘curly’", "—", "\x00", "\x7f",
]


def story_lines():
    text = (DEMO / "heldout.txt").read_text(encoding="utf-8")
    return text.split("\n") + text.split("\n\n") + [text]


def file_lines(folders, suffixes, limit):
    lines = []
    for folder in folders:
        for path in sorted(pathlib.Path(folder).rglob("*")):
            if path.suffix not in suffixes or not path.is_file():
                continue
            try:
                lines += path.read_text(encoding="utf-8").splitlines(keepends=True)
            except (UnicodeDecodeError, OSError):
                continue
            if len(lines) >= limit:
                return lines[:limit]
    return lines


def random_part(rng):
    kind = rng.randrange(9)
    if kind <= 2:
        return rng.choice(WORDS)
    if kind <= 4:
        return rng.choice(SPACES)
    if kind == 5:
        return rng.choice(EMOJI)
    if kind == 6:
        low, high = rng.choice(SCRIPTS)
        return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 12)))
    if kind == 7:
        return rng.choice("aeX0 -'\u0301漢é\n") * rng.choice((1, 2, 3, 7, 63, 64, 65, 66, 130))
    return "".join(chr(rng.randrange(32, 127)) for _ in range(rng.randint(1, 20)))


def random_lines(rng, count):
    return ["".join(random_part(rng) for _ in range(rng.randint(1, 8))) for _ in range(count)]


def pathological_lines():
    size = 65_536
    units = ["x", "e", " ", "\n", "0", "^", "\u0301", "漢", "\U0001F600", "ab", "a ", "'s"]
    return [unit * (size // len(unit.encode())) for unit in units]


def code_point_lines(ranges):
    """Every code point between others: of the four classes each splits "1_!_a" differently."""
    points = [chr(c) for r in ranges for c in r if not 0xD800 <= c <= 0xDFFF]
    return ["".join(f"1{c}!{c}a" for c in points[at : at + 32]) for at in range(0, len(points), 32)]


def run_dump(arguments, records):
    framed = b"".join(struct.pack("<I", len(r)) + r for r in records)
    done = subprocess.run(arguments, input=framed, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, arguments))} exited with {done.returncode}")
    answers, at = [], 0
    while at < len(done.stdout):
        (length,) = struct.unpack_from("<I", done.stdout, at)
        answers.append(done.stdout[at + 4 : at + 4 + length])
        at += 4 + length
    return answers


def to_ids(record):
    return list(struct.unpack(f"<{len(record) // 4}i", record))


def compare_encoding(dump, files, oracle, lines):
    tokens = 0
    for at in range(0, len(lines), BATCH):
        batch = lines[at : at + BATCH]
        expected = oracle.encode_batch(batch, add_special_tokens=False)
        found = run_dump([dump, *files, "encode"], [line.encode() for line in batch])
        if len(found) != len(batch):
            sys.exit(f"expected {len(batch)} answers, found {len(found)}")
        for line, want, have in zip(batch, expected, found):
            tokens += len(have) // 4
            if array.array("i", want.ids).tobytes() == have:
                continue
            sys.exit(f"ids differ for {line[:400]!r}\n  expected {want.ids[:100]}\n  found    {to_ids(have)[:100]}")
    return tokens


def compare_decoding(dump, files, oracle, rng, count):
    """Random ids make broken UTF-8: each must become the same text with U+FFFD."""
    unmade = ("<|endoftext|>", "<mask>", "madeupword0000", "madeupword0001", "madeupword0002")
    usable = [i for token, i in oracle.get_vocab().items() if i > 3 and token not in unmade]
    usable.sort()
    lists = [[rng.choice(usable) for _ in range(rng.randint(1, 20))] for _ in range(count)]
    # Tokens of single bytes are rare among all tokens, and they are what breaks characters.
    bytes_only = [i for i in usable if len(oracle.id_to_token(i)) == 1]
    lists += [[rng.choice(bytes_only) for _ in range(rng.randint(1, 20))] for _ in range(count)]
    expected = oracle.decode_batch(lists, skip_special_tokens=False)
    found = run_dump([dump, *files, "decode"], [struct.pack(f"<{len(ids)}i", *ids) for ids in lists])
    for ids, want, have in zip(lists, expected, found):
        if want.encode() != have:
            sys.exit(f"texts differ for {ids}\n  expected {want!r}\n  found    {have.decode(errors='replace')!r}")
    return len(lists)


def bench(dump, files, oracle, name):
    texts = (DEMO / "heldout.txt").read_text(encoding="utf-8").split("\n\n")
    megabytes = sum(len(t.encode()) for t in texts) / 1e6
    best = 0.0
    names = ("encode_batch", "encode_batch_fast")  # the second only from version 0.20 on
    for encode in [getattr(oracle, name) for name in names if hasattr(oracle, name)]:
        start = time.monotonic()
        while time.monotonic() - start < 4:
            before = time.process_time()
            encode(texts, add_special_tokens=False)
            best = max(best, megabytes / (time.process_time() - before))
    framed = b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in texts)
    done = subprocess.run([dump, *files, "bench", "4"], input=framed, stdout=subprocess.PIPE, check=True)
    cold, warm = map(float, done.stdout.split())
    print(f"{name}: {megabytes:.3f} MB of stories, MB per second of CPU time, one thread: optserve {warm:.1f} "
          f"(first pass {cold:.1f}), tokenizers {best:.1f}")


def parse_arguments():
    parser = argparse.ArgumentParser(description="Compare the tokenizer with Hugging Face's.")
    parser.add_argument("--dump", required=True, help="the program tokenizer_dump")
    parser.add_argument("--opt-tokenizer", default=ROOT.parent / "shared" / "tokenizer", type=pathlib.Path)
    parser.add_argument("--venv", type=pathlib.Path, help="virtual environment to make and use")
    parser.add_argument("--seed", default=20261122, type=int)
    parser.add_argument("--random-lines", default=100_000, type=int)
    parser.add_argument("--bench", action="store_true", help="measure speed instead of comparing")
    return parser.parse_args()


def provide_oracle(venv):
    """Returns where the package can be imported; runs the script again inside `venv` where it cannot."""
    python = venv / "bin" / "python" if venv else None
    if venv and pathlib.Path(sys.prefix) != venv.resolve():
        ready = python.exists() and subprocess.run([python, "-c", "import tokenizers"], check=False).returncode == 0
        if not ready:
            try:
                subprocess.run([sys.executable, "-m", "venv", venv], check=True)
                subprocess.run([python, "-m", "pip", "install", "--quiet", PACKAGE], check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"SKIPPED: cannot install {PACKAGE}: {error}")
                sys.exit(SKIPPED)
        os.execv(python, [python, *sys.argv])
    if importlib.util.find_spec("tokenizers") is None:
        print(f"SKIPPED: no {PACKAGE.partition('==')[0]} package for {sys.executable}; --venv FOLDER installs it")
        sys.exit(SKIPPED)


def main():
    arguments = parse_arguments()
    provide_oracle(arguments.venv)
    if arguments.bench:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import tokenizers  # after the environment is set
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    print(f"tokenizers {tokenizers.__version__}, seed {arguments.seed}")
    folders = {"demo": DEMO}
    if (arguments.opt_tokenizer / "gpt2-vocab.json").is_file():
        folders["opt"] = arguments.opt_tokenizer
    else:
        print(f"no gpt2-vocab.json in {arguments.opt_tokenizer}: OPT's own vocabulary is NOT compared")

    rng = random.Random(arguments.seed)
    sources = {}
    if not arguments.bench:
        sources["stories"] = story_lines()
        sources["code"] = file_lines([sysconfig.get_path("stdlib")], {".py"}, 90_000)
        sources["system texts"] = file_lines(["/usr/share"], {".txt", ".md", ".pl", ".html", ".po", ""}, 30_000)
        sources["generated"] = random_lines(rng, arguments.random_lines)
        sources["pathological"] = pathological_lines()
        sources["code points"] = code_point_lines([range(0x32400), range(0xE0000, 0xE0200)])
        # Unassigned planes and private use: the classes do not depend on the vocabulary, so once is enough.
        sources["rest of Unicode"] = code_point_lines([range(0x32400, 0xE0000), range(0xE0200, 0x110000)])
        lines = sum(map(len, sources.values()))
        print(f"{lines} lines: " + ", ".join(f"{len(v)} {k}" for k, v in sources.items()))
        if lines < 200_000:
            sys.exit(f"expected at least 200000 lines, found {lines}: raise --random-lines")

    for name, folder in folders.items():
        files = [str(folder / "gpt2-vocab.json"), str(folder / "gpt2-merges.txt")]
        oracle = Tokenizer(models.BPE.from_file(*files))
        oracle.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        oracle.decoder = decoders.ByteLevel()
        if arguments.bench:
            bench(arguments.dump, files, oracle, name)
            continue
        for source, lines in sources.items():
            if source == "rest of Unicode" and name != "demo":
                continue
            start = time.monotonic()
            tokens = compare_encoding(arguments.dump, files, oracle, lines)
            print(f"{name}: {source}: {len(lines)} lines, {tokens} ids equal, {time.monotonic() - start:.1f} s")
        print(f"{name}: {compare_decoding(arguments.dump, files, oracle, rng, 10_000)} random id lists decode equally")
    print("no difference")


if __name__ == "__main__":
    main()
