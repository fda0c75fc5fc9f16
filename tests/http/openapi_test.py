#!/usr/bin/env python3
"""Every route of /openapi.json with generated values, good and bad ones, against a real local stack (schemathesis).

usage: openapi_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER [EXAMPLES [SEED [PHASES]]]

PHASES: fuzzing, or coverage for the edges of fields, or coverage,fuzzing. OPTSERVE_EDGES says how many edges of a route
are tried, chosen by the seed; 0, or none: all, which takes minutes.
"""

import os
import pathlib
import random
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from local_stack import Stack, expect

# Without positive_data_acceptance: a schema cannot say which values of several fields go together, and a model that is
# not served is refused.
CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
          "negative_data_rejection", "unsupported_method"]


def main():
    programs, sources = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
    examples = sys.argv[3] if len(sys.argv) > 3 else "3"
    seed = sys.argv[4] if len(sys.argv) > 4 else str(random.randrange(1 << 31))
    phases = sys.argv[5] if len(sys.argv) > 5 else "fuzzing"
    workers = "1" if "coverage" in phases else "2"  # there threads disturb hypothesis, which reads its own sources
    here = pathlib.Path(__file__).resolve().parent
    with tempfile.TemporaryDirectory(prefix="optserve-openapi-") as folder, \
            Stack(programs, sources, pathlib.Path(folder)) as stack:
        command = [sys.executable, "-m", "schemathesis.cli", "run", stack.api_url + "/openapi.json",
                   "--checks", ",".join(CHECKS), "--max-examples", examples, "--seed", seed, "--workers", workers,
                   "--request-timeout", "20", "--phases", phases, "--no-color"]
        environment = os.environ | {"SCHEMATHESIS_HOOKS": "openapi_hooks", "PYTHONPATH": str(here),
                                    "OPTSERVE_SEED": seed}
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"FAILED: seed {seed}\n{done.stdout[-12000:]}{done.stderr[-3000:]}")
        print(done.stdout[-1500:])
        expect(True, f"schemathesis finds no fault in any route (seed {seed})")


main()
