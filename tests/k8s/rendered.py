"""Manifests as `kubectl kustomize` renders them, and what a test wants to know of them."""

import os
import pathlib
import re
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
KUBECTL = pathlib.Path(sys.executable).parent / "kubectl"
_TEMPLATES = {  # where the template of a kind's Pods is
    "Deployment": ("spec", "template"), "StatefulSet": ("spec", "template"), "Job": ("spec", "template"),
    "DaemonSet": ("spec", "template"), "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "LeaderWorkerSet": ("spec", "leaderWorkerTemplate", "workerTemplate"),
}


def render(folder):
    """The objects of a folder with a kustomization. Ends the program with kubectl's message if it fails."""
    ran = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if ran.returncode != 0 or ran.stderr:
        sys.exit(f"FAILED: kubectl kustomize {folder}: {ran.stderr}")
    return [document for document in yaml.safe_load_all(ran.stdout) if document]


def render_overlay(name):
    """What is applied of an overlay: its objects, and the Jobs that are applied by themselves."""
    folder = ROOT / "k8s" / "overlays" / name
    jobs = [folder / job for job in ("convert", "restore") if (folder / job).exists()]
    return render(folder) + [thing for job in jobs for thing in render(job)]


def render_together(folder, name, resources, components=()):
    """What a kustomization of these resources and components gives; it is written to `folder`."""
    place = pathlib.Path(folder) / name
    place.mkdir(parents=True)
    relative = lambda path: os.path.relpath(ROOT / "k8s" / path, place)  # Kustomize takes no absolute paths
    text = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": "optserve",
            "images": [{"name": "optserve", "newTag": "0"}, {"name": "optserve-cuda", "newTag": "0"}],
            "resources": [relative(path) for path in resources],
            "components": [relative(path) for path in components]}
    (place / "kustomization.yaml").write_text(yaml.safe_dump(text))
    return render(place)


def title(thing):
    return f"{thing['kind']}/{thing['metadata']['name']}"


def template_of(thing):
    """The template of its Pods, or None."""
    for key in _TEMPLATES.get(thing["kind"], ()):
        thing = thing[key]
    return thing if "spec" in thing and "containers" in thing["spec"] else None


def pods(objects):
    """(object, Pod template) of everything that makes Pods."""
    return [(thing, template) for thing in objects if (template := template_of(thing))]


def containers(template):
    return template["spec"].get("initContainers", []) + template["spec"]["containers"]


def labels(template):
    return template["metadata"].get("labels", {})


def component(template):
    return labels(template).get("app.kubernetes.io/component", "")


def config_of(objects, container):
    """The variables of a container, as the kubelet would set them; a value from a field is its path."""
    maps = {thing["metadata"]["name"]: thing.get("data", {}) for thing in objects if thing["kind"] == "ConfigMap"}
    variables = {}
    for source in container.get("envFrom", []):
        variables |= maps.get(source.get("configMapRef", {}).get("name"), {})
    for entry in container.get("env", []):
        variables[entry["name"]] = entry.get("value", str(entry.get("valueFrom")))
    return variables


def expanded(text, variables):
    return re.sub(r"\$\((\w+)\)", lambda found: variables.get(found[1], found[0]), text)


def command_of(objects, container):
    words = container.get("command", []) + container.get("args", [])
    return [expanded(word, config_of(objects, container)) for word in words]


def selects(selector, its_labels):
    """Whether a label selector picks an object of these labels."""
    if any(its_labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for one in selector.get("matchExpressions", []):
        is_in = its_labels.get(one["key"]) in one.get("values", [])
        if is_in != (one["operator"] == "In"):
            return False
    return True
