"""For each alert: series with which it fires, and series as like them as possible with which it does not.

A case is (series, minutes after which to look). Series are as promtool writes them: '0+2x60' is 0, 2, 4 ... 120, one
value a minute.
"""

AT = 'job="optserve",instance="a:1"'
UP = f'up{{{AT}}}'
BUILD = f'optserve_build_info{{{AT},program="optserve-worker",version="1"}}'
HOUR = 60


def model(name, more=""):
    return f'{name}{{{AT},model="m"{more}}}'


def histogram(name, below, all_of_them, labels="", limit="1"):
    """A histogram of which `below` values a minute are at most `limit`, and all are at most 1000."""
    return {f'{name}_bucket{{{AT}{labels},le="{limit}"}}': f"0+{below}x300",
            f'{name}_bucket{{{AT}{labels},le="1000"}}': f"0+{all_of_them}x300",
            f'{name}_bucket{{{AT}{labels},le="+Inf"}}': f"0+{all_of_them}x300",
            f'{name}_count{{{AT}{labels}}}': f"0+{all_of_them}x300"}


def ended(failed, succeeded, minutes=300):
    return {f'optserve_jobs_ended_total{{{AT},state="failed"}}': f"0+{failed}x{minutes}",
            f'optserve_jobs_ended_total{{{AT},state="succeeded"}}': f"0+{succeeded}x{minutes}",
            f'optserve_jobs_busy_total{{{AT},reason="jobs"}}': f"0x{minutes}"}


def one(series, *values, minutes=30):
    """The same series with values with which the alert fires and does not."""
    return [({series: value}, minutes) for value in values]


FIRST = "optserve_job_first_token_seconds"
CASES = {
    "OptserveTargetDown": one(UP, "1x5 0x30", "1x40"),
    "OptserveNoScheduler": [({UP: "1x30"}, 30), ({f'optserve_jobs{{{AT},stage="waiting"}}': "0x30"}, 30)],
    "OptserveProcessRestarts": [
        ({BUILD: "1x40", f"process_start_time_seconds{{{AT}}}": "1x20 2 3 4 4x20"}, 25),
        ({BUILD: "1x40", f"process_start_time_seconds{{{AT}}}": "1x20 2 2x20"}, 25)],
    "OptserveMemoryNearlyFull": [
        ({f"process_resident_memory_bytes{{{AT}}}": f"{used}x30",
          f"optserve_usable_memory_bytes{{{AT}}}": "100x30"}, 30) for used in (95, 80)],
    "OptserveFewDescriptors": [
        ({f"process_open_fds{{{AT}}}": f"{used}x30", f"process_max_fds{{{AT}}}": "100x30"}, 30) for used in (90, 70)],
    "OptserveGatewayWithoutScheduler": one(
        f'optserve_gateway_schedulers{{{AT},state="answering"}}', "1x5 0x30", "1x40"),
    "OptserveHttpErrors": [
        ({f'optserve_http_requests_total{{{AT},code="200"}}': "0+100x40",
          f'optserve_http_requests_total{{{AT},code="503"}}': f"0+{bad}x40"}, 30) for bad in (10, 2)],
    "OptserveNoGroup": [
        ({model("optserve_model_groups"): "0x30",
          model("optserve_model_jobs", ',stage="waiting"'): f"{waiting}x30"}, 30) for waiting in (1, 0)],
    "OptserveGroupNotReady": one(model("optserve_worker_group_ready"), "0x60", "0x10 1x60", minutes=HOUR),
    "OptserveLoadSlow": one(
        model("optserve_worker_group_members", ',state="loading"'), "2x90", "2x20 0x60", minutes=HOUR),
    "OptserveGroupLost": one(
        model("optserve_worker_group_losses_total", ',reason="rank_ended"'), "0x20 1x20", "0x40", minutes=22),
    "OptserveServiceLost": one(
        f'optserve_services_lost_total{{{AT},service="worker"}}', "0x20 1x20", "0x40", minutes=22),
    "OptserveNoTokenizer": [
        ({f'optserve_services{{{AT},service="tokenizer"}}': "0x30",
          f'optserve_jobs{{{AT},stage="encoding"}}': f"{jobs}x30"}, 30) for jobs in (3, 0)],
    "OptserveQueueOld": one(model("optserve_model_oldest_job_seconds"), "0x5 70+60x30", "30x40"),
    "OptserveQueueGrowing": one(
        model("optserve_model_jobs", ',stage="waiting"'), "90+20x90", "500x90", minutes=HOUR),
    "OptserveRefusingJobs": [
        ({f'optserve_jobs_busy_total{{{AT},reason="tokens"}}': f"0+{busy}x40",
          f"optserve_jobs_accepted_total{{{AT}}}": "0+100x40"}, 30) for busy in (20, 1)],
    "OptserveDeadJobs": one(f'optserve_jobs_ended_total{{{AT},state="dead"}}', "0x20 1x20", "0x40", minutes=22),
    "OptserveJobsFailing": [
        ({model("optserve_model_jobs_ended_total", ',state="failed"'): f"0+{failed}x60",
          model("optserve_model_jobs_ended_total", ',state="succeeded"'): "0+100x60"}, 50) for failed in (10, 2)],
    "OptserveLeasesLost": [
        ({f"optserve_leases_lost_total{{{AT}}}": f"0+{lost}x60", f"optserve_leases_total{{{AT}}}": "0+100x60"}, 50)
        for lost in (20, 5)],
    "OptserveStaleResults": one(f"optserve_stale_results_total{{{AT}}}", "0+120x60", "0+30x60", minutes=50),
    "OptserveFirstTokenSlow": [(histogram(FIRST, below, 100, ',model="m"', "10"), 60) for below in (80, 99)],
    "OptserveTokensSlow": [
        (histogram("optserve_job_inter_token_seconds", below, 100, ',model="m"', "0.5"), 60) for below in (80, 99)],
    "OptserveKvNearlyFull": [
        ({model("optserve_worker_kv_usage_ratio"): "0.99x60",
          model("optserve_worker_preemptions_total"): f"0+{put_back}x60"}, 50) for put_back in (60, 0)],
    "OptserveJournalSlow": [
        (histogram("optserve_journal_commit_seconds", below, 100, "", "0.25"), 60) for below in (80, 100)],
    "OptserveJournalDiskFull": one(f"optserve_journal_disk_full{{{AT}}}", "0x5 1x30", "0x40", minutes=10),
    "OptserveJournalDiskFilling": one(
        f"optserve_journal_disk_free_bytes{{{AT}}}", "100e9-1e9x80", "100e9x80", minutes=75),
    # promtool's clock begins at 0, so the backup in this case is made at second 60.
    "OptserveBackupOld": one(
        f"optserve_journal_last_backup_timestamp_seconds{{{AT}}}", "60x300", "60+60x300", minutes=4 * HOUR),
    "OptserveJournalReplicaBehind": one(
        f"optserve_journal_replica_behind_seconds{{{AT}}}", "0+60x30", "0.5x30", minutes=20),
    "OptserveConversionFailed": one(
        f'optserve_converter_conversions_total{{{AT},result="failed"}}', "0x20 1x20", "0x40", minutes=22),
    "OptserveAvailabilityBurnsFast": [(ended(20, 80), 90), (ended(1, 999), 90)],
    "OptserveAvailabilityBurnsSlowly": [(ended(1, 99), 120), (ended(1, 999), 120)],
    "OptserveFirstTokenBurnsFast": [(histogram(FIRST, below, 100, ',model="m"', "5"), 90) for below in (20, 90)],
    "OptserveFirstTokenBurnsSlowly": [(histogram(FIRST, below, 100, ',model="m"', "5"), 120) for below in (85, 99)],
}


def promtool_tests(rules_file, alerts):
    """A file of `promtool test rules`: whether an alert fires is asked of the series that it leaves."""
    tests = []
    for alert in alerts:
        for fires, (series, minutes) in zip((True, False), CASES[alert]):
            tests.append({
                "name": f"{alert} {'fires' if fires else 'is quiet'}", "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [{
                    "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) > 0 or vector(0)',
                    "eval_time": f"{minutes}m",
                    "exp_samples": [{"labels": "{}", "value": 1 if fires else 0}]}]})
    return {"rule_files": [str(rules_file)], "evaluation_interval": "1m", "tests": tests}
