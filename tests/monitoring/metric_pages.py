"""The tables of docs/monitoring.md: every metric of every process, and the names of vLLM. The first is made from what a
running system says of itself."""

import re

BEGIN, END = "<!-- metrics: made by tests/monitoring/metrics_test.py --write -->", "<!-- end of metrics -->"
SUFFIXES = ("_bucket", "_sum", "_count")


def parse(text):
    """{family: (type, help, labels)} of an exposition."""
    families = {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, words = line.removeprefix("# HELP ").split(" ", 1)
            families[name] = ["", words, set()]
        elif line.startswith("# TYPE "):
            name, kind = line.removeprefix("# TYPE ").split(" ", 1)
            families[name][0] = kind
        elif line:
            name = re.match(r"[^{ ]+", line).group()
            if name not in families:
                name = next(name.removesuffix(one) for one in SUFFIXES if name.endswith(one))
            families[name][2].update(re.findall(r'([a-z_]+)="', line))
    return {name: (kind, words, frozenset(labels - {"le"})) for name, (kind, words, labels) in families.items()}


def table(scraped):
    """`scraped`: {process: families}. One row a metric, with the processes that have it."""
    rows = {}
    for process, families in scraped.items():
        for name, (kind, words, labels) in families.items():
            row = rows.setdefault(name, [kind, words, set(), []])
            row[2] |= labels
            row[3].append(process)
    everywhere = len(scraped)
    lines = ["| metric | type | labels | of | meaning |", "|---|---|---|---|---|"]
    for name, (kind, words, labels, processes) in sorted(rows.items()):
        of = "all" if len(processes) == everywhere else ", ".join(processes)
        lines.append(f"| `{name}` | {kind} | {', '.join(sorted(labels))} | {of} | {words} |")
    return "\n".join(lines)


def table_in(page):
    return page.split(BEGIN)[1].split(END)[0].strip()


def with_table(page, made):
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{made}\n{END}{rest.split(END)[1]}"


def vllm_names_of_code(header):
    return set(re.findall(r'\{"(optserve_\w+)", "(vllm:\w+)"', header))


def vllm_names_of_page(page):
    return {(ours, theirs) for theirs, ours in re.findall(r"^\| `(vllm:\w+)` \| `(optserve_\w+)`", page, re.M)}
