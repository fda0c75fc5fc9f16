"""The dashboards, of which dashboards/*.json are made (generate.py): Grafana's classic form, which every version reads.

A row of the tables below is a panel: its title, its unit, and its queries with their legends.
"""

M = 'model=~"$model"'
I = 'instance=~"$instance"'
W = f'{M},{I}'
RATE = "$__rate_interval"


def rate(metric, labels="", by=""):
    return f"sum{by and f' by ({by})'}(rate({metric}{{{labels}}}[{RATE}]))"


def quantile(q, metric, labels="", by=""):
    groups = ", ".join(filter(None, [by, "le"]))
    return f"histogram_quantile({q}, sum by ({groups}) (rate({metric}_bucket{{{labels}}}[{RATE}])))"


def quantiles(metric, labels=M):
    return [(quantile(q, metric, labels), f"p{round(q * 100)}") for q in (0.5, 0.9, 0.95, 0.99)] + [
        (f"{rate(metric + '_sum', labels)} / ({rate(metric + '_count', labels)} > 0)", "mean")]


STAGES = ["encode", "queue", "prefill", "decode", "detokenize"]
STAGE_MEANS = [(f"{rate(f'optserve_job_{stage}_seconds_sum', M)} / "
                f"({rate(f'optserve_job_{stage}_seconds_count', M)} > 0)", stage) for stage in STAGES]

OVERVIEW = [
    ("Targets up", "short", [('sum by (job) (up{job=~".*optserve.*"})', "{{job}}")]),
    ("Registered services", "short", [("sum by (service) (optserve_services)", "{{service}}")]),
    ("Groups that take jobs", "short", [(f"sum by (model) (optserve_model_groups{{{M}}})", "{{model}}")]),
    ("Jobs accepted", "reqps", [(rate("optserve_model_jobs_accepted_total", M, "model"), "{{model}}")]),
    ("Jobs ended", "reqps", [(rate("optserve_jobs_ended_total", "", "state"), "{{state}}")]),
    ("Jobs refused", "reqps", [(rate("optserve_jobs_busy_total", "", "reason"), "{{reason}}"),
                               (rate("optserve_jobs_refused_total"), "invalid")]),
    ("Tokens", "short", [(rate("optserve_prompt_tokens_total", M), "prompt"),
                         (rate("optserve_output_tokens_total", M), "output")]),
    ("Time to first token", "s", quantiles("optserve_job_first_token_seconds")),
    ("Between tokens", "s", quantiles("optserve_job_inter_token_seconds")),
    ("Jobs by stage", "short", [("sum by (stage) (optserve_jobs)", "{{stage}}")]),
    ("Oldest job that waits", "s", [(f"max by (model) (optserve_model_oldest_job_seconds{{{M}}})", "{{model}}")]),
    ("HTTP answers", "reqps", [(rate("optserve_http_requests_total", "", "code"), "{{code}}")]),
    ("HTTP streams", "short", [("sum(optserve_http_streams)", "streams"),
                               ("sum(optserve_http_connections)", "connections")]),
    ("Error ratio (objective 0.5%)", "percentunit", [("slo:optserve_availability:error_ratio_1h", "jobs, 1 h"),
                                                     ("slo:optserve_first_token:error_ratio_1h", "first token, 1 h")]),
    ("Processes", "short", [("count by (program, version) (optserve_build_info)", "{{program}} {{version}}")]),
]

MODEL = [
    ("Jobs", "short", [(f"sum by (stage) (optserve_model_jobs{{{M}}})", "{{stage}}")]),
    ("Jobs ended", "reqps", [(rate("optserve_model_jobs_ended_total", M, "state"), "{{state}}")]),
    ("Ends of texts", "reqps", [(rate("optserve_generations_total", M, "finish_reason"), "{{finish_reason}}")]),
    ("Time to first token", "s", quantiles("optserve_job_first_token_seconds")),
    ("Between tokens", "s", quantiles("optserve_job_inter_token_seconds")),
    ("Whole job", "s", quantiles("optserve_job_total_seconds")),
    ("Time in the queue", "s", quantiles("optserve_job_queue_seconds")),
    ("Where the time goes (mean)", "s", STAGE_MEANS),
    ("Expected wait of a new job", "s", [(f"max(optserve_model_expected_wait_seconds{{{M}}})", "wait")]),
    ("Tokens of prompts", "short", quantiles("optserve_job_prompt_tokens")),
    ("Tokens of outputs", "short", quantiles("optserve_job_output_tokens")),
    ("Tokens a second", "short", [(rate("optserve_output_tokens_total", M), "output"),
                                  (rate("optserve_prompt_tokens_total", M), "prompt")]),
    ("Places taken", "percentunit", [(f"model:optserve_slots:usage{{{M}}}", "running / slots"),
                                     (f"model:optserve_kv:usage{{{M}}}", "KV reserved / all")]),
    ("Prompt tokens found in the cache", "percentunit", [
        (f"{rate('optserve_worker_prefix_cached_tokens_total', M)} / "
         f"({rate('optserve_worker_prompt_tokens_total', M)} > 0)", "hits")]),
    ("Time to encode and decode (p95)", "s", [
        (quantile(0.95, "optserve_tokenizer_answer_seconds", "", "operation"), "{{operation}}")]),
]

GROUP = [
    ("Ready", "short", [(f"optserve_worker_group_ready{{{W}}}", "{{instance}}")]),
    ("Ranks", "short", [(f"sum by (state) (optserve_worker_group_members{{{W}}})", "{{state}}")]),
    ("Losses of the group", "short", [(f"sum by (reason) (optserve_worker_group_losses_total{{{W}}})", "{{reason}}"),
                                      (f"sum(optserve_worker_group_restarts_total{{{W}}})", "starts again")]),
    ("Sequences", "short", [(f"sum(optserve_worker_running_sequences{{{W}}})", "running"),
                            (f"sum(optserve_worker_waiting_sequences{{{W}}})", "waiting")]),
    ("KV cache in use", "percentunit", [(f"optserve_worker_kv_usage_ratio{{{W}}}", "{{instance}}")]),
    ("Sequences put back", "short", [(rate("optserve_worker_preemptions_total", W), "preemptions")]),
    ("Step (p50, p95)", "s", [
        (quantile(q, "optserve_worker_step_seconds", W, "phase"), f"{{{{phase}}}} p{round(q * 100)}")
        for q in (0.5, 0.95)]),
    ("Sequences of a step", "short", quantiles("optserve_worker_step_sequences", W)),
    ("Tokens", "short", [(rate("optserve_worker_prefill_tokens_total", W), "prefill"),
                         (rate("optserve_worker_decode_tokens_total", W), "decode"),
                         (rate("optserve_worker_generated_tokens_total", W), "sent")]),
    ("Guessed tokens", "short", [(rate("optserve_worker_drafted_tokens_total", W), "guessed"),
                                 (rate("optserve_worker_accepted_tokens_total", W), "right")]),
    ("Collectives (mean, CPU)", "s", [
        (f"{rate('optserve_worker_collective_seconds_sum', W, 'operation')} / "
         f"({rate('optserve_worker_collective_seconds_count', W, 'operation')} > 0)", "{{operation}}")]),
    ("Device", "percentunit", [
        (f"sum by (rank) (rate(optserve_worker_device_busy_seconds_total{{{W}}}[{RATE}]))", "busy, rank {{rank}}")]),
    ("Last load", "s", [(f"max by (phase) (optserve_worker_load_seconds{{{W}}})", "{{phase}}")]),
    ("Weights loaded", "bytes", [(f"sum by (rank) (optserve_worker_loaded_bytes{{{W}}})", "rank {{rank}}")]),
    ("Leases", "reqps", [(rate("optserve_worker_leases_total", W), "taken"),
                         (rate("optserve_worker_leases_failed_total", W), "failed"),
                         (rate("optserve_worker_leases_dropped_total", W), "dropped")]),
    ("GPU memory (DCGM exporter)", "decmbytes", [("DCGM_FI_DEV_FB_USED", "{{Hostname}} {{gpu}}")]),
    ("GPU use (DCGM exporter)", "percent", [("DCGM_FI_DEV_GPU_UTIL", "{{Hostname}} {{gpu}}")]),
    ("GPU errors (DCGM exporter)", "short", [("DCGM_FI_DEV_XID_ERRORS", "{{Hostname}} {{gpu}}")]),
]

QUEUE = [
    ("Jobs by stage", "short", [(f"sum by (stage) (optserve_jobs{{{I}}})", "{{stage}}")]),
    ("Tokens that wait", "short", [(f"sum by (model) (optserve_model_queue_tokens{{{W}}})", "{{model}}")]),
    ("Memory of the queue", "bytes", [(f"optserve_queue_bytes{{{I}}}", "{{instance}}")]),
    ("Oldest job", "s", [(f"optserve_oldest_job_seconds{{{I}}}", "{{instance}}")]),
    ("Leases", "reqps", [(rate("optserve_leases_total", I), "given"), (rate("optserve_leases_lost_total", I), "lost"),
                         (rate("optserve_job_retries_total", I), "made again")]),
    ("What does not fit", "reqps", [(rate("optserve_stale_results_total", I), "stale results"),
                                    (rate("optserve_duplicate_tokens_total", I), "tokens twice"),
                                    (rate("optserve_garbage_total", I), "garbage"),
                                    (rate("optserve_undeliverable_total", I, "reason"), "undeliverable: {{reason}}")]),
    ("Submits", "reqps", [(rate("optserve_jobs_accepted_total", I), "accepted"),
                          (rate("optserve_jobs_duplicate_total", I), "again"),
                          (rate("optserve_jobs_conflict_total", I), "same key, other job"),
                          (rate("optserve_jobs_busy_total", I, "reason"), "no room: {{reason}}")]),
    ("Messages", "reqps", [(rate("optserve_messages_received_total", I, "port"), "from {{port}}"),
                           (rate("optserve_messages_sent_total", I, "port"), "to {{port}}")]),
    ("Clients that follow jobs", "short", [(f"optserve_streaming_clients{{{I}}}", "{{instance}}")]),
    ("Commit", "s", quantiles("optserve_journal_commit_seconds", I)),
    ("Records of a commit", "short", quantiles("optserve_journal_commit_records", I)),
    ("Journal", "bytes", [(f"optserve_journal_bytes{{{I}}}", "database"),
                          (f"optserve_journal_log_bytes{{{I}}}", "log")]),
    ("Room on its disk", "bytes", [(f"optserve_journal_disk_free_bytes{{{I}}}", "{{instance}}")]),
    ("Disk full", "short", [(f"optserve_journal_disk_full{{{I}}}", "{{instance}}")]),
    ("Replica behind", "s", [(f"optserve_journal_replica_behind_seconds{{{I}}}", "{{instance}}")]),
    ("Age of the latest copy", "s", [
        (f"time() - (optserve_journal_last_backup_timestamp_seconds{{{I}}} > 0)", "{{instance}}")]),
]

CONVERSIONS = [
    ("Converters", "short", [('sum(optserve_services{service="converter"})', "registered"),
                             ("sum(optserve_converter_running)", "at work")]),
    ("Progress", "percentunit", [("optserve_converter_progress_ratio", "{{instance}}")]),
    ("Weights converted", "Bps", [(rate("optserve_converter_bytes_total", "", "instance"), "{{instance}}")]),
    ("Conversions", "short", [("sum by (result) (optserve_converter_conversions_total)", "{{result}}")]),
    ("Time of a conversion", "s", [(quantile(0.5, "optserve_converter_conversion_seconds"), "p50"),
                                   (quantile(0.95, "optserve_converter_conversion_seconds"), "p95")]),
    ("Memory", "bytes", [
        ("process_resident_memory_bytes and on (instance) optserve_converter_running", "{{instance}}")]),
]

CAPACITY = [
    ("Places taken", "percentunit", [(f"model:optserve_slots:usage{{{M}}}", "{{model}}")]),
    ("KV cache reserved", "percentunit", [(f"model:optserve_kv:usage{{{M}}}", "{{model}}")]),
    ("Expected wait", "s", [(f"max by (model) (optserve_model_expected_wait_seconds{{{M}}})", "{{model}}")]),
    ("Output tokens a second: now and at most measured", "short", [
        (f"model:optserve_output_tokens:rate5m{{{M}}}", "{{model}} now"),
        (f"sum by (model) (optserve_model_tokens_per_second{{{M}}})", "{{model}} measured")]),
    ("Output tokens a second and group", "short", [
        (f"model:optserve_output_tokens:rate5m{{{M}}} / on (model) (sum by (model) (optserve_model_groups) > 0)",
         "{{model}}")]),
    ("Jobs a second", "reqps", [(f"model:optserve_jobs_accepted:rate5m{{{M}}}", "{{model}}")]),
    ("Seconds of work that wait", "s", [
        (f"sum by (model) (optserve_model_queue_tokens{{{M}}})"
         f" / (sum by (model) (optserve_model_tokens_per_second{{{M}}}) > 0)", "{{model}}")]),
    ("Time to first token, p95", "s", [(f"model:optserve_job_first_token_seconds:p95_5m{{{M}}}", "{{model}}")]),
    ("Whole job, p95", "s", [(f"model:optserve_job_total_seconds:p95_5m{{{M}}}", "{{model}}")]),
    ("Processor", "short", [
        (f'rate(process_cpu_seconds_total{{job=~".*optserve.*"}}[{RATE}]) / optserve_usable_cores', "{{instance}}")]),
    ("Memory", "percentunit", [
        ('process_resident_memory_bytes{job=~".*optserve.*"} / optserve_usable_memory_bytes', "{{instance}}")]),
    ("Room on the disk of the journal", "bytes", [("optserve_journal_disk_free_bytes", "{{instance}}")]),
]

# file: (title, variables, panels)
DASHBOARDS = {
    "overview": ("optserve: overview", ["model"], OVERVIEW),
    "model": ("optserve: one model", ["model"], MODEL),
    "group": ("optserve: one worker group", ["model", "instance"], GROUP),
    "queue": ("optserve: queue and journal", ["model", "instance"], QUEUE),
    "conversions": ("optserve: conversions", [], CONVERSIONS),
    "capacity": ("optserve: capacity", ["model"], CAPACITY),
}
VARIABLES = {
    "model": "label_values(optserve_model_groups, model)",
    "instance": "label_values(optserve_build_info, instance)",
}
COLUMNS, WIDTH, HEIGHT = 3, 8, 7
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def variable(name):
    return {"name": name, "type": "query", "datasource": SOURCE, "query": {"query": VARIABLES[name], "refId": name},
            "definition": VARIABLES[name], "refresh": 2, "includeAll": True, "allValue": ".*", "multi": False,
            "current": {"text": "All", "value": "$__all"}, "sort": 1}


def panel(number, title, unit, queries):
    place = {"x": number % COLUMNS * WIDTH, "y": number // COLUMNS * HEIGHT, "w": WIDTH, "h": HEIGHT}
    targets = [{"refId": chr(ord("A") + i), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
               for i, (expr, legend) in enumerate(queries)]
    return {"id": number + 1, "type": "timeseries", "title": title, "datasource": SOURCE, "gridPos": place,
            "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 10}}, "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
            "targets": targets}


def dashboards():
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
    for name, (title, variables, panels) in DASHBOARDS.items():
        yield name, {
            "uid": f"optserve-{name}", "title": title, "tags": ["optserve"], "schemaVersion": 39, "editable": True,
            "time": {"from": "now-1h", "to": "now"}, "refresh": "30s", "timezone": "browser",
            "templating": {"list": [source] + [variable(one) for one in variables]},
            "annotations": {"list": []},
            "links": [{"type": "dashboards", "tags": ["optserve"], "asDropdown": True, "title": "optserve"}],
            "panels": [panel(i, *one) for i, one in enumerate(panels)]}
