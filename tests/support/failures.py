#!/usr/bin/env python3
"""Prints what the failed tests of a ctest run printed, the end of each.

failures.py PRESET RESULTS.XML      (RESULTS.XML: as `ctest --output-junit` writes it)
"""
import sys
import xml.etree.ElementTree

LINES_MAX = 60


def main() -> None:
    preset, results = sys.argv[1:]
    for case in xml.etree.ElementTree.parse(results).getroot().iter("testcase"):
        if case.get("status") in ("run", "notrun", "disabled") and case.find("failure") is None:
            continue
        lines = (case.findtext("system-out") or "").splitlines()
        print(f"\n== {preset}: {case.get('name')}: {case.get('status')} after {float(case.get('time', 0)):.1f} s")
        if len(lines) > LINES_MAX:
            print(f"({len(lines) - LINES_MAX} lines before)")
        print("\n".join(lines[-LINES_MAX:]))


main()
