#!/usr/bin/env python3
"""/v1/files and /v1/batches by the official package of OpenAI, against a real local stack, through kills.

usage: batches_api_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER [LINES]
"""

import collections
import json
import pathlib
import sys
import tempfile
import time
import urllib.request

import openai

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from local_stack import LIMIT_SECONDS, Stack, expect

ENDPOINT = "/v1/completions"
ENDED = ("completed", "failed", "expired", "cancelled")


def request(number, **body):
    return {"custom_id": f"c{number}", "method": "POST", "url": ENDPOINT,
            "body": {"prompt": f"Once upon a time {number}", "max_tokens": 1 + number % 20, "seed": number} | body}


def upload(client, folder, lines, name="in.jsonl"):
    path = folder / name
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    with path.open("rb") as file:
        return client.files.create(file=file, purpose="batch")


def start(client, file, **options):
    return client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h", **options)


def wait(client, batch, seconds=LIMIT_SECONDS):
    end = time.monotonic() + seconds
    while batch.status not in ENDED:
        if time.monotonic() > end:
            sys.exit(f"FAILED: {batch} after {seconds} s")
        time.sleep(0.1)
        try:
            batch = client.batches.retrieve(batch.id)
        except openai.APIError:
            pass  # the gateway was killed
    return batch


def lines_of(client, file_id):
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def check_files(client, folder):
    file = upload(client, folder, [request(1)])
    expect(file.status == "processed" and file.bytes == (folder / "in.jsonl").stat().st_size, "a file is stored")
    expect(client.files.retrieve(file.id) == file and file in client.files.list().data, "it is found and listed")
    expect(client.files.content(file.id).text == (folder / "in.jsonl").read_text(), "its content comes back")
    head = urllib.request.Request(f"{client.base_url}files/{file.id}/content", method="HEAD")
    with urllib.request.urlopen(head, timeout=LIMIT_SECONDS) as answer:
        expect(answer.status == 200 and answer.read() == b"", "HEAD of its content ends at once")
    expect(client.files.wait_for_processing(file.id, poll_interval=0.1).id == file.id, "waiting for it ends at once")
    expect(client.files.delete(file.id).deleted, "it is deleted")
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        try:
            call(file.id)
            sys.exit("FAILED: a deleted file is there")
        except openai.NotFoundError:
            pass
    expect(all(f.id != file.id for f in client.files.list().data), "a deleted file is not listed")
    try:
        client.files.create(file=b"{}", purpose="fine-tune")
        sys.exit("FAILED: another purpose is taken")
    except openai.BadRequestError as error:
        expect("purpose" in error.message, "another purpose is refused")


def check_batch(client, folder):
    lines = [request(1), request(2, temperature=-1), request(3, n=2, best_of=3), request(4, prompt=["One", "Two"])]
    batch = start(client, upload(client, folder, lines), metadata={"who": "test"})
    expect(batch.object == "batch" and batch.status in ("validating", "in_progress"), "a batch begins")
    done = wait(client, batch)
    expect(done.status == "completed" and done.metadata == {"who": "test"}, "it completes")
    counts = done.request_counts
    expect((counts.total, counts.completed, counts.failed) == (4, 3, 1), "its requests are counted")
    answers = {line["custom_id"]: line for line in lines_of(client, done.output_file_id)}
    expect(sorted(answers) == ["c1", "c3", "c4"], "each request has its answer")
    expect([len(answers[name]["response"]["body"]["choices"]) for name in sorted(answers)] == [1, 2, 2], "all choices")
    tokens = sum(line["response"]["body"]["usage"]["completion_tokens"] for line in answers.values())
    expect(done.usage.output_tokens == tokens > 0, "its usage is the sum of its answers")
    direct = client.completions.create(model="demo", **request(1)["body"])
    expect(answers["c1"]["response"]["body"]["choices"][0]["text"] == direct.choices[0].text,
           "an answer is that of the same request by itself")
    error = lines_of(client, done.error_file_id)[0]
    expect(error["custom_id"] == "c2" and error["response"]["status_code"] == 400, "an error has its own file")
    expect(done.completed_at >= done.finalizing_at >= done.in_progress_at >= done.created_at, "times are in order")
    expect(client.batches.list(limit=1).data[0].id == batch.id, "the newest batch is the first of the list")
    try:
        client.batches.cancel(batch.id)
        sys.exit("FAILED: a batch that has ended is cancelled")
    except openai.ConflictError:
        pass


def check_mistakes(client, folder):
    lines = [request(1), "{broken", request(1), {**request(5), "url": "/v1/other"}, {**request(6), "body": 7}]
    failed = wait(client, start(client, upload(client, folder, lines)))
    expect(failed.status == "failed" and failed.output_file_id is None, "an input with mistakes runs nothing")
    expect([error.line for error in failed.errors.data] == [2, 3, 4, 5], "each mistake is named with its line")
    empty = wait(client, start(client, upload(client, folder, [])))
    expect(empty.status == "failed" and empty.errors.data[0].code == "empty_file", "an empty input fails")
    for wrong in ({"input_file_id": "file-nothing"}, {"endpoint": "/v1/embeddings"}, {"completion_window": "1s"},
                  {"metadata": {"a": 1}}):
        options = {"input_file_id": upload(client, folder, [request(1)]).id, "endpoint": ENDPOINT,
                   "completion_window": "24h"} | wrong
        try:
            client.batches.create(**options)
            sys.exit(f"FAILED: {wrong} is taken")
        except openai.BadRequestError as error:
            expect(list(wrong)[0] in error.message, f"{wrong} is refused by name")


def check_chats_and_responses(client, folder):
    talk = {"model": "demo", "messages": [{"role": "user", "content": "Who was the king?"}], "max_tokens": 6, "seed": 3}
    bodies = {"/v1/chat/completions": talk,
              "/v1/responses": {"model": "demo", "input": "Who was the king?", "max_output_tokens": 6, "seed": 3}}
    outputs = {}
    for url, body in bodies.items():
        lines = [{"custom_id": f"c{i}", "method": "POST", "url": url, "body": body | {"seed": i}} for i in range(5)]
        batch = client.batches.create(input_file_id=upload(client, folder, lines).id, endpoint=url,
                                      completion_window="24h")
        done = wait(client, batch)
        expect(done.status == "completed" and done.request_counts.completed == 5, f"a batch of {url} completes")
        outputs[url] = lines_of(client, done.output_file_id)
        answers = [line["response"]["body"] for line in outputs[url]]
        tokens = sum(a["usage"].get("completion_tokens", a["usage"].get("output_tokens")) for a in answers)
        expect(done.usage.output_tokens == tokens > 0, f"the usage of {url} is counted")
    direct = client.chat.completions.create(**talk).choices[0].message.content
    whole = next(line for line in outputs["/v1/chat/completions"] if line["custom_id"] == "c3")
    expect(whole["response"]["body"]["choices"][0]["message"]["content"] == direct,
           "an answer is that of the same chat by itself")
    mixed = wait(client, start(client, upload(client, folder, [{**request(1), "url": "/v1/chat/completions"}])))
    expect(mixed.status == "failed" and mixed.errors.data[0].param == "url", "lines have the endpoint of their batch")


def check_cancel(client, folder):
    batch = start(client, upload(client, folder, [request(i, max_tokens=60, ignore_eos=True) for i in range(3_000)]))
    while client.batches.retrieve(batch.id).request_counts.completed == 0:
        time.sleep(0.05)
    expect(client.batches.cancel(batch.id).status == "cancelling", "a batch is being cancelled")
    done = wait(client, batch)
    counts = done.request_counts
    expect(done.status == "cancelled" and 0 < counts.completed < counts.total, "it ends as cancelled")
    expect(len(lines_of(client, done.output_file_id)) == counts.completed, "its answers so far are kept")


def check_kills(stack, client, folder, num_lines):
    """Everything is killed once while a batch runs: each line is answered once, as without kills."""
    file = upload(client, folder, [request(number) for number in range(num_lines)])
    calm = wait(client, start(client, file), 20 * LIMIT_SECONDS)
    batch = start(client, file)
    for share, victim in enumerate(["gateway", "scheduler", "worker-0", "tokenizer", "gateway"], start=1):
        while batch.status not in ENDED and batch.request_counts.completed < num_lines * share / 7:
            time.sleep(0.05)
            try:
                batch = client.with_options(max_retries=0).batches.retrieve(batch.id)
            except openai.APIError:
                pass
        stack.kill(victim)
    done = wait(client, batch, 20 * LIMIT_SECONDS)
    expect(done.status == "completed" and done.error_file_id is None, "a batch survives five kills without an error")
    texts = [{line["custom_id"]: line["response"]["body"]["choices"][0]["text"]
              for line in lines_of(client, one.output_file_id)} for one in (calm, done)]
    answers = collections.Counter(line["custom_id"] for line in lines_of(client, done.output_file_id))
    expect(len(answers) == num_lines and max(answers.values()) == 1, f"each of {num_lines} lines is answered once")
    expect(texts[0] == texts[1], "the answers are those of a batch without kills")
    print(f"{num_lines} lines in {calm.completed_at - calm.created_at} s, with kills in "
          f"{done.completed_at - done.created_at} s")


def main():
    programs, sources = map(pathlib.Path, sys.argv[1:3])
    num_lines = int(sys.argv[3]) if len(sys.argv) > 3 else 1_000
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        with Stack(programs, sources, folder) as stack:
            client = openai.OpenAI(base_url=stack.api_url + "/v1", api_key="unused", timeout=LIMIT_SECONDS,
                                   max_retries=8)
            check_files(client, folder)
            check_batch(client, folder)
            check_mistakes(client, folder)
            check_chats_and_responses(client, folder)
            check_cancel(client, folder)
            check_kills(stack, client, folder, num_lines)
    print("all of files and batches is as it should be")


if __name__ == "__main__":
    main()
