#!/usr/bin/env python3
"""Makes prometheus-rule.yaml, the rules of deploy/monitoring/rules.yml for Prometheus' operator, and adds it to this
component. A test holds that the two are the same."""

import pathlib

import yaml

HERE = pathlib.Path(__file__).resolve().parent
RULES = HERE.parents[2] / "deploy" / "monitoring" / "rules.yml"
NAME = "prometheus-rule.yaml"


def main():
    rule = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule",
            "metadata": {"name": "optserve", "labels": {"release": "prometheus"}},
            "spec": {"groups": yaml.safe_load(RULES.read_text())["groups"]}}
    text = yaml.safe_dump(rule, sort_keys=False, width=110, allow_unicode=True)
    (HERE / NAME).write_text("# Made by make_rule.py from deploy/monitoring/rules.yml.\n" + text)
    kustomization = HERE / "kustomization.yaml"
    if NAME not in kustomization.read_text():
        kustomization.write_text(kustomization.read_text().rstrip() + f"\n  - {NAME}\n")


if __name__ == "__main__":
    main()
