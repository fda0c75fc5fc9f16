"""Runs the calls of a conformance case through the Python client and prints what the caller gets, as driver.cc does."""

import json
import sys

import optserve
from optserve import _messages as m


def struct(kind, fields):
    """A dataclass from JSON, field by field."""
    made = kind()
    for name, text in kind.FIELDS:
        name = name.lstrip("!")
        if name in fields:
            setattr(made, name, value(text, fields[name]))
    return made


def value(text, given):
    if text.endswith("[]"):
        return [value(text[:-2], item) for item in given]
    if text.endswith("?"):
        return None if given is None else value(text[:-1], given)
    return struct(m.STRUCTS[text], given) if text in m.STRUCTS else given


def told(result):
    if isinstance(result, optserve.Error):
        return {"error": result.name, "message": result.message}
    told = {"job": result.job, "state": result.state.name.lower(), "text": result.text}
    if result.error is not None:
        told["failed_with"] = m.ERRORS[result.error][0]
    return told


def followed(stream):
    try:
        for _ in stream:
            pass
        end = told(stream.result())
    except optserve.Error as error:
        end = told(error.result or error)
        if stream._accepted.exception():  # it was not accepted
            return end
    return {**end, "streamed": stream.text, "restarts": stream.restarts}


def outcome(job):
    return told(job) if isinstance(job, optserve.Error) else {"job": job.id, "duplicate": job.duplicate}


def each(call, tell):
    try:
        answers = call()
    except optserve.Error as error:
        return {"answers": [{"error": error.name}]}
    everyone = {**{endpoint: tell(answer) for endpoint, answer in answers.items()},
                **{endpoint: {"error": why.name} for endpoint, why in answers.errors.items()}}
    return {"answers": [everyone[endpoint] for endpoint in ENDPOINTS]}


def status(answer):
    return {"term": answer.term, "queued": answer.queued, "mode": answer.mode.name.lower()}


def conditions(call):
    given = dict(call["filter"])
    if "state" in given:
        given["state"] = m.JobState(given["state"])
    return given


def run(client, call):
    name = call["call"]
    if name == "generate":
        return followed(client._start([struct(m.JobSpec, call["job"])])[0])
    if name == "submit":
        jobs = [struct(m.JobSpec, job) for job in call["jobs"]]
        return {"outcomes": [outcome(job) for job in client.submit_many(jobs)]}
    if name == "attach":
        return followed(client.attach(call["job"], call.get("text_offset", 0)))
    if name in ("get", "cancel", "requeue"):
        return told(getattr(client, name)(call["job"]))
    if name == "wait":
        return told(client.wait(call["job"], call["timeout_ms"] / 1000))
    if name == "status":
        return each(client.status, status)
    if name == "control":
        place = {2: {"model": call.get("name", "")}, 3: {"service": call.get("name", "")}}.get(call["scope"], {})
        return each(lambda: client.control(m.ControlAction(call["action"]), **place), status)
    if name == "list":
        return each(lambda: client.list(limit=call.get("limit", 100), **conditions(call)),
                    lambda page: {"jobs": [job.job for job in page.jobs], "more": page.more})
    if name == "group":
        ask = client.cancel_group if call.get("cancel") else client.group
        group = ask(call["group"], call.get("tenant", ""))
        return {state: getattr(group, state) for state in
                ("open", "succeeded", "failed", "cancelled", "expired", "dead")}
    if name == "purge":
        return {"jobs": client.purge(**conditions(call))}
    assert name == "backup", name
    return each(lambda: client.backup(call["timeout_ms"] / 1000), lambda done: {"file": done.file})


def attempt(client, call):
    try:
        return run(client, call)
    except optserve.Error as error:
        return told(error)


def with_job(call, results):
    """A job may be named by the result that tells its id: 2 is that of the third call, "2.1" its second outcome."""
    name = str(call.get("job", ""))
    if "job" not in call or isinstance(call["job"], dict) or len(name) == 32:
        return call
    number, _, place = name.partition(".")
    result = results[int(number)]
    return {**call, "job": (result["outcomes"][int(place)] if place else result)["job"]}


given = json.load(sys.stdin)
ENDPOINTS = given["endpoints"].split(",")
with optserve.Client(ENDPOINTS, timeout=given.get("timeout_ms", 10_000) / 1000) as the_client:
    found = []
    for each_call in given["calls"]:
        found.append(attempt(the_client, with_job(each_call, found)))
    print(json.dumps(found))
