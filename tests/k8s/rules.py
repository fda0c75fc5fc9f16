"""What holds for every overlay beyond the schemas. Each rule is a function of a World that yields sentences about what
breaks it; manifests_test.py shows for each a broken copy that it refuses."""

import re
from dataclasses import dataclass

from programs import SERVICES
from rendered import command_of, component, config_of, containers, labels, pods, selects, title

# docs/architecture.md, "Processes": who connects to whom, on which port. A group that spans hosts adds its ranks.
ARROWS = {("gateway", "scheduler", "5555"), ("client", "scheduler", "5555"), ("tokenizer", "scheduler", "5556"),
          ("worker", "scheduler", "5556"), ("converter", "scheduler", "5556"), ("*", "gateway", "8000")}
RANKS = ("worker", "worker", "1024-65535")
METRICS = {("prometheus", name, port) for name, port in [("*", "9400"), ("*", "9401")]}
IMAGES = {"optserve", "optserve-cuda"}
GPU = "nvidia.com/gpu"
DRAINS = {"OPTSERVE_WORKER_DRAIN_MS": 0.001, "OPTSERVE_GATEWAY_DRAIN_MS": 0.001,
          "OPTSERVE_SCHEDULER_DRAIN_SECONDS": 1, "OPTSERVE_CONVERTER_DRAIN_SECONDS": 1}
MARGIN_SECONDS = 15  # between the drain's end and the kubelet's patience
RESTRICTED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected",
                      "secret", "image"}


@dataclass
class World:
    objects: list
    programs: object  # programs.Programs
    statuses: dict    # of the routes of a real process
    metrics: dict     # of a real scheduler

    def pods(self):
        return pods(self.objects)

    def all_containers(self):
        for thing, template in self.pods():
            for container in containers(template):
                yield f"{title(thing)}, container {container['name']}", template, container

    def port_names(self, selector):
        templates = [template for _, template in self.pods() if selects(selector, labels(template))]
        return {port["name"] for template in templates for one in containers(template) for port in one.get("ports", [])}

    def of_kind(self, kind):
        return [thing for thing in self.objects if thing["kind"] == kind]

    def names(self, kind):
        return {thing["metadata"]["name"] for thing in self.of_kind(kind)}


def pod_security(world):
    for thing, template in world.pods():
        spec, security = template["spec"], template["spec"].get("securityContext", {})
        if not security.get("runAsNonRoot") or not security.get("runAsUser") or not security.get("runAsGroup"):
            yield f"{title(thing)} may run as root"
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{title(thing)} has no seccomp profile"
        if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{title(thing)} uses a namespace of its host"
        for volume in spec.get("volumes", []):
            if not (set(volume) - {"name"}) <= RESTRICTED_VOLUMES:
                yield f"{title(thing)} has the volume {volume}"
    for where, _, container in world.all_containers():
        security = container.get("securityContext", {})
        if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
            yield f"{where} may gain privileges"
        if security.get("capabilities", {}).get("drop") != ["ALL"] or security["capabilities"].get("add"):
            yield f"{where} has capabilities"
        if any("hostPort" in port for port in container.get("ports", [])):
            yield f"{where} takes a port of its host"


def read_only_root(world):
    for where, template, container in world.all_containers():
        is_on_gpu = component(template) == "worker" and GPU in str(container.get("resources"))
        has_claims = "claims" in container.get("resources", {})
        if not container.get("securityContext", {}).get("readOnlyRootFilesystem") and not is_on_gpu and not has_claims:
            yield f"{where} can write to its root"


def namespaces(world):
    for thing in world.of_kind("Namespace"):
        if thing["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"{title(thing)} does not enforce restricted Pods"


def accounts(world):
    for thing in world.of_kind("ServiceAccount"):
        if thing.get("automountServiceAccountToken") is not False:
            yield f"{title(thing)} gives its token away"
    for thing, template in world.pods():
        if template["spec"].get("automountServiceAccountToken") is not False:
            yield f"{title(thing)} has a token"
        if template["spec"].get("enableServiceLinks") is not False:
            yield f"{title(thing)} gets variables of Services, which look like options"


def termination_messages(world):
    for where, _, container in world.all_containers():
        if container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
            yield f"{where} ends without a message"


def references(world):
    for thing, template in world.pods():
        spec = template["spec"]
        if spec["serviceAccountName"] not in world.names("ServiceAccount"):
            yield f"{title(thing)}: there is no ServiceAccount {spec['serviceAccountName']}"
        if spec["priorityClassName"] not in world.names("PriorityClass"):
            yield f"{title(thing)}: there is no PriorityClass {spec['priorityClassName']}"
        claims = world.names("PersistentVolumeClaim") | {
            f"{claim['metadata']['name']}-{owner['metadata']['name']}-0" for owner in world.of_kind("StatefulSet")
            for claim in owner["spec"]["volumeClaimTemplates"]}
        own = {claim["metadata"]["name"] for claim in thing["spec"].get("volumeClaimTemplates", [])}
        volumes = {volume["name"] for volume in spec.get("volumes", [])} | own
        for volume in spec.get("volumes", []):
            name = volume.get("persistentVolumeClaim", {}).get("claimName")
            if name and name not in claims:
                yield f"{title(thing)}: there is no PersistentVolumeClaim {name}"
        for container in containers(template):
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"{title(thing)}: there is no volume {mount['name']}"
    for where, _, container in world.all_containers():
        for source in container.get("envFrom", []):
            if source["configMapRef"]["name"] not in world.names("ConfigMap"):
                yield f"{where}: there is no ConfigMap {source['configMapRef']['name']}"
        for word in command_of(world.objects, container):
            if "$(" in word:
                yield f"{where}: nothing sets {word}"


def hashed_config(world):
    for thing in world.of_kind("ConfigMap"):
        if not re.search(r"-[a-z0-9]{10}$", thing["metadata"]["name"]):
            yield f"{title(thing)} has no hash, so that a change would restart nothing"


def images(world):
    for where, template, container in world.all_containers():
        name, _, tag = container["image"].rpartition(":")
        if name.split("/")[-1] not in IMAGES or tag in ("", "latest"):
            yield f"{where}: image {container['image']}"
        wants_gpu = GPU in str(container.get("resources")) or "claims" in container.get("resources", {})
        if wants_gpu != (name.split("/")[-1] == "optserve-cuda"):
            yield f"{where}: {container['image']} with{'' if wants_gpu else 'out'} GPUs"
        if not world.programs.exists(container["command"][0]):
            yield f"{where}: there is no program {container['command'][0]}"


def flags(world):
    for where, _, container in world.all_containers():
        if not world.programs.exists(container["command"][0]):
            continue
        words = [word for word in container["command"] if not word.startswith("-")]
        known = world.programs.flags(words)
        for word in container.get("args", []) + container["command"][len(words):]:
            if word.startswith("-") and word.split("=")[0] not in known:
                yield f"{where}: {words} has no option {word}"


def variables(world):
    for where, _, container in world.all_containers():
        program = container["command"][0]
        if program not in SERVICES:
            continue
        for name in config_of(world.objects, container):
            if name.startswith("OPTSERVE_") and name not in world.programs.variables(program):
                yield f"{where}: {program} does not read {name}"
    used = [name for _, _, container in world.all_containers() for name in config_of(world.objects, container)]
    for thing in world.of_kind("ConfigMap"):
        for key in thing.get("data", {}):
            if key not in used:
                yield f"{title(thing)}: nobody reads {key}"


def _ports_by_configuration(values):
    """Port names and numbers that a program's variables give it."""
    found = {}
    for name, value in values.items():
        if name.endswith("_HTTP_PORT"):
            found["metrics"] = int(value)
        elif name == "OPTSERVE_GATEWAY_HTTP":
            found["api"] = int(value.rpartition(":")[2])
        elif name.startswith("OPTSERVE_SCHEDULER_BIND_"):
            found[name.removeprefix("OPTSERVE_SCHEDULER_BIND_").lower()] = int(value.rpartition(":")[2])
    if "metrics" in found and "OPTSERVE_WORKER_MODEL" in values:
        found["rank-0"] = found["metrics"] + 1
    if int(values.get("OPTSERVE_WORKER_NODES", 1)) > 1:
        found["rendezvous"] = 29500
    return found


def ports(world):
    for where, _, container in world.all_containers():
        values = config_of(world.objects, container)
        given = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        if container["command"][0] in SERVICES and container["command"][1:2] != ["convert"]:
            if given != _ports_by_configuration(values):
                yield f"{where}: ports {given}, its configuration gives {_ports_by_configuration(values)}"
            if any(value.startswith("127.") for name, value in values.items() if name.endswith("_HTTP_ADDRESS")):
                yield f"{where}: the kubelet does not reach it"
    for service in world.of_kind("Service"):
        names = world.port_names({"matchLabels": service["spec"]["selector"]})
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in names:
                yield f"{title(service)}: its Pods have no port {port['targetPort']}"
    for monitor in world.of_kind("PodMonitor"):
        names = world.port_names(monitor["spec"]["selector"])
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            if endpoint["port"] not in names or world.statuses.get(endpoint["path"]) != 200:
                yield f"{title(monitor)}: no Pod serves {endpoint['path']} at {endpoint['port']}"


def probes(world):
    for where, _, container in world.all_containers():
        if container["command"][0] not in SERVICES or "ports" not in container:
            continue
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            get = container.get(kind, {}).get("httpGet", {})
            if get.get("port") not in {port["name"] for port in container["ports"]}:
                yield f"{where}: {kind} asks port {get.get('port')}"
            if world.statuses.get(get.get("path"), 404) == 404:
                yield f"{where}: {kind} asks {get.get('path')}, which is not served"


def grace(world):
    for thing, template in world.pods():
        needed = MARGIN_SECONDS
        for container in template["spec"]["containers"]:
            values = config_of(world.objects, container)
            needed += sum(float(values[name]) * unit for name, unit in DRAINS.items() if name in values)
            needed += container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if template["spec"].get("terminationGracePeriodSeconds", 0) < needed:
            yield f"{title(thing)} needs {needed:.0f} s to end"


def rollouts(world):
    for thing in world.of_kind("Deployment"):
        rolling = thing["spec"]["strategy"].get("rollingUpdate", {})
        template = thing["spec"]["template"]
        is_worker = component(template) == "worker" or GPU in str(template)
        expected = {"maxSurge": 0, "maxUnavailable": 1} if is_worker else {"maxSurge": 1, "maxUnavailable": 0}
        if rolling != expected:
            yield f"{title(thing)}: a rollout with {rolling}, expected {expected}"
        if thing["spec"].get("minReadySeconds", 0) < 5:
            yield f"{title(thing)}: a Pod counts as available at once"
    for thing in world.of_kind("LeaderWorkerSet"):
        spec = thing["spec"]
        if spec["rolloutStrategy"]["rollingUpdateConfiguration"] != {"maxUnavailable": 1, "maxSurge": 0}:
            yield f"{title(thing)}: a rollout that waits for GPUs"
        if spec["leaderWorkerTemplate"]["restartPolicy"] != "RecreateGroupAfterStart":
            yield f"{title(thing)}: a group would be recreated while its Pods are pending"
        if spec["startupPolicy"] != "LeaderCreated":
            yield f"{title(thing)}: its leader is not ready before its workers"


def resources(world):
    for where, template, container in world.all_containers():
        limits = container.get("resources", {}).get("limits", {})
        if "memory" not in limits or "cpu" not in container["resources"].get("requests", {}):
            yield f"{where} has no memory limit, or no request of processors"
            continue
        for volume in template["spec"].get("volumes", []):
            is_in_memory = volume.get("emptyDir", {}).get("medium") == "Memory"
            if is_in_memory and component(template) == "worker" and container in template["spec"]["containers"]:
                if _bytes(volume["emptyDir"]["sizeLimit"]) * 2 > _bytes(limits["memory"]):
                    yield f"{where}: /dev/shm may take half of its memory limit"


def _bytes(text):
    number, unit = re.fullmatch(r"(\d+)([KMG]i)", text).groups()
    return int(number) << {"Ki": 10, "Mi": 20, "Gi": 30}[unit]


def gpus(world):
    for thing, template in world.pods():
        for container in template["spec"]["containers"]:
            values = config_of(world.objects, container)
            if values.get("OPTSERVE_WORKER_DEVICE") != "cuda":
                continue
            ranks = int(values["OPTSERVE_WORKER_WORLD"]) // int(values.get("OPTSERVE_WORKER_NODES", 1))
            found = container["resources"]["limits"].get(GPU)
            if "claims" in container["resources"]:
                found = sum(request["exactly"]["count"] for claim in world.of_kind("ResourceClaimTemplate")
                            for request in claim["spec"]["spec"]["devices"]["requests"])
            if found != ranks:
                yield f"{title(thing)}: {found} GPUs for {ranks} ranks of a Pod"
            nodes = thing["spec"].get("leaderWorkerTemplate", {}).get("size", 1)
            if nodes != int(values.get("OPTSERVE_WORKER_NODES", 1)):
                yield f"{title(thing)}: {nodes} Pods for {values.get('OPTSERVE_WORKER_NODES')} hosts"
            sizes = [_bytes(volume["emptyDir"]["sizeLimit"]) for volume in template["spec"]["volumes"]
                     if volume.get("emptyDir", {}).get("medium") == "Memory"]
            asked = re.findall(r"--shared-memory-mib=(\d+)", str(template["spec"].get("initContainers")))
            mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
            if not sizes or not asked or int(asked[0]) << 20 > sizes[0] or "/dev/shm" not in mounted:
                yield f"{title(thing)}: /dev/shm is not sized, mounted and looked at"


def endpoints(world):
    """Every address of a scheduler is that of a Pod of the StatefulSet, at the port for those who ask."""
    known = {}
    for owner in world.of_kind("StatefulSet"):
        service = [one for one in world.of_kind("Service") if one["metadata"]["name"] == owner["spec"]["serviceName"]]
        spec = service[0]["spec"] if service else {}
        if spec.get("clusterIP") != "None" or not spec.get("publishNotReadyAddresses"):
            yield f"{title(owner)}: its Service is not headless, or hides Pods that start"
            continue
        for index in range(owner["spec"]["replicas"]):
            host = f"{owner['metadata']['name']}-{index}.{service[0]['metadata']['name']}"
            known |= {f"tcp://{host}:{port['port']}": port["name"] for port in service[0]["spec"]["ports"]}
    for where, template, container in world.all_containers():
        text = " ".join([*command_of(world.objects, container), *config_of(world.objects, container).values()])
        wanted = "clients" if component(template) in ("gateway", "client") else "services"
        found = re.findall(r"tcp://[a-z][^ ,\"]*", text)
        for address in found:
            if known.get(address) != wanted:
                yield f"{where}: {address} is no address of a scheduler for {wanted}"
        expected = sum(name == wanted for name in known.values())
        if found and len(set(found)) != expected:
            yield f"{where} knows {len(set(found))} of {expected} schedulers"


def budgets(world):
    for thing, template in world.pods():
        budget = [one for one in world.of_kind("PodDisruptionBudget")
                  if selects(one["spec"]["selector"], labels(template))]
        is_serving = thing["kind"] in ("Deployment", "StatefulSet", "LeaderWorkerSet")
        if len(budget) != is_serving:
            yield f"{title(thing)} has {len(budget)} PodDisruptionBudgets"
    for one in world.of_kind("PodDisruptionBudget"):
        spec = one["spec"]
        if spec.get("maxUnavailable") != 1 or spec.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield f"{title(one)} blocks drains of nodes"


def selectors(world):
    for thing in world.of_kind("Deployment") + world.of_kind("StatefulSet"):
        selected = [title(other) for other, template in world.pods()
                    if selects(thing["spec"]["selector"], labels(template))]
        if selected != [title(thing)]:
            yield f"{title(thing)} selects the Pods of {selected}"


def _peers(rule, key):
    """The components of a rule's peers; Prometheus by its own name, everybody as *."""
    for peer in rule.get(key, [{}]):
        selector = peer.get("podSelector", {})
        if peer.get("namespaceSelector"):
            yield "prometheus"
            continue
        values = [expression["values"] for expression in selector.get("matchExpressions", [])]
        yield from values[0] if values else [selector.get("matchLabels", {}).get("app.kubernetes.io/component", "*")]


def _arrows(world, direction):
    for policy in world.of_kind("NetworkPolicy"):
        own = list(_peers({"own": [{"podSelector": policy["spec"]["podSelector"]}]}, "own"))
        for rule in policy["spec"].get(direction, []):
            for port in rule.get("ports", [{}]):
                number = f"{port.get('port', '*')}" + (f"-{port['endPort']}" if "endPort" in port else "")
                for peer in _peers(rule, "from" if direction == "ingress" else "to"):
                    for name in own:
                        yield (peer, name, number) if direction == "ingress" else (name, peer, number)


def arrows(world):
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in world.of_kind("NetworkPolicy")}
    closed = policies.get("deny-all", {})
    if closed != {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}:
        yield "nothing denies what is not allowed"
    expected = set(ARROWS)
    if world.of_kind("LeaderWorkerSet"):
        expected.add(RANKS)
    incoming = set(_arrows(world, "ingress"))
    if incoming - METRICS != expected:
        yield f"may come in: {sorted(incoming - METRICS ^ expected)} differ from docs/architecture.md"
    outgoing = {arrow for arrow in _arrows(world, "egress") if arrow != ("*", "prometheus", "53")}
    if different := outgoing ^ {arrow for arrow in expected if arrow[0] != "*"}:
        yield f"may go out: {sorted(different)} differ from docs/architecture.md"


def models(world):
    """Whoever serves a model is known to tokenizers, gateways and, if it can scale to none, schedulers."""
    values = {}
    for _, template, container in world.all_containers():
        if container in template["spec"]["containers"]:
            values.setdefault(component(template), []).append(config_of(world.objects, container))
    served = {config["OPTSERVE_WORKER_MODEL"] for config in values.get("worker", [])}
    for who in ("tokenizer", "gateway"):
        for config in values.get(who, []):
            known = set(config[f"OPTSERVE_{who.upper()}_MODEL"].split(","))
            if served - known:
                yield f"{who} does not know {sorted(served - known)}"
    for scaled in world.of_kind("ScaledObject"):
        target = scaled["spec"]["scaleTargetRef"]["name"]
        owner = [one for one in world.of_kind("Deployment") if one["metadata"]["name"] == target]
        if not owner:
            yield f"{title(scaled)}: there is no Deployment {target}"
            continue
        worker = config_of(world.objects, containers(owner[0]["spec"]["template"])[-1])
        model = worker["OPTSERVE_WORKER_MODEL"].split("=")[0]
        kept = [config.get("OPTSERVE_SCHEDULER_MODELS", "").split(",") for config in values["scheduler"]]
        if not all(model in names for names in kept):
            yield f"{title(scaled)}: without groups, the scheduler refuses jobs of {model}"
        if f'model="{model}"' not in scaled["spec"]["triggers"][0]["metadata"]["query"]:
            yield f"{title(scaled)} counts the jobs of another model"
        if "replicas" in owner[0]["spec"]:
            yield f"{title(owner[0])} sets the number that {title(scaled)} decides"


def keys(world):
    """Processes on several machines connect with keys, or say that they do without."""
    for where, _, container in world.all_containers():
        program, values = container["command"][0], config_of(world.objects, container)
        is_connected = program in SERVICES and "ports" in container
        says = any(name.endswith(("_SECRET_KEY", "_INSECURE")) and value for name, value in values.items())
        if is_connected and not says:
            yield f"{where} has neither a key nor --insecure"


def metrics(world):
    """Metrics and labels in queries exist; `namespace` is the scraper's."""
    for scaled in world.of_kind("ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            for name, inside in re.findall(r"(optserve_\w+)(?:\{([^}]*)\})?", trigger["metadata"]["query"]):
                used = set(re.findall(r"(\w+)\s*[!=]", inside)) - {"namespace"}
                if name not in world.metrics or used - world.metrics[name]["labels"]:
                    yield f"{title(scaled)}: no metric {name} with {sorted(used)}"


RULES = [pod_security, read_only_root, namespaces, accounts, termination_messages, references, hashed_config, images,
         flags, variables, ports, probes, grace, rollouts, resources, gpus, endpoints, budgets, selectors, arrows,
         models, metrics]
