"""Podman and buildah with storage, settings and networks of their own, which end with the test."""

import contextlib
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile

SKIPPED = 77
NEEDED = ["podman", "buildah", "runc", "mmdebstrap", "netavark", "aardvark-dns"]


def skip(why):
    print(f"skipped: {why}", flush=True)
    sys.exit(SKIPPED)


def _text(path):
    try:
        return path.read_text()
    except OSError:  # the process has ended
        return ""


def _end(process):
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


class Engine:
    def __init__(self):
        if os.geteuid() != 0:
            skip("containers with networks and limits need root")
        os.environ["PATH"] += ":/usr/sbin:/usr/lib/podman"
        for program in NEEDED:
            if not shutil.which(program):
                skip(f"no {program} (deploy/install-deps --test installs it)")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="optserve-containers-"))
        self.settings = ["--root", str(self.folder / "storage"), "--runroot", str(self.folder / "run")]
        self._environment = os.environ | {"CONTAINERS_CONF": str(self.folder / "containers.conf"),
                                          "TMPDIR": str(self.folder)}
        self._write_settings()
        self.networks = []
        self.logs = {}

    def _write_settings(self):
        files, processes = (resource.getrlimit(limit)[1] for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
        limit = lambda number: 16_384 if number == resource.RLIM_INFINITY else min(number, 16_384)
        files, processes = limit(files), limit(processes)  # podman has lower ones than this process
        networks = self.folder / "networks"
        networks.mkdir()
        (self.folder / "containers.conf").write_text(
            f'[containers]\ndefault_ulimits=["nofile={files}:{files}","nproc={processes}:{processes}"]\n'
            f'[engine]\nruntime="runc"\ncgroup_manager="cgroupfs"\nevents_logger="file"\n'
            f'[network]\nnetwork_backend="netavark"\nnetwork_config_dir="{networks}"\n')

    def run(self, *words, program="podman", check=True, **options):
        command = [program, *self.settings, *map(str, words)]
        where = {"env": self._environment, "cwd": self.folder}
        ran = subprocess.run(command, capture_output=True, text=True, check=False, **where, **options)
        if check and ran.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {ran.returncode}:\n{ran.stdout}\n{ran.stderr}")
        return ran

    def start(self, *words, **options):
        """A podman that goes on in the background."""
        command = ["podman", *self.settings, *map(str, words)]
        return subprocess.Popen(command, env=self._environment, cwd=self.folder, text=True, **options)

    def buildah(self, *words):
        return self.run(*words, program="buildah").stdout

    def inspect(self, *words):
        return json.loads(self.run(*words).stdout)

    def try_it(self, image):
        """Ends the test as skipped where this machine lets nobody start a container."""
        ran = self.run("run", "--rm", "--network=none", image, "true", check=False)
        if ran.returncode != 0:
            skip(f"the engine cannot run a container here: {ran.stderr.strip()}")

    def network(self, *options):
        name = f"optserve-test-{os.getpid()}-{len(self.networks)}"
        ran = self.run("network", "create", *options, name, check=False)
        if ran.returncode != 0:
            skip(f"the engine cannot make a network here: {ran.stderr.strip()}")
        self.networks.append(name)
        return name

    def _end_what_is_left(self):
        """Containers that were being started when the test was ended from outside: their monitors name our folder."""
        monitors = [int(path.parent.name) for path in pathlib.Path("/proc").glob("[0-9]*/cmdline")
                    if str(self.folder) in _text(path) and "conmon" in _text(path)]
        for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
            words = _text(path).rpartition(")")[2].split()
            if words and int(words[1]) in monitors:
                _end(int(path.parent.name))
        for monitor in monitors:
            _end(monitor)

    def close(self):
        self.run("pod", "rm", "--all", "--force", "--time=0", check=False)
        self.run("rm", "--all", "--force", "--time=0", check=False)
        self.run("volume", "rm", "--all", "--force", check=False)
        for name in self.networks:
            self.run("network", "rm", "--force", name, check=False)
        self.run("rmi", "--all", "--force", check=False)
        self._end_what_is_left()
        subprocess.run(["umount", "--recursive", self.folder / "storage" / "overlay"], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
