#!/usr/bin/env python3
"""Makes the Debian packages of a build, has lintian judge them, installs them in a minimal Debian that systemd boots in
a container (systemd-nspawn), and has systemd start, drain and stop the services (boot_units). Ends with 77 where
nothing can be booted, when everything else holds.

usage: packages_test.py --build BUILD       packages of that build's options, in a folder beside it
       packages_test.py PACKAGE...          packages that exist, such as one of optserve-cuda
"""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKIPPED = 77
BOOTED = ["systemd", "systemd-sysv", "dbus", "curl"]  # what the test itself needs in the container
BOOT_SECONDS_MAX = 500
UNIT = """[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/try/boot_units >/try/log 2>&1; systemctl exit $?'
[Install]
WantedBy=default.target
"""
begin = time.monotonic()


def expect(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what} ({time.monotonic() - begin:.0f} s)", flush=True)


def run(*command, **options):
    ran = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         check=False, **options)
    if ran.returncode != 0:
        sys.exit(f"FAILED: {' '.join(map(str, command))} ended with {ran.returncode}:\n{ran.stdout[-6000:]}")
    return ran.stdout


def make_packages(build):
    """With the options of `build` and beside it, so that the compiler's cache has nearly everything."""
    kept = re.compile(r"(CMAKE_BUILD_TYPE|CMAKE_CXX_FLAGS_RELWITHDEBINFO|OPTSERVE_WERROR|OPTSERVE_TOOLS):\w+=.*")
    options = [f"-D{line}" for line in (build / "CMakeCache.txt").read_text().splitlines() if kept.fullmatch(line)]
    folder = build.with_name(build.name + "-packages")
    environment = os.environ | {"CCACHE_BASEDIR": str(ROOT), "CCACHE_NOHASHDIR": "true"}
    os.umask(0o022)
    run("cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", *options, "-DCMAKE_INSTALL_PREFIX=/usr",
        "-DOPTSERVE_PACKAGE=ON", "-DOPTSERVE_MAINTAINER=Nobody <nobody@example.org>")
    run("cmake", "--build", folder, "-j2", "--target", "programs", "manuals", env=environment)
    shutil.rmtree(folder / "packages", ignore_errors=True)
    run("cpack", "-B", folder / "packages", "-D", "CPACK_DEBIAN_COMPRESSION_TYPE=gzip", cwd=folder)
    packages = sorted((folder / "packages").glob("*.deb"))
    expect(len(packages) == 3, "packages: " + ", ".join(package.name for package in packages))
    return packages, folder


def judge(packages):
    """Its status does not tell warnings from overridden ones, so the lines are read."""
    said = subprocess.run(["lintian", "--allow-root", "--show-overrides", *packages], capture_output=True, text=True,
                          check=False)
    expect(said.returncode in (0, 2), f"lintian has looked at them: {said.stderr[-1000:]}")
    found = [line for line in said.stdout.splitlines() if line[:3] in ("E: ", "W: ")]
    expect(not found, "lintian finds no error and nothing to warn of" + "".join("\n" + line for line in found))


def needed_of(packages):
    """Names of the packages that these depend on, without themselves."""
    own = {run("dpkg-deb", "--field", package, "Package").strip() for package in packages}
    relations = ",".join(run("dpkg-deb", "--field", package, "Depends") for package in packages)
    return sorted({re.match(r"[\w.+-]+", relation.strip())[0] for relation in relations.split(",")} - own)


def make_root(needed, kept, folder):
    """A minimal Debian with what the packages say that they need; kept, since it takes half a minute."""
    tar = kept / f"root-{hashlib.sha256(' '.join(needed).encode()).hexdigest()[:12]}.tar"
    if not tar.exists():
        sources = next(path for path in map(pathlib.Path, ("/etc/apt/sources.list.d/debian.sources",
                                                           "/etc/apt/sources.list")) if path.exists())
        new = tar.with_suffix(".new.tar")
        run("mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(BOOTED + needed)}", "--quiet",
            "bookworm", new, sources)
        new.rename(tar)
    root = folder / "root"
    root.mkdir()
    run("tar", "-C", root, "-xf", tar, "--exclude=./dev/*")
    expect(True, f"a minimal Debian with {len(needed)} packages that are needed")
    return root


def boot(root, packages):
    there = root / "try"
    there.mkdir()
    for path in [*packages, ROOT / "tests/packages/boot_units"]:
        shutil.copy(path, there)
    shutil.copytree(ROOT / "deploy/demo-model", there / "demo-model")
    run("chmod", "-R", "a+rX", there)
    (root / "etc/systemd/system/try-units.service").write_text(UNIT)
    run("chroot", root, "systemctl", "enable", "--quiet", "try-units.service")
    log = there / "log"
    try:
        booted = subprocess.run(["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network",
                                 "--boot", "--console=pipe", f"--machine=optserve-packages-{os.getpid()}",
                                 "--directory", root],
                                stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
                                timeout=BOOT_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        sys.exit(f"FAILED: no end within {BOOT_SECONDS_MAX} s:\n{log.read_text() if log.exists() else 'nothing ran'}")
    if not log.exists():
        print(f"skipped: systemd cannot be booted here: {(booted.stdout + booted.stderr)[-3000:]}")
        sys.exit(SKIPPED)
    print(log.read_text(), end="")
    expect(booted.returncode == 0, "systemd runs the units of the packages")


def main():
    if sys.argv[1] == "--build":
        packages, kept = make_packages(pathlib.Path(sys.argv[2]).resolve())
    else:
        packages = [pathlib.Path(argument).resolve() for argument in sys.argv[1:]]
        kept = packages[0].parent
    judge(packages)
    for program in ("systemd-nspawn", "mmdebstrap"):
        if os.geteuid() != 0 or not shutil.which(program):
            print(f"skipped: booting needs root and {program}")
            sys.exit(SKIPPED)
    with tempfile.TemporaryDirectory(prefix="optserve-packages-") as folder:
        boot(make_root(needed_of(packages), kept, pathlib.Path(folder)), packages)


main()
