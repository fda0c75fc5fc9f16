#!/usr/bin/env python3
"""Rules and dashboards without any process: they are what their sources make, every alert fires and does not fire where
it should, and has its section in the runbooks.

usage: rules_test.py SOURCE_FOLDER
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

import alert_cases


def expect(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what}", flush=True)


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def promtool_test(folder, rules, change):
    """Runs the cases of each alert with that alert alone and, if it reads them, the recording rules: all with all would
    take a minute. `change` makes the expression that is tested. Promtool reads JSON, which is YAML too."""
    records, alerts = (group["rules"] for group in rules["groups"])
    files = []
    for rule in alerts:
        name = rule["alert"]
        needed = records if ":optserve" in rule["expr"] else []
        alone, tests = folder / f"{name}.rules", folder / f"{name}.tests"
        group = {"name": name, "rules": [*needed, rule | {"expr": change(rule["expr"])}]}
        alone.write_text(json.dumps({"groups": [group]}), encoding="utf-8")
        tests.write_text(json.dumps(alert_cases.promtool_tests(alone, [name])), encoding="utf-8")
        files.append(str(tests))
    return run("promtool", "test", "rules", *files)


def check_runbooks(sources, alerts):
    page = (sources / "docs/runbooks.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (Optserve\w+)$", page, re.M)
    expect(sections == list(alerts), "docs/runbooks.md has a section for each alert, in their order")
    for section in re.split(r"^## ", page, flags=re.M)[1:]:
        name = section.split("\n", 1)[0]
        if name.startswith("Optserve") and not all(word in section for word in ("**Means**", "**Confirm**", "**Do**")):
            sys.exit(f"FAILED: the runbook of {name} does not say what it means, how to confirm it, and what to do")


def main():
    sources = pathlib.Path(sys.argv[1]).resolve()
    monitoring = sources / "deploy/monitoring"
    sys.path.insert(0, str(monitoring))
    import make_rules

    status, text = run(sys.executable, "-B", str(monitoring / "generate.py"), "--check")
    expect(status == 0, f"rules.yml and the dashboards are what generate.py makes {text}")
    rules = monitoring / "rules.yml"
    for command in (["check", "rules", str(rules)], ["check", "config", str(monitoring / "prometheus.yml")]):
        status, text = run("promtool", *command)
        expect(status == 0, f"promtool {' '.join(command[:2])}{'' if status == 0 else ': ' + text}")

    alerts = make_rules.ALERTS
    expect(list(alert_cases.CASES) == list(alerts), "every alert has its cases")
    with tempfile.TemporaryDirectory(prefix="optserve-rules-") as name:
        folder = pathlib.Path(name)
        status, text = promtool_test(folder, make_rules.rules(), lambda expression: expression)
        expect(status == 0, f"each of {len(alerts)} alerts fires in its case and is quiet in the other"
               + ("" if status == 0 else f":\n{text}"))
        _, text = promtool_test(folder, make_rules.rules(), lambda expression: f"absent({expression})")
        unmoved = [alert for alert in alerts if text.count(f'alertname=\\"{alert}\\"') < 2]
        expect(not unmoved, f"both cases of each alert fail with the opposite rule {unmoved or ''}")
    check_runbooks(sources, alerts)


if __name__ == "__main__":
    main()
