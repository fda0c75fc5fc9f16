"""Validates objects: built-in ones against the schemas of a version of Kubernetes, custom ones against
custom_resources.yaml. A kind without a schema is a failure."""

import pathlib

import jsonschema
import kubernetes_validate
import yaml

from rendered import template_of, title

NEWEST = ".".join(kubernetes_validate.latest_version().split(".")[:2])
OLDEST = "1.33"
_MAP = {"type": "object", "additionalProperties": {"type": "string"}}
_EXPRESSION = {"key*": "string", "operator*": "pattern:In|NotIn|Exists|DoesNotExist", "values": ["string"]}
_SHAPES = {"string": {"type": "string"}, "integer": {"type": "integer"}, "map": _MAP,
           "template": {"type": "object"},  # validated as a PodTemplate besides
           "duration": {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$"}}


def _schema(shape):
    if isinstance(shape, list):
        return {"type": "array", "items": _schema(shape[0]), "minItems": 1}
    if isinstance(shape, dict):
        return {"type": "object", "additionalProperties": False,
                "properties": {key.rstrip("*"): _schema(value) for key, value in shape.items()},
                "required": [key[:-1] for key in shape if key.endswith("*")]}
    if shape == "selector":
        return _schema({"matchLabels": "map", "matchExpressions": [_EXPRESSION]})
    if shape.startswith("pattern:"):
        return {"type": "string", "pattern": f"^({shape[8:]})$"}
    return _SHAPES[shape]


def _custom():
    kinds = yaml.safe_load((pathlib.Path(__file__).parent / "custom_resources.yaml").read_text())
    metadata = _schema({"name*": "pattern:[a-z0-9.-]{1,51}", "namespace": "string", "labels": "map",
                        "annotations": "map"})
    schemas = {}
    for kind, shape in kinds.items():
        whole = _schema({"apiVersion*": "string", "kind*": "string", "spec*": shape["spec"]})
        whole["properties"]["metadata"] = metadata
        schemas[tuple(kind.split())] = whole
    return schemas


_CUSTOM = _custom()


def _problem(thing, version):
    custom = _CUSTOM.get((thing.get("apiVersion"), thing.get("kind")))
    try:
        if custom is None:
            kubernetes_validate.validate(thing, version, strict=True)
        else:
            jsonschema.validate(thing, custom)
            if template := template_of(thing):
                wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
                kubernetes_validate.validate(wrapped, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return f"there is no schema of {thing.get('apiVersion')} {thing.get('kind')} in {version}"
    except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    return None


def problems(objects, version):
    for thing in objects:
        if found := _problem(thing, version):
            yield f"{title(thing)}: {found} ({version})"
