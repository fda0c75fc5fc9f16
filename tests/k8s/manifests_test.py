#!/usr/bin/env python3
"""Every overlay is rendered, every object validated against the schemas of the oldest and the newest Kubernetes, every
rule of rules.py held, and each rule seen to refuse a broken copy.

usage: manifests_test.py FOLDER_OF_PROGRAMS
"""

import copy
import pathlib
import sys
import tempfile

import yaml

import rules
import schemas
from programs import Programs
from rendered import ROOT, containers, pods, render_overlay, render_together

MODEL = "a-model"
# Combinations that no overlay has, and the oldest Kubernetes that knows all of their fields.
COMBINATIONS = [
    ("dra", "1.34", ["base", "overlays/single-node/model"], ["components/dra"]),
    ("image-volume", schemas.OLDEST, ["base", "overlays/single-node/model"], ["components/image-volume"]),
    ("ipv6", schemas.OLDEST, ["base", "base/worker"], ["components/ipv6"]),
    ("kueue", schemas.OLDEST, ["base", "jobs/convert"], ["components/kueue"]),
    ("curve", schemas.OLDEST, ["base", "base/worker"], ["components/curve"]),
    ("without-keys", schemas.OLDEST, ["base", "base/worker"], ["components/without-keys"]),
]
# The manifests that have to say how their processes connect, if the programs support keys.
KEYED = {"demo-cpu", "single-node", "production", "multi-node", "curve", "without-keys"}
# Their tokenizers and gateways have not been told of the worker's model.
WITHOUT_MODELS = {"ipv6", "image-volume", "dra", "curve", "without-keys"}


def expect(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what}", flush=True)


def broken_by(rule, world):
    return list(rule(world))


def check(name, objects, oldest, world_of, without=()):
    for version in sorted({oldest, schemas.NEWEST}):
        found = list(schemas.problems(objects, version))
        expect(not found, "\n".join([f"{name}: {len(objects)} objects fit Kubernetes {version}", *found]))
    world = world_of(objects)
    if world.programs.have_keys() and name in KEYED:
        expect(not broken_by(rules.keys, world), f"{name} says by which keys its processes connect")
    for rule in rules.RULES:
        if rule.__name__ in without:
            continue
        found = broken_by(rule, world)
        if found:
            sys.exit(f"FAILED: {name}: {rule.__name__}: " + "\n  ".join(found))
    print(f"ok: {name} holds {len(rules.RULES) - len(without)} rules", flush=True)


def the(objects, kind, start=""):
    return next(one for one in objects if one["kind"] == kind and one["metadata"]["name"].startswith(start))


def first_container(objects, kind, start=""):
    return dict((id(one), containers(template)[-1]) for one, template in pods(objects))[id(the(objects, kind, start))]


def pod(objects, kind, start=""):
    return dict((id(one), template) for one, template in pods(objects))[id(the(objects, kind, start))]["spec"]


def volume(objects, deployment, kind):
    """What the first volume of this kind is made of."""
    return next(one[kind] for one in pod(objects, "Deployment", deployment)["volumes"] if kind in one)


def set_(objects, name, **values):
    the(objects, "ConfigMap", name)["data"].update(values)


def let_in(objects, name, its_labels):
    peers = the(objects, "NetworkPolicy", name)["spec"]["ingress"][0]["from"]
    peers.append({"podSelector": {"matchLabels": its_labels}})


def query(objects, text):
    the(objects, "ScaledObject")["spec"]["triggers"][0]["metadata"].update(query=text)


def group(objects):
    return the(objects, "LeaderWorkerSet")["spec"]["leaderWorkerTemplate"]


# For each rule: what is done to a copy of the production overlay (or of the one named) so that the rule refuses it.
BREAK = [
    (rules.pod_security, lambda o: pod(o, "Deployment", "gateway")["securityContext"].update(runAsNonRoot=False)),
    (rules.pod_security, lambda o: pod(o, "CronJob").update(hostNetwork=True)),
    (rules.pod_security, lambda o: pod(o, "StatefulSet")["securityContext"].pop("seccompProfile")),
    (rules.pod_security,
     lambda o: first_container(o, "StatefulSet")["securityContext"]["capabilities"].update(add=["NET_ADMIN"])),
    (rules.pod_security,
     lambda o: pod(o, "Deployment", "worker")["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
    (rules.read_only_root,
     lambda o: first_container(o, "Deployment", "tokenizer")["securityContext"].pop("readOnlyRootFilesystem")),
    (rules.namespaces, lambda o: the(o, "Namespace")["metadata"].pop("labels")),
    (rules.accounts, lambda o: the(o, "ServiceAccount").pop("automountServiceAccountToken")),
    (rules.accounts, lambda o: pod(o, "Deployment", "worker").pop("enableServiceLinks")),
    (rules.termination_messages, lambda o: first_container(o, "CronJob").pop("terminationMessagePolicy")),
    (rules.references, lambda o: pod(o, "StatefulSet").update(serviceAccountName="nobody")),
    (rules.references,
     lambda o: first_container(o, "Deployment", "worker")["envFrom"][0]["configMapRef"].update(name="worker")),
    (rules.references,
     lambda o: volume(o, "tokenizer", "persistentVolumeClaim").update(claimName="x")),
    (rules.references,
     lambda o: pod(o, "Deployment", "worker")["initContainers"][0]["args"].append("--world=$(WORLD)")),
    (rules.hashed_config, lambda o: the(o, "ConfigMap")["metadata"].update(name="gateway")),
    (rules.images, lambda o: first_container(o, "StatefulSet").update(image="optserve:latest")),
    (rules.images,
     lambda o: first_container(o, "Deployment", "worker").update(image="registry.example/optserve:0.2.0")),
    (rules.images, lambda o: first_container(o, "StatefulSet").update(command=["optserve-queue"])),
    (rules.flags, lambda o: first_container(o, "CronJob")["args"].append("--every-hour")),
    (rules.flags, lambda o: pod(o, "Deployment", "worker")["initContainers"][0]["args"].append("--gpus=2")),
    (rules.variables, lambda o: the(o, "ConfigMap", "scheduler")["data"].update(OPTSERVE_SCHEDULER_JOURNALS="x")),
    (rules.variables, lambda o: first_container(o, "Deployment", "converter").pop("envFrom")),
    (rules.ports, lambda o: the(o, "ConfigMap", "gateway")["data"].update(OPTSERVE_GATEWAY_HTTP="0.0.0.0:8080")),
    (rules.ports, lambda o: the(o, "Service", "gateway")["spec"]["ports"][0].update(targetPort="web")),
    (rules.ports, lambda o: the(o, "ConfigMap", "worker")["data"].update(OPTSERVE_WORKER_HTTP_ADDRESS="127.0.0.1")),
    (rules.ports, lambda o: the(o, "PodMonitor")["spec"]["podMetricsEndpoints"][0].update(path="/prometheus")),
    (rules.probes,
     lambda o: first_container(o, "Deployment", "worker")["startupProbe"]["httpGet"].update(path="/healthz")),
    (rules.probes, lambda o: first_container(o, "StatefulSet").pop("livenessProbe")),
    (rules.grace, lambda o: pod(o, "Deployment", "gateway").update(terminationGracePeriodSeconds=80)),
    (rules.grace, lambda o: the(o, "ConfigMap", "worker")["data"].update(OPTSERVE_WORKER_DRAIN_MS="300000")),
    (rules.rollouts, lambda o: the(o, "Deployment", "worker")["spec"]["strategy"]["rollingUpdate"].update(maxSurge=1)),
    (rules.rollouts, lambda o: the(o, "Deployment", "gateway")["spec"].pop("minReadySeconds")),
    (rules.resources, lambda o: first_container(o, "CronJob")["resources"].pop("limits")),
    (rules.resources, lambda o: first_container(o, "Deployment", "worker")["resources"]["limits"].update(memory="6Gi")),
    (rules.gpus, lambda o: first_container(o, "Deployment", "worker")["resources"]["limits"].update({rules.GPU: 4})),
    (rules.gpus, lambda o: volume(o, "worker", "emptyDir").pop("medium")),
    (rules.endpoints, lambda o: the(o, "Service", "scheduler")["spec"].pop("clusterIP")),
    (rules.endpoints, lambda o: the(o, "StatefulSet")["spec"].update(replicas=1)),
    (rules.endpoints, lambda o: set_(o, "tokenizer", OPTSERVE_TOKENIZER_SCHEDULER="tcp://scheduler-0.scheduler:5555")),
    (rules.budgets, lambda o: the(o, "PodDisruptionBudget")["spec"].update(maxUnavailable=0)),
    (rules.budgets, lambda o: o.remove(the(o, "PodDisruptionBudget", "worker"))),
    (rules.selectors,
     lambda o: the(o, "Deployment", "worker")["spec"]["selector"]["matchLabels"].pop("optserve.org/model")),
    (rules.arrows, lambda o: o.remove(the(o, "NetworkPolicy", "deny-all"))),
    (rules.arrows, lambda o: let_in(o, "scheduler", {"app.kubernetes.io/component": "worker"})),
    (rules.arrows, lambda o: the(o, "NetworkPolicy", "services")["spec"]["egress"][0]["ports"].append({"port": 443})),
    (rules.models,
     lambda o: the(o, "ConfigMap", "tokenizer")["data"].update(OPTSERVE_TOKENIZER_MODEL="opt-30b=/models/opt-30b")),
    (rules.models, lambda o: the(o, "ConfigMap", "scheduler")["data"].pop("OPTSERVE_SCHEDULER_MODELS")),
    (rules.models, lambda o: the(o, "ScaledObject")["spec"]["scaleTargetRef"].update(name="worker")),
    (rules.metrics, lambda o: query(o, 'sum(optserve_waiting{model="x"})')),
    (rules.metrics, lambda o: query(o, 'sum(optserve_model_jobs{name="x"})')),
]
BREAK_GROUPS = [
    (rules.rollouts, lambda o: group(o).update(restartPolicy="RecreateGroupOnPodRestart")),
    (rules.gpus, lambda o: group(o).update(size=4)),
    (rules.arrows, lambda o: o.remove(the(o, "NetworkPolicy", "ranks"))),
    (rules.references, lambda o: the(o, "ConfigMap", "worker")["metadata"].update(name="worker-opt-175b-0000000000")),
]
BREAK_SCHEMAS = [
    ("a field that is not there", lambda o: pod(o, "Deployment", "gateway").update(enableServiceLink=False)),
    ("a wrong type", lambda o: the(o, "StatefulSet")["spec"].update(replicas="one")),
    ("an unknown field of a custom resource", lambda o: the(o, "ScaledObject")["spec"].update(minReplicas=0)),
    ("a custom resource without what it needs", lambda o: the(o, "InferencePool")["spec"].pop("targetPorts")),
    ("a kind that nobody knows", lambda o: the(o, "PodMonitor").update(kind="PodsMonitor")),
]


def check_broken(objects, breaks, world_of):
    for number, (rule, spoil) in enumerate(breaks):
        spoilt = copy.deepcopy(objects)
        spoil(spoilt)
        if not broken_by(rule, world_of(spoilt)):
            sys.exit(f"FAILED: {rule.__name__} does not refuse broken copy {number}")
    return {rule for rule, _ in breaks}


def check_alerts(objects):
    """The operator's rules are those of deploy/monitoring, where there are any."""
    rules_file = ROOT / "deploy" / "monitoring" / "rules.yml"
    if not rules_file.exists():
        return
    found = [one["spec"]["groups"] for one in objects if one["kind"] == "PrometheusRule"]
    expect(found == [yaml.safe_load(rules_file.read_text())["groups"]],
           "the PrometheusRule is deploy/monitoring/rules.yml (k8s/components/monitoring/make_rule.py makes it)")


def main():
    programs = Programs(sys.argv[1])
    statuses, metrics = programs.ask_scheduler(MODEL)
    served = [path for path, status in statuses.items() if status == 200]
    expect(statuses["/nothing"] == 404 and len(served) == 4, f"a process serves {', '.join(served)}")
    world_of = lambda objects: rules.World(objects, programs, statuses, metrics)
    overlays = {}
    for folder in sorted((ROOT / "k8s" / "overlays").iterdir()):
        overlays[folder.name] = render_overlay(folder.name)
        check(folder.name, overlays[folder.name], schemas.OLDEST, world_of)
    check_alerts(overlays["production"])
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as scratch:
        for name, oldest, resources, components in COMBINATIONS:
            if name in ("curve", "without-keys") and not programs.have_keys():
                continue  # the options of a build with keys
            rendered = render_together(scratch, name, resources, components)
            check(name, rendered, oldest, world_of, {"models"} if name in WITHOUT_MODELS else ())
    for what, spoil in BREAK_SCHEMAS:
        spoilt = copy.deepcopy(overlays["production"])
        spoil(spoilt)
        expect(list(schemas.problems(spoilt, schemas.OLDEST)), f"refused: {what}")
    refused = check_broken(overlays["production"], BREAK, world_of)
    refused |= check_broken(overlays["multi-node"], BREAK_GROUPS, world_of)
    num_copies = len(BREAK) + len(BREAK_GROUPS)
    expect(refused == set(rules.RULES), f"{num_copies} broken copies are refused, some by each of {len(refused)} rules")


if __name__ == "__main__":
    main()
