#!/usr/bin/env python3
"""The gateway behind Debian's nginx: with its defaults, and with the location block of docs/http.md.

usage: nginx_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER
"""

import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import httpx2 as httpx
import openai

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from local_stack import LIMIT_SECONDS, Stack, expect
from ports import free_port

CONFIGURATION = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {folder}/bodies; proxy_temp_path {folder}/proxied;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{default_port}; location / {{ proxy_pass {api}; }} }}
  server {{ listen 127.0.0.1:{own_port}; {block} }}
}}
"""


def documented_block(sources, api):
    page = (sources / "docs/http.md").read_text(encoding="utf-8")
    block = re.search(r"```nginx\n(.*?)```", page, re.S).group(1)
    expect("http://127.0.0.1:8000" in block, "docs/http.md has a location block")
    return block.replace("http://127.0.0.1:8000", api)


class Nginx:
    def __init__(self, folder, api, block):
        self.folder, self.ports = folder, (free_port(), free_port())
        folder.mkdir()
        text = CONFIGURATION.format(folder=folder, default_port=self.ports[0], own_port=self.ports[1], api=api,
                                    block=block)
        (folder / "nginx.conf").write_text(text)

    def __enter__(self):
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        self.process = subprocess.Popen([program, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf"),
                                         "-e", str(self.folder / "error.log")])
        end = time.monotonic() + LIMIT_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.ports[1])).close()
                return self
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    sys.exit(f"FAILED: nginx does not start: {(self.folder / 'error.log').read_text()}")
                time.sleep(0.02)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(LIMIT_SECONDS)


def check_streams(client, what):
    """Pieces come while the text is made, and are the text of the answer in one piece."""
    body = {"model": "demo", "prompt": "Once upon a time", "max_tokens": 800, "seed": 3,
            "extra_body": {"ignore_eos": True}}
    text, times = "", [time.monotonic()]
    for chunk in client.completions.create(**body, stream=True):
        times.append(time.monotonic())
        text += chunk.choices[0].text if chunk.choices else ""
    expect(text == client.completions.create(**body).choices[0].text, f"{what}: a stream is the whole text")
    first, whole = times[1] - times[0], times[-1] - times[0]
    expect(first < whole / 2, f"{what}: the first piece comes after {first:.3f} s of {whole:.3f} s")


def check_disconnect(stack, url, what):
    body = {"model": "demo", "prompt": "The cat", "max_tokens": 900, "ignore_eos": True, "stream": True}
    with httpx.Client(base_url=url, timeout=LIMIT_SECONDS) as client:
        with client.stream("POST", "/v1/completions", json=body) as response:
            next(response.iter_text())
        end = time.monotonic() + LIMIT_SECONDS
        jobs = []
        while not any(job["state"] == "cancelled" for job in jobs):
            if time.monotonic() > end:
                sys.exit(f"FAILED: {what}: nothing is cancelled: {jobs}")
            time.sleep(0.05)
            jobs = client.get(stack.api_url + "/v1/jobs?state=cancelled").json()["jobs"]
        print(f"ok: {what}: who goes away cancels the job", flush=True)
        purged = subprocess.run([stack.optserve, "jobs", "purge", "--state", "cancelled", "--dir", stack.run_folder],
                                capture_output=True, check=False)
        expect(purged.returncode == 0, "the job is purged")


def check_errors(client, what):
    try:
        client.completions.create(model="nobody", prompt="x")
        sys.exit(f"FAILED: {what}: an unknown model is served")
    except openai.NotFoundError as error:
        expect("nobody" in error.message, f"{what}: errors come through as they are")


def check_uploads(client, folder):
    line = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/completions",
                       "body": {"prompt": "x" * 3_000_000}})
    (folder / "large.jsonl").write_text(line)
    with (folder / "large.jsonl").open("rb") as file:
        stored = client.files.create(file=file, purpose="batch")
    expect(stored.bytes == len(line), "a large upload passes the own block")


def main():
    programs, sources = map(pathlib.Path, sys.argv[1:3])
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        with Stack(programs, sources, folder) as stack:
            with Nginx(folder / "nginx", stack.api_url, documented_block(sources, stack.api_url)) as nginx:
                for port, what in zip(nginx.ports, ("nginx's defaults", "the documented block")):
                    url = f"http://127.0.0.1:{port}"
                    client = openai.OpenAI(base_url=url + "/v1", api_key="unused", timeout=LIMIT_SECONDS)
                    check_streams(client, what)
                    check_disconnect(stack, url, what)
                    check_errors(client, what)
                check_uploads(client, folder)


if __name__ == "__main__":
    main()
