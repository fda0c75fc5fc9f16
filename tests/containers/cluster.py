"""An overlay's Pods on one network of podman, with the names that Services give them; the caller is the kubelet: it
restarts Pods, looks at probes and counts seconds."""

import copy
import json
import pathlib
import subprocess
import sys
import time
import urllib.error
import urllib.request

import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "k8s"))
from rendered import command_of, template_of

# Features that podman does not have, or that a kubelet provides in its place.
_KUBELETS = ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "terminationMessagePolicy")
_SCHEDULERS = ("topologySpreadConstraints", "priorityClassName", "serviceAccountName", "automountServiceAccountToken",
               "enableServiceLinks")
PATIENCE_SECONDS = 60


def pod_of(thing, name):
    """A Pod as its Deployment, StatefulSet, Job or CronJob would make it."""
    template = copy.deepcopy(template_of(thing))
    spec = template["spec"]
    for key in _SCHEDULERS:
        spec.pop(key, None)
    for container in spec["containers"] + spec.get("initContainers", []):
        for key in _KUBELETS:
            container.pop(key, None)
        container.pop("ports", None)  # podman would take them on the host
    spec.setdefault("volumes", [])
    for claim in thing["spec"].get("volumeClaimTemplates", []):
        volume = {"name": claim["metadata"]["name"],
                  "persistentVolumeClaim": {"claimName": f"{claim['metadata']['name']}-{name}"}}
        spec["volumes"].append(volume)
    absent = {volume["name"] for volume in spec["volumes"] if volume.get("secret", {}).get("optional")}
    spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] not in absent]
    for container in spec["containers"]:
        container["volumeMounts"] = [one for one in container.get("volumeMounts", []) if one["name"] not in absent]
    spec["restartPolicy"] = "Never"
    metadata = {"name": name, "labels": template["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


class Cluster:
    def __init__(self, engine, objects, image):
        self.engine, self.image = engine, image
        self.network = engine.network("--internal")
        self.owners = {f"{thing['kind']}/{thing['metadata']['name']}": thing for thing in objects if template_of(thing)}
        self.configuration = [thing for thing in objects if thing["kind"] in ("ConfigMap", "Secret")]
        self.pods = {}  # name: the rendered Pod
        self.known_addresses = {}  # of those that are ready, as a Service has them; read by other threads

    def play(self, owner, name, change=None, wait=True):
        """Starts a Pod of an owner and returns when it is ready."""
        pod = pod_of(self.owners[owner], name)
        if change:
            change(pod)
        for container in pod["spec"]["containers"] + pod["spec"].get("initContainers", []):
            words = command_of(self.configuration, container)  # podman expands no variables of ConfigMaps
            container["command"], container["args"] = words[:1], words[1:]
        self.pods[name] = pod
        # A ConfigMap's hash is part of its name, so each Pod is started with all of them. A Pod of a StatefulSet can be
        # reached by its Service's name too.
        file = self.engine.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump_all([*self.configuration, pod]))
        alias = f"{name}.{self.owners[owner]['spec']['serviceName']}" if owner.startswith("StatefulSet") else name
        words = ["kube", "play", f"--network={self.network}:alias={alias}", file]
        if not wait:
            return self.engine.start(*words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.engine.run(*words)  # returns when init containers have ended
        self.wait_ready(name)
        return None

    def container(self, name):
        return f"{name}-{self.pods[name]['spec']['containers'][0]['name']}"

    def address(self, name):
        """The Pod's, or None while it has none."""
        infra = self.engine.inspect("pod", "inspect", name)["InfraContainerID"]
        ran = self.engine.run("inspect", infra, check=False)
        if ran.returncode != 0:
            return None
        networks = json.loads(ran.stdout)[0]["NetworkSettings"]["Networks"]
        return networks[self.network]["IPAddress"] or None

    def state(self, name):
        return self.engine.inspect("inspect", self.container(name))[0]["State"]

    def logs(self, name):
        ran = self.engine.run("logs", self.container(name), check=False)
        return ran.stdout + ran.stderr

    def probe(self, name, path="/readyz", port=9400):
        """The status and text of a route of a Pod."""
        try:
            with urllib.request.urlopen(f"http://{self.address(name)}:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def wait_ready(self, name):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            status, text = self.probe(name)
            if status == 200:
                self.known_addresses[name] = self.address(name)
                return
            if self.state(name)["Status"] == "exited" or time.monotonic() > deadline:
                raise RuntimeError(f"{name} is not ready: {status} {text}\n{self.logs(name)[-3000:]}")
            time.sleep(0.1)

    def run_job(self, owner, *names):
        """Runs the Pods of a Job side by side. Returns their exit statuses."""
        players = [self.play(owner, name, wait=False) for name in names]
        for player in players:
            _, said = player.communicate()
            if player.returncode != 0:
                raise RuntimeError(f"{owner} could not be played: {said}")
        return [self.wait_ended(name) for name in names]

    def wait_ended(self, name, patience=PATIENCE_SECONDS):
        """The exit status of a Pod that ends by itself."""
        deadline = time.monotonic() + patience
        while (state := self.state(name))["Status"] not in ("exited", "stopped"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} has not ended\n{self.logs(name)[-3000:]}")
            time.sleep(0.1)
        return state["ExitCode"]

    def terminate(self, name):
        """What the kubelet does to end a Pod: SIGTERM to process 1. Returns (seconds, exit status)."""
        self.known_addresses.pop(name, None)
        begin = time.monotonic()
        self.engine.run("kill", "--signal=TERM", self.container(name))
        status = int(self.engine.run("wait", "--interval=50ms", self.container(name)).stdout)
        return time.monotonic() - begin, status

    def remove(self, name):
        """The Pod is gone at once, as with its node."""
        self.known_addresses.pop(name, None)
        self.engine.run("pod", "rm", "--force", "--time=0", name)

    def replace(self, owner, name, change=None):
        """Killed, and made anew with another address. Returns the seconds until it is ready."""
        before = self.address(name)
        self.remove(name)
        begin = time.monotonic()
        self.play(owner, name, change)
        if self.address(name) == before:
            raise RuntimeError(f"{name} came back with the same address {before}: nothing is shown")
        return time.monotonic() - begin
