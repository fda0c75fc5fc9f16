#!/usr/bin/env python3
"""Draws goodput against offered load from the JSON of overload_bench: plot_overload.py IN.json OUT.svg"""
import json
import math
import sys

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 360, 70, 50, 30, 20
SERIES = [("goodput", "ended in time", "#1b6ca8"), ("accepted", "accepted", "#999999"),
          ("refused", "refused at once", "#c2571a"), ("failed", "accepted, not in time", "#7a3b8f")]


def main(source, target):
    data = json.load(open(source))
    peak = data["peak_jobs_per_second"]
    rows = sorted(data["loads"], key=lambda row: row["load"])
    x_max = max(row["load"] for row in rows)
    # Logarithmic: at ten times the load ten times as many jobs are refused as end in time.
    y_min, y_max = peak / 100, max(row[field] for row in rows for field, _, _ in SERIES) * 1.2

    def x_of(load):
        return LEFT + load / x_max * (WIDTH - LEFT - RIGHT)

    def y_of(rate):
        part = math.log(max(rate, y_min) / y_min) / math.log(y_max / y_min)
        return HEIGHT - BOTTOM - part * (HEIGHT - BOTTOM - TOP)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
           f'font-size="12"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for tick in (10, 30, 100, 300, 1000, 3000, 10000, 30000):
        if not y_min <= tick <= y_max:
            continue
        y = y_of(tick)
        out.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#dddddd"/>'
                   f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>')
    for load in (1, 2, 5, 10):
        if load <= x_max:
            out.append(f'<text x="{x_of(load):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{load}×</text>')
    out.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 10}" text-anchor="middle">offered load</text>'
               f'<text x="16" y="{HEIGHT / 2}" transform="rotate(-90 16 {HEIGHT / 2})" text-anchor="middle">'
               "jobs/s</text>")
    for index, (field, label, colour) in enumerate(SERIES):
        points = [(x_of(row["load"]), y_of(row[field])) for row in rows]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        out.append(f'<text x="{LEFT + 10 + 140 * index}" y="18" fill="{colour}">{label}</text>')
    out.append("</svg>")
    with open(target, "w") as file:
        file.write("\n".join(out) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
