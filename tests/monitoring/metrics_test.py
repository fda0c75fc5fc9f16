#!/usr/bin/env python3
"""The metrics of every process of a running system: promtool has nothing to say against them, docs/monitoring.md lists
each, labels are bounded, and with --metrics-compat vllm they have vLLM's names too.

usage: metrics_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER [--write]    --write makes the table of docs/monitoring.md
"""

import pathlib
import re
import subprocess
import sys
import tempfile

import metric_pages
from system import System, expect, fail, get, wait_until

# The metrics that common tools expect, under our names, by process.
WANTED = {
    "scheduler": "jobs model_jobs model_oldest_job_seconds queue_tokens model_queue_tokens jobs_accepted_total "
                 "jobs_ended_total jobs_busy_total generations_total job_retries_total leases_lost_total "
                 "stale_results_total job_encode_seconds job_queue_seconds job_prefill_seconds job_decode_seconds "
                 "job_detokenize_seconds job_first_token_seconds job_inter_token_seconds job_total_seconds "
                 "prompt_tokens_total output_tokens_total job_prompt_tokens job_output_tokens model_groups "
                 "service_silence_seconds messages_received_total garbage_total undeliverable_total "
                 "journal_commit_seconds journal_bytes journal_disk_full",
    "rank-0": "worker_running_sequences worker_waiting_sequences worker_kv_usage_ratio worker_kv_blocks "
              "worker_cache_info worker_step_seconds worker_step_tokens worker_step_sequences worker_preemptions_total "
              "worker_prompt_tokens_total worker_prefix_cached_tokens_total worker_collective_seconds "
              "worker_load_seconds worker_load_bytes",
    "worker": "worker_group_ready worker_group_members worker_heartbeat_age_seconds worker_group_losses_total",
    "gateway": "http_requests_total http_request_seconds http_first_byte_seconds http_streams "
               "gateway_requests_waiting gateway_requests_running gateway_slot_usage_ratio",
    "tokenizer": "tokenizer_answer_seconds tokenizer_errors_total",
    "converter": "converter_bytes_total converter_conversion_seconds converter_conversions_total",
}


def complete(system, count, **headers):
    for number in range(count):
        body = {"model": "demo", "prompt": f"Once upon a time {number}", "max_tokens": 4}
        status, text = system.post("/v1/completions", body, **headers)
        if status != 200:
            fail(f"a completion: {status} {text}")


def scrape(system):
    texts = {}
    for name, port in system.targets():
        status, texts[name] = get(port, "/metrics")
        if status != 200:
            fail(f"/metrics of {name}: {status}")
    return texts


def lint(text):
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def check_bounded(system):
    """Two hundred requests that all differ add no series but those of two routes."""
    before = {name: text.count("\n") for name, text in scrape(system).items()}
    for number in range(200):
        get(system.api, f"/nowhere/{number}?x={number}")
    system.post("/v1/jobs", {"model": "no-such-model", "prompt": "x", "max_new_tokens": 1})
    after = {name: text.count("\n") for name, text in scrape(system).items()}
    more = {name: after[name] - before[name] for name in after if after[name] - before[name] > 120}
    expect(not more, f"labels never come from requests {more or ''}")


def check_trace(system):
    trace = "0af7651916cd43dd8448eb211c80319c"
    complete(system, 1, traceparent=f"00-{trace}-b7ad6b7169203331-01")
    line = wait_until(lambda: [one for one in system.log_lines("gateway", "request") if one.get("trace_id") == trace],
                      "the request is in the gateway's log")[0]
    slow = wait_until(lambda: [one for one in system.log_lines("scheduler", "job_slow") if one["job"] in line["job"]],
                      "the job is in the scheduler's log")[0]
    expect({"first_token_ms", "queue_ms", "encode_ms", "total_ms", "attempts"} <= set(slow),
           "a trace id leads to a request, its job's id, and where the job's time went")


def check_pages(sources, families, must_write):
    path = sources / "docs/monitoring.md"
    page = path.read_text(encoding="utf-8")
    made = metric_pages.table(families)
    if must_write:
        path.write_text(metric_pages.with_table(page, made), encoding="utf-8")
        return
    there, wanted = metric_pages.table_in(page).splitlines(), made.splitlines()
    different = sorted(set(there) ^ set(wanted))
    expect(not different, f"docs/monitoring.md lists every metric; metrics_test.py --write makes its table {different}")
    header = (sources / "libs/metrics/vllm_names.h").read_text(encoding="utf-8")
    names = metric_pages.vllm_names_of_code(header)
    expect(names and names == metric_pages.vllm_names_of_page(page), "docs/monitoring.md lists the names of vLLM")


def check_vllm(programs, sources, folder):
    names = metric_pages.vllm_names_of_code((sources / "libs/metrics/vllm_names.h").read_text(encoding="utf-8"))
    with System(programs, sources, folder, compat=True) as system:
        system.start_all()
        system.wait_ready()
        complete(system, 3)
        wait_until(lambda: "optserve_gateway_requests_running{" in get(system.ports["gateway"], "/metrics")[1],
                   "the gateway knows the model")
        texts = scrape(system)
    everything = "".join(texts.values())
    theirs = {theirs for _, theirs in names}
    missing = sorted(one for one in theirs
                     if not re.search(rf"^{one}(_count)?{{.*model_name=\"demo\"", everything, re.M))
    expect(not missing, f"--metrics-compat vllm gives all {len(theirs)} names, with model_name {missing or ''}")
    waiting = re.findall(r"^vllm:num_requests_waiting.*", texts["scheduler"], re.M)
    expect(len(waiting) == 1 and 'stage' not in waiting[0], "vLLM's waiting requests are those that wait")
    kinds = dict(re.findall(r"^# TYPE (vllm:\S+) (\S+)", everything, re.M))
    expect(kinds["vllm:num_requests_running"] == "gauge" and kinds["vllm:generation_tokens_total"] == "counter"
           and kinds["vllm:time_to_first_token_seconds"] == "histogram", "and have vLLM's types")


def main():
    programs, sources = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
    must_write = "--write" in sys.argv[3:]
    with tempfile.TemporaryDirectory(prefix="optserve-metrics-") as name:
        folder = pathlib.Path(name)
        with System(programs, sources, folder) as system:
            system.start_all(scheduler=["--slow-job-seconds", "0.000001"])
            system.wait_ready()
            complete(system, 5)
            wait_until(lambda: "optserve_gateway_requests_running{" in get(system.ports["gateway"], "/metrics")[1],
                       "the gateway knows the model")
            texts = scrape(system)
            families = {name: metric_pages.parse(text) for name, text in texts.items()}
            if not must_write:
                for process, text in texts.items():
                    complaints = lint(text)
                    expect(not complaints, f"promtool check metrics: {process} {complaints}")
                    expect("vllm:" not in text, f"{process} has no other names unless it is told to")
                expect(lint("# HELP optserve_x_ms x\n# TYPE optserve_x_ms gauge\noptserve_x_ms 1\n"),
                       "promtool complains about a unit that is none")
                for process, words in WANTED.items():
                    missing = [one for one in words.split() if f"optserve_{one}" not in families[process]]
                    expect(not missing, f"{process} has what is expected of it {missing or ''}")
                check_bounded(system)
                check_trace(system)
        check_pages(sources, families, must_write)
        if not must_write:
            (folder / "vllm").mkdir()
            check_vllm(programs, sources, folder / "vllm")


if __name__ == "__main__":
    main()
