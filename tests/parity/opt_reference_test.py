#!/usr/bin/env python3
"""The engine against NumPy on a random model of every kind. usage: opt_reference_test.py LOGITS_DUMP"""
import subprocess
import sys
import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    subprocess.run([sys.argv[1], folder], check=True)
    kinds = sorted(Path(folder).iterdir())
    if len(kinds) < 5:
        sys.exit(f'expected at least 5 kinds of models, found {len(kinds)}')
    oracle = Path(__file__).with_name('opt_reference.py')
    statuses = [subprocess.run([sys.executable, oracle, kind / 'checkpoint', kind / 'cases.json']).returncode
                for kind in kinds]
    sys.exit(max(statuses))
