"""Debian's Prometheus, and the rules with shorter times."""

import http.client
import json
import re
import signal
import subprocess
import urllib.parse

from system import HOST, LIMIT_SECONDS, fail, free_port, get, wait_until

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SHORTER = 60  # a minute of the rules is a second of a test


def shorter(duration):
    number, unit = re.fullmatch(r"(\d+)([smhd])", duration).groups()
    return f"{max(1, round(int(number) * UNITS[unit] * 1000 / SHORTER))}ms"


def shorter_expression(expression, constants):
    """Windows of less than 5 s would see too few scrapes."""
    def window(match):
        return f"[{max(5000, int(shorter(match.group(1))[:-2]))}ms]"

    for long, short in constants.items():
        expression = expression.replace(long, short)
    return re.sub(r"\[(\d+[smhd])\]", window, expression)


def shorter_rules(rules, constants, left_out):
    groups = []
    for group in rules["groups"]:
        kept = [rule | {"expr": shorter_expression(rule["expr"], constants.get(rule.get("alert"), {}))}
                | ({"for": shorter(rule["for"])} if "for" in rule else {})
                for rule in group["rules"] if rule.get("alert") not in left_out]
        groups.append({"name": group["name"], "interval": "1s", "rules": kept})
    return {"groups": groups}


class Prometheus:
    def __init__(self, folder, targets, rules, host=HOST):
        self.folder = folder
        self.port = free_port()
        rules_file, config = folder / "rules.json", folder / "prometheus.json"
        rules_file.write_text(json.dumps(rules), encoding="utf-8")
        config.write_text(json.dumps({
            "global": {"scrape_interval": "1s", "scrape_timeout": "900ms", "evaluation_interval": "1s"},
            "rule_files": [str(rules_file)],
            "scrape_configs": [{"job_name": "optserve", "static_configs": [
                {"targets": [f"{host}:{port}" for _, port in targets]}]}]}), encoding="utf-8")

    def __enter__(self):
        with open(self.folder / "prometheus.log", "wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={self.folder / 'prometheus.json'}",
                 f"--storage.tsdb.path={self.folder / 'tsdb'}", f"--web.listen-address={HOST}:{self.port}"],
                stdout=log, stderr=log)
        wait_until(lambda: get(self.port, "/-/ready")[0] == 200 or self.process.poll() is not None,
                   "Prometheus is ready")
        if self.process.poll() is not None:
            fail("Prometheus: " + (self.folder / "prometheus.log").read_text(encoding="utf-8"))
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(LIMIT_SECONDS)

    def ask(self, path, **parameters):
        status, text = get(self.port, f"/api/v1/{path}?" + urllib.parse.urlencode(parameters, doseq=True), timeout=30)
        answer = json.loads(text) if text.startswith("{") else {}
        if status != 200 or answer.get("status") != "success":
            fail(f"Prometheus: {path} {parameters}: {status} {text[:500]}")
        return answer["data"]

    def firing(self):
        """The names of the alerts that fire now."""
        return {one["labels"]["alertname"] for one in self.ask("alerts")["alerts"] if one["state"] == "firing"}

    def known_names(self):
        """{metric: {label: {values}}} of everything that was scraped or recorded."""
        known = {}
        for series in self.ask("series", **{"match[]": '{__name__=~".+"}'}):
            labels = known.setdefault(series.pop("__name__"), {})
            for label, value in series.items():
                labels.setdefault(label, set()).add(value)
        return known

    def values(self, expression, start, end):
        """The finite numbers that a query gives over a time."""
        result = self.ask("query_range", query=expression, start=start, end=end, step="2")["result"]
        numbers = (float(value) for series in result for _, value in series["values"])
        return [number for number in numbers if abs(number) != float("inf") and number == number]
