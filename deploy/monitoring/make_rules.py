"""Recording rules and alerts, of which generate.py makes rules.yml. docs/runbooks.md has a section for each alert."""

JOBS = 'job=~".*optserve.*"'

# Names of recorded series have the form LEVEL:METRIC:OPERATION.
RECORDS = {
    "model:optserve_jobs_accepted:rate5m": "sum by (model) (rate(optserve_model_jobs_accepted_total[5m]))",
    "model:optserve_output_tokens:rate5m": "sum by (model) (rate(optserve_output_tokens_total[5m]))",
    "model:optserve_job_first_token_seconds:p95_5m":
        "histogram_quantile(0.95, sum by (model, le) (rate(optserve_job_first_token_seconds_bucket[5m])))",
    "model:optserve_job_inter_token_seconds:p95_5m":
        "histogram_quantile(0.95, sum by (model, le) (rate(optserve_job_inter_token_seconds_bucket[5m])))",
    "model:optserve_job_total_seconds:p95_5m":
        "histogram_quantile(0.95, sum by (model, le) (rate(optserve_job_total_seconds_bucket[5m])))",
    "model:optserve_slots:usage":
        "sum by (model) (optserve_model_jobs{stage=\"running\"}) / (sum by (model) (optserve_model_slots) > 0)",
    "model:optserve_kv:usage":
        "sum by (model) (optserve_model_kv_reserved_tokens) / (sum by (model) (optserve_model_kv_tokens) > 0)",
}

# The objectives. A job that its client cancels is neither good nor bad; one that is refused because of a bound is bad,
# since its client was not served.
AVAILABILITY, FIRST_TOKEN, FIRST_TOKEN_SECONDS = 0.995, 0.95, "5"
WINDOWS = ["5m", "30m", "1h", "6h", "3d"]

BAD_JOBS = ("(sum(rate(optserve_jobs_ended_total{{state=~\"failed|dead|expired\"}}[{0}]))"
            " + sum(rate(optserve_jobs_busy_total[{0}])))")
ALL_JOBS = ("(sum(rate(optserve_jobs_ended_total{{state!=\"cancelled\"}}[{0}]))"
            " + sum(rate(optserve_jobs_busy_total[{0}])))")
# "5" in the text is "5.0" in newer versions of Prometheus.
FAST_TOKENS = "sum(rate(optserve_job_first_token_seconds_bucket{{le=~\"%s([.]0)?\"}}[{0}]))" % FIRST_TOKEN_SECONDS
ALL_TOKENS = "sum(rate(optserve_job_first_token_seconds_count[{0}]))"
for window in WINDOWS:
    RECORDS[f"slo:optserve_availability:error_ratio_{window}"] = (
        f"{BAD_JOBS.format(window)} / ({ALL_JOBS.format(window)} > 0)")
    RECORDS[f"slo:optserve_first_token:error_ratio_{window}"] = (
        f"1 - {FAST_TOKENS.format(window)} / ({ALL_TOKENS.format(window)} > 0)")


def burn(objective, target, factor, short, long):
    """Both windows burn: the long one says that it matters, the short one that it still goes on."""
    limit = f"{factor} * (1 - {target})"
    ratio = f"slo:optserve_{objective}:error_ratio_"
    return f"{ratio}{long} > {limit} and {ratio}{short} > {limit}"


# name: (expression, for, severity, what people read)
ALERTS = {
    "OptserveTargetDown": (f"up{{{JOBS}}} == 0", "1m", "critical", "{{ $labels.instance }} does not answer scrapes."),
    "OptserveNoScheduler": ("absent(optserve_jobs)", "2m", "critical", "No scheduler is scraped."),
    "OptserveProcessRestarts": (
        "changes(process_start_time_seconds[15m]) > 2 and on (job, instance) optserve_build_info", "0m", "warning",
        "{{ $labels.instance }} has started {{ $value }} times within 15 minutes."),
    "OptserveMemoryNearlyFull": (
        f"process_resident_memory_bytes{{{JOBS}}} / optserve_usable_memory_bytes > 0.9", "5m", "warning",
        "{{ $labels.instance }} uses {{ $value | humanizePercentage }} of the memory that it may use."),
    "OptserveFewDescriptors": (
        f"process_open_fds{{{JOBS}}} / process_max_fds > 0.8", "5m", "warning",
        "{{ $labels.instance }} has {{ $value | humanizePercentage }} of its descriptors open."),
    "OptserveGatewayWithoutScheduler": (
        "optserve_gateway_schedulers{state=\"answering\"} == 0", "30s", "critical",
        "The gateway {{ $labels.instance }} reaches no scheduler."),
    "OptserveHttpErrors": (
        "sum by (instance) (rate(optserve_http_requests_total{code=~\"5..\"}[5m]))"
        " / sum by (instance) (rate(optserve_http_requests_total[5m])) > 0.05", "5m", "warning",
        "{{ $value | humanizePercentage }} of the HTTP answers of {{ $labels.instance }} are errors of the server."),
    "OptserveNoGroup": (
        "sum by (model) (optserve_model_groups) == 0 and sum by (model) (optserve_model_jobs{stage=\"waiting\"}) > 0",
        "1m", "critical", "Jobs of {{ $labels.model }} wait and no worker group takes them."),
    "OptserveGroupNotReady": (
        "optserve_worker_group_ready == 0", "15m", "warning",
        "The worker group at {{ $labels.instance }} is not registered with a scheduler."),
    "OptserveLoadSlow": (
        "optserve_worker_group_members{state=\"loading\"} > 0", "30m", "warning",
        "{{ $value }} ranks at {{ $labels.instance }} still load {{ $labels.model }}."),
    "OptserveGroupLost": (
        "increase(optserve_worker_group_losses_total[10m]) > 0", "0m", "warning",
        "The worker group at {{ $labels.instance }} was lost ({{ $labels.reason }}) and starts again."),
    "OptserveServiceLost": (
        "increase(optserve_services_lost_total[10m]) > 0", "0m", "warning",
        "A {{ $labels.service }} of the scheduler {{ $labels.instance }} went without a goodbye."),
    "OptserveNoTokenizer": (
        "optserve_services{service=\"tokenizer\"} == 0"
        " and on (job, instance) optserve_jobs{stage=~\"encoding|decoding\"} > 0",
        "30s", "critical", "Jobs wait for a tokenizer and none is registered with {{ $labels.instance }}."),
    "OptserveQueueOld": (
        "max by (model) (optserve_model_oldest_job_seconds) > 60", "2m", "warning",
        "The oldest job of {{ $labels.model }} has waited for {{ $value | humanizeDuration }}."),
    "OptserveQueueGrowing": (
        "sum by (model) (optserve_model_jobs{stage=\"waiting\"}) > 100"
        " and sum by (model) (deriv(optserve_model_jobs{stage=\"waiting\"}[15m])) > 0.1",
        "15m", "warning", "The queue of {{ $labels.model }} has {{ $value }} jobs and grows."),
    "OptserveRefusingJobs": (
        "sum by (reason) (rate(optserve_jobs_busy_total[5m]))"
        " > 0.05 * scalar(sum(rate(optserve_jobs_accepted_total[5m])) + sum(rate(optserve_jobs_busy_total[5m])))",
        "2m", "warning", "{{ $value | humanize }} jobs a second are refused (bound: {{ $labels.reason }})."),
    "OptserveDeadJobs": (
        "increase(optserve_jobs_ended_total{state=\"dead\"}[10m]) > 0", "0m", "warning",
        "Jobs of {{ $labels.instance }} have used up their attempts."),
    "OptserveJobsFailing": (
        "sum by (model) (rate(optserve_model_jobs_ended_total{state=~\"failed|dead|expired\"}[10m]))"
        " > 0.05 * sum by (model) (rate(optserve_model_jobs_ended_total[10m]))", "10m", "warning",
        "More than 5% of the jobs of {{ $labels.model }} fail or run out of time."),
    "OptserveLeasesLost": (
        "rate(optserve_leases_lost_total[10m]) > 0.1 * rate(optserve_leases_total[10m])", "10m", "warning",
        "More than 10% of the attempts at {{ $labels.instance }} are lost."),
    "OptserveStaleResults": (
        "rate(optserve_stale_results_total[10m]) > 1", "10m", "warning",
        "{{ $value | humanize }} results a second at {{ $labels.instance }} are for leases that their sender lacks."),
    "OptserveFirstTokenSlow": (
        "model:optserve_job_first_token_seconds:p95_5m > 10", "10m", "warning",
        "5% of the jobs of {{ $labels.model }} wait more than {{ $value | humanizeDuration }} for their first token."),
    "OptserveTokensSlow": (
        "model:optserve_job_inter_token_seconds:p95_5m > 0.5", "10m", "warning",
        "5% of the tokens of {{ $labels.model }} come {{ $value | humanizeDuration }} after the one before."),
    "OptserveKvNearlyFull": (
        "optserve_worker_kv_usage_ratio > 0.95 and rate(optserve_worker_preemptions_total[5m]) > 0.1", "10m", "warning",
        "The KV cache at {{ $labels.instance }} is full, and sequences are put back."),
    "OptserveJournalSlow": (
        "histogram_quantile(0.99, sum by (instance, le) (rate(optserve_journal_commit_seconds_bucket[5m]))) > 0.25",
        "10m", "warning", "1% of the commits of the journal take more than {{ $value | humanizeDuration }}."),
    "OptserveJournalDiskFull": (
        "optserve_journal_disk_full == 1", "0m", "critical",
        "The disk of the journal of {{ $labels.instance }} is full: no job is accepted."),
    "OptserveJournalDiskFilling": (
        "predict_linear(optserve_journal_disk_free_bytes[1h], 4 * 3600) < 0 or optserve_journal_disk_free_bytes < 1e9",
        "10m", "warning", "The disk of the journal of {{ $labels.instance }} has or will soon have no room."),
    "OptserveBackupOld": (
        "time() - (optserve_journal_last_backup_timestamp_seconds > 0) > 2 * 3600", "10m", "warning",
        "The latest copy of the journal of {{ $labels.instance }} is {{ $value | humanizeDuration }} old."),
    "OptserveJournalReplicaBehind": (
        "optserve_journal_replica_behind_seconds > 60", "5m", "warning",
        "The replica of the journal of {{ $labels.instance }} lacks commits of {{ $value | humanizeDuration }} ago."),
    "OptserveConversionFailed": (
        "increase(optserve_converter_conversions_total{result=\"failed\"}[15m]) > 0", "0m", "warning",
        "A conversion of {{ $labels.instance }} has failed."),
    "OptserveAvailabilityBurnsFast": (
        burn("availability", AVAILABILITY, 14.4, "5m", "1h") + " or "
        + burn("availability", AVAILABILITY, 6, "30m", "6h"),
        "0m", "critical", "Jobs fail so often that the error budget of a month is gone within days."),
    "OptserveAvailabilityBurnsSlowly": (
        burn("availability", AVAILABILITY, 1, "6h", "3d"), "30m", "warning",
        "Jobs fail so often that the error budget of a month will not last."),
    "OptserveFirstTokenBurnsFast": (
        burn("first_token", FIRST_TOKEN, 14.4, "5m", "1h") + " or " + burn("first_token", FIRST_TOKEN, 6, "30m", "6h"),
        "0m", "critical", "First tokens come so late that the error budget of a month is gone within days."),
    "OptserveFirstTokenBurnsSlowly": (
        burn("first_token", FIRST_TOKEN, 1, "6h", "3d"), "30m", "warning",
        "First tokens come so late that the error budget of a month will not last."),
}


def rules():
    alerts = []
    for name, (expression, duration, severity, description) in ALERTS.items():
        alerts.append({
            "alert": name, "expr": expression, "for": duration, "labels": {"severity": severity},
            "annotations": {"description": description,
                            "runbook_url": "{{ $externalLabels.runbooks }}docs/runbooks.md#" + name.lower()}})
    return {"groups": [
        {"name": "optserve-records", "rules": [{"record": name, "expr": expr} for name, expr in RECORDS.items()]},
        {"name": "optserve-alerts", "rules": alerts}]}
