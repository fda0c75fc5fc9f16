#!/usr/bin/env python3
"""The image is built and looked at; then the Pods of k8s/overlays/demo-cpu run on one network, are killed, replaced,
updated and drained under load, and the journal is backed up and restored. Exits with 77 where the engine cannot run.

usage: containers_test.py BUILD_FOLDER
"""

import json
import pathlib
import re
import signal
import subprocess
import sys
import time

from cluster import Cluster
from engine import Engine
from streams import ClientStreams, HttpStreams

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "k8s"))
from rendered import ROOT, render_overlay

BASE, IMAGE = "localhost/base:12", "localhost/optserve:0.2.0"
BYTES_OVER_BASE_MAX = 120_000_000
STREAMS = 16  # of each kind
KINDS = ["Deployment/tokenizer", "Deployment/worker-demo", "Deployment/gateway", "StatefulSet/scheduler"]
begin = time.monotonic()


def expect(condition, what):
    if not condition:
        raise RuntimeError(what)
    print(f"ok: {what} ({time.monotonic() - begin:.0f} s)", flush=True)


def make_base(engine, build):
    """Debian's essential packages and the C++ runtime; kept in the build folder, since it takes half a minute."""
    tar = build / "containers" / "base-bookworm.tar"
    if not tar.exists():
        tar.parent.mkdir(exist_ok=True)
        sources = next(path for path in map(pathlib.Path, ("/etc/apt/sources.list.d/debian.sources",
                                                           "/etc/apt/sources.list")) if path.exists())
        new = tar.with_suffix(".new.tar")
        subprocess.run(["mmdebstrap", "--mode=root", "--variant=essential", "--include=libstdc++6", "--quiet",
                        "bookworm", new, sources], check=True)
        new.rename(tar)
    engine.run("import", tar, BASE)
    engine.try_it(BASE)


def build_image(engine, build):
    tree = engine.folder / "tree"
    subprocess.run([ROOT / "deploy" / "images" / "make-tree", tree, build], check=True, stdout=subprocess.DEVNULL)
    ids = []
    for name in (IMAGE, "localhost/again:1"):
        engine.buildah("bud", "--isolation=chroot", "--layers=false", "--timestamp=0", "--file",
                       ROOT / "deploy" / "images" / "Containerfile", f"--build-arg=BASE={BASE}",
                       f"--build-arg=TOOLS={BASE}", "--tag", name, tree)
        ids.append(engine.inspect("image", "inspect", name)[0])
    expect(ids[0]["Digest"] == ids[1]["Digest"], "two builds of the image are the same bytes")
    over_base = ids[0]["Size"] - engine.inspect("image", "inspect", BASE)[0]["Size"]
    expect(over_base <= BYTES_OVER_BASE_MAX, f"the image has {over_base / 1e6:.1f} MB over its base")
    expect(ids[0]["Config"]["User"] == "10001:10001" and "org.opencontainers.image.version" in ids[0]["Labels"],
           "it runs as a user, and has labels")


def look_into_image(engine):
    restricted = ["run", "--rm", "--network=none", "--read-only", "--cap-drop=ALL", IMAGE, "sh", "-c"]
    inside = lambda script: engine.run(*restricted, script).stdout
    packages = {one["name"] for one in json.loads(inside("cat /opt/optserve/share/sbom.spdx.json"))["packages"]}
    installed = set(inside("dpkg-query -W -f='${Package}\\n'").split())
    expect(installed <= packages and {"optserve", "libzmq5", "libmsgpack-cxx-dev"} <= packages,
           f"its list of packages has the {len(installed)} of the base and {len(packages - installed)} more")
    missing = inside("for each in /opt/optserve/bin/*; do ldd $each; done | grep 'not found' || true")
    compilers = inside("command -v cc g++ gcc cmake python3 || true")
    expect(not missing and not compilers, "every program finds its libraries, and there is no compiler")


def start(cluster):
    """Everything in the order in which nobody waits for nothing, but a worker comes before its model."""
    engine = cluster.engine
    copy = "mkdir /models/source && cp -r /in /models/source/demo"
    engine.run("run", "--rm", "--network=none", "-v", "models:/models", "-v", f"{ROOT}/deploy/demo-model:/in:ro", IMAGE,
               "sh", "-c", copy)
    cluster.play("StatefulSet/scheduler", "scheduler-0")
    waiting = cluster.play("Deployment/worker-demo", "worker-demo-0", wait=False)
    said = ""
    deadline = time.monotonic() + 30
    while "waiting" not in said and time.monotonic() < deadline:
        time.sleep(0.2)
        ran = engine.run("logs", "worker-demo-0-preflight", check=False)
        said = ran.stdout + ran.stderr
    expect("/models/demo has no manifest.json: it is not converted; /models holds source" in said,
           f"a worker without its model waits: {said.strip()}")
    expect(cluster.run_job("Job/convert", "convert-0", "convert-1") == [0, 0], "two Pods convert the model")
    waiting.wait(timeout=60)
    cluster.wait_ready("worker-demo-0")
    expect(True, "and the worker has gone on")
    for owner, name in [("Deployment/worker-demo", "worker-demo-1"), ("Deployment/tokenizer", "tokenizer-0"),
                        ("Deployment/gateway", "gateway-0"), ("Deployment/converter", "converter-0")]:
        cluster.play(owner, name)
    expect(True, "scheduler, tokenizer, two groups of two ranks, gateway and converter are ready")


SERVING = ["scheduler-0", "worker-demo-0", "worker-demo-1", "tokenizer-0", "gateway-0", "converter-0"]


def processes_of(cluster, name):
    return cluster.engine.run("top", cluster.container(name), "hpid", "state").stdout.split("\n")[1:]


def check_restrictions(cluster):
    for name in SERVING:
        folder = pathlib.Path("/proc") / str(cluster.state(name)["Pid"])
        lines = (folder / "status").read_text().splitlines()
        fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        mounts = map(str.split, (folder / "mountinfo").read_text().splitlines())
        root = next(words[5] for words in mounts if words[4] == "/")
        found = (fields["Uid"].split()[0], int(fields["CapEff"], 16), int(fields["CapBnd"], 16), fields["NoNewPrivs"],
                 fields["Seccomp"], "ro" in root.split(","), fields["NSpid"].split()[-1])
        if found != ("10001", 0, 0, "1", "2", True, "1"):
            raise RuntimeError(f"{name} is not restricted: {found}")
    expect(True, "process 1 of each is user 10001, without capabilities, with seccomp and a read-only root")


def check_reaping(cluster):
    """A rank is killed: the supervisor makes a new group, and process 1 leaves no dead process behind."""
    ranks = cluster.engine.run("top", cluster.container("worker-demo-1"), "hpid", "pid").stdout.split("\n")[1:]
    # Process 1 has started the supervisor, which has started the ranks.
    host_pid = max((line.split() for line in ranks if line), key=lambda pids: int(pids[1]))[0]
    subprocess.run(["kill", "-9", host_pid], check=True)
    deadline = time.monotonic() + 30
    restarted = re.compile(r"^optserve_worker_group_restarts_total(\{.*\})? 1$", re.MULTILINE)
    while not restarted.search(cluster.probe("worker-demo-1", "/metrics")[1]):
        if time.monotonic() > deadline:
            raise RuntimeError("the group was not restarted")
        time.sleep(0.1)
    cluster.wait_ready("worker-demo-1")
    states = [line.split()[1] for line in processes_of(cluster, "worker-demo-1") if line]
    expect(len(states) == 4 and "Z" not in states, "a killed rank: the group starts again in its Pod, without zombies")


def cgroup_file(cluster, name, controller, file):
    identity = cluster.engine.inspect("inspect", cluster.container(name))[0]["Id"]
    for root in (f"/sys/fs/cgroup/{controller}", "/sys/fs/cgroup"):
        for path in pathlib.Path(root).glob(f"**/*{identity}*/{file}"):
            return path
    return None


def check_limits(cluster):
    """The groups are busy; their limit is what the overlay says."""
    limit_file = cgroup_file(cluster, "worker-demo-0", "memory", "memory.limit_in_bytes")
    usage_file = cgroup_file(cluster, "worker-demo-0", "memory", "memory.max_usage_in_bytes")
    quota_file = cgroup_file(cluster, "tokenizer-0", "cpu", "cpu.cfs_quota_us")
    if not (limit_file and usage_file and quota_file):
        print("note: control groups of version 1 are not there, so limits are not looked at", flush=True)
        return
    limit, used, quota = (int(file.read_text()) for file in (limit_file, usage_file, quota_file))
    expect(limit == 1 << 30 and used < limit, f"a group of two ranks takes {used / 2**20:.0f} of its 1024 MiB")
    expect(quota == 100_000, "a tokenizer may use one processor")


def check_out_of_memory(cluster):
    """A limit that is too small ends the Pod, so limits are real."""
    def squeeze(pod):
        pod["spec"]["containers"][0]["resources"]["limits"]["memory"] = "12Mi"
    cluster.play("Deployment/worker-demo", "worker-demo-2", squeeze, wait=False).wait()
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and cluster.probe("worker-demo-2")[0] != 200:
        time.sleep(0.3)
    expect(cluster.probe("worker-demo-2")[0] != 200, "a group of two ranks does not start in 12 MiB")
    cluster.remove("worker-demo-2")


def registered(cluster):
    """How many workers and tokenizers the scheduler knows."""
    text = cluster.probe("scheduler-0", "/metrics")[1]
    return sum(map(int, re.findall(r'optserve_services\{.*service="(?:worker|tokenizer)".*\} (\d+)', text)))


def replace_each(cluster):
    for owner in KINDS:
        name = owner.split("/")[1] + "-0"
        seconds = cluster.replace(owner, name)
        expect(True, f"{name} was killed, and is ready after {seconds:.1f} s at another address")
        if name == "scheduler-0":
            since = time.monotonic()
            while registered(cluster) < 3:
                if time.monotonic() - since > 20:
                    raise RuntimeError("services do not find the scheduler at its new address")
                time.sleep(0.05)
            expect(True, f"both groups and the tokenizer found it again within {time.monotonic() - since:.1f} s")
        time.sleep(1)  # streams go on


def roll_workers(cluster):
    """As the Deployment does it: one group after the other, the next when the last one is ready."""
    def update(pod):
        pod["spec"]["containers"][0]["env"].append({"name": "OPTSERVE_WORKER_MAX_SEQUENCES", "value": "48"})
    for name in ("worker-demo-0", "worker-demo-1"):
        drain_busy(cluster, "Deployment/worker-demo", name, update)


def drain_busy(cluster, owner, name, change=None):
    seconds, status = cluster.terminate(name)
    expect(status == 0 and seconds < 75, f"{name}, busy, drained within {seconds:.1f} s, status {status}")
    cluster.remove(name)
    cluster.play(owner, name, change)


def check_under_load(cluster):
    over_http = HttpStreams(cluster, "gateway-0", STREAMS)
    over_http.start()
    by_client = ClientStreams(cluster, STREAMS)
    try:
        time.sleep(3)
        check_limits(cluster)
        replace_each(cluster)
        roll_workers(cluster)
        for owner, name in [("Deployment/tokenizer", "tokenizer-0"), ("StatefulSet/scheduler", "scheduler-0"),
                            ("Deployment/gateway", "gateway-0")]:
            drain_busy(cluster, owner, name)
        time.sleep(1)
    finally:
        over_http_error = None
        stopped = time.monotonic()
        texts = by_client.stop()
        ended = time.monotonic()
        try:
            over_http.stop()
        except BaseException as error:
            over_http_error = error
    if over_http_error:
        raise over_http_error
    expect(True, f"the last streams took {ended - stopped:.1f} s (C++) and {time.monotonic() - ended:.1f} s (HTTP)")
    expect(len(texts) >= STREAMS and len(set(texts)) == 1 and texts[0],
           f"{len(texts)} streams of the C++ client have the same whole text")
    expect(len(over_http.texts) >= STREAMS, f"{len(over_http.texts)} streams over HTTP are whole, in "
           f"{over_http.connections} connections")


def generate(cluster, *options):
    words = ["run", "--rm", f"--network={cluster.network}", "--read-only", IMAGE, "optserve", "generate",
             "--model=demo", "--scheduler=tcp://scheduler-0.scheduler:5555", "--timeout-ms=60000", "--temperature=0",
             "--insecure", *options]
    return cluster.engine.run(*words).stdout


def check_backup(cluster):
    """What was accepted before the backup is there after the restore, into another journal."""
    key = f"--key=backup-{time.monotonic_ns()}"
    text = generate(cluster, key, "--prompt=A horse", "--max-new-tokens=12")
    statuses = cluster.run_job("CronJob/journal-backup", "journal-backup-0")
    expect(statuses == [0], "the CronJob's Pod backs the journal up")
    cluster.terminate("scheduler-0")
    cluster.remove("scheduler-0")
    spoil = "echo lost > /var/lib/optserve/journal.db; rm -f /var/lib/optserve/journal.db-*"
    cluster.engine.run("run", "--rm", "--network=none", "-v", "journal-scheduler-0:/var/lib/optserve", IMAGE, "sh",
                       "-c", spoil)
    statuses = cluster.run_job("Job/journal-restore", "journal-restore-0")
    expect(statuses == [0], "the journal is damaged, and restored by the Job")
    cluster.play("StatefulSet/scheduler", "scheduler-0")
    # The same key stands for the same job: if the restored journal did not know it, it would run again, or would not be
    # refused.
    refused = cluster.engine.run("run", "--rm", f"--network={cluster.network}", IMAGE, "optserve", "submit",
                                 "--scheduler=tcp://scheduler-0.scheduler:5555", "--model=demo", "--insecure", key,
                                 "--prompt=Another prompt", check=False)
    expect(refused.returncode != 0 and "idempotency" in (refused.stderr + refused.stdout),
           "a key that was used before the backup is known after the restore")
    expect(generate(cluster, key, "--prompt=A horse", "--max-new-tokens=12") == text, "and so is its result")


def check_drains(cluster):
    """From SIGTERM to the end, idle."""
    for name in reversed(SERVING):
        seconds, status = cluster.terminate(name)
        expect(status == 0 and seconds < 8, f"{name}, idle, ends within {seconds:.1f} s, status {status}")


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # so that nothing is left
    build = pathlib.Path(sys.argv[1]).resolve()
    engine = Engine()
    cluster = None
    try:
        make_base(engine, build.parent)
        build_image(engine, build)
        look_into_image(engine)
        cluster = Cluster(engine, render_overlay("demo-cpu"), IMAGE)
        start(cluster)
        check_restrictions(cluster)
        check_reaping(cluster)
        check_under_load(cluster)
        check_out_of_memory(cluster)
        check_backup(cluster)
        check_drains(cluster)
    except Exception:
        for name in cluster.pods if cluster else []:
            print(f"---- {name}\n{cluster.logs(name)[-1500:]}", file=sys.stderr)
        raise
    finally:
        engine.close()


if __name__ == "__main__":
    main()
