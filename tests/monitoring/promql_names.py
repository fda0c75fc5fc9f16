"""The metrics, labels and label values that a PromQL expression names."""

import re

AGGREGATIONS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
WORDS = AGGREGATIONS | {"and", "or", "unless", "offset", "bool", "inf", "nan"}
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[a-zA-Z_:][a-zA-Z0-9_:]*|\d[\w.]*|=~|!~|!=|[^\s]')


def tokens_of(expression):
    without_ranges = re.sub(r"\[[^\]]*\]", "", expression)
    return TOKEN.findall(without_ranges)


def closing(tokens, at):
    """The place of the bracket that closes the one at `at`; there are none inside of it."""
    return next(i for i in range(at, len(tokens)) if tokens[i] in ")}")


def is_metric(token, following):
    """Neither a function, which a bracket follows, nor an aggregation, which "by" or "without" may follow."""
    return re.match(r"[a-zA-Z_:]", token) and following not in ("(", "by", "without") and token.lower() not in WORDS


def names_in(expression):
    """({metric: [(label, operator, value)]}, labels of by, on and so on)."""
    tokens = tokens_of(expression)
    metrics, grouped, at = {}, set(), 0
    while at < len(tokens):
        token, following = tokens[at], tokens[at + 1] if at + 1 < len(tokens) else ""
        if token.lower() in AGGREGATIONS and following == "(":
            end = closing(tokens, at)
            grouped |= {one for one in tokens[at + 2:end] if one != ","}
            at = end
        elif is_metric(token, following):
            matchers = metrics.setdefault(token, [])
            if following == "{":
                end = closing(tokens, at + 1)
                inside = tokens[at + 2:end]
                matchers += [(inside[i - 1], inside[i], inside[i + 1].strip('"'))
                             for i in range(1, len(inside) - 1) if inside[i] in ("=", "=~", "!=", "!~")]
                at = end
        at += 1
    return metrics, grouped


def faults_of(expression, known):
    """Sentences about what the expression names and no process has. `known`: {metric: {label: {values}}}."""
    metrics, grouped = names_in(expression)
    faults = []
    for metric, matchers in metrics.items():
        if metric not in known:
            faults.append(f"no process has the metric {metric}")
            continue
        for label, operator, value in matchers:
            if label not in known[metric]:
                faults.append(f"{metric} has no label {label}")
                continue
            wanted = value.split("|") if operator in ("=", "=~") and re.fullmatch(r"[\w|]+", value) else []
            faults += [f"{metric} has no {label} {one}" for one in wanted if one not in known[metric][label]]
    labels = {label for metric in metrics for label in known.get(metric, {})}
    return faults + [f"none of {', '.join(metrics)} has the label {label}" for label in sorted(grouped - labels)]
