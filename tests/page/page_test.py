#!/usr/bin/env python3
"""The page of the gateway (GET /ui) in Chromium, against a real local stack: every view and button, while the stack is
alive, busy, and partly down.

usage: page_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER [--part views|service] [--only NAMES] [--screenshots FOLDER]
"""

import argparse
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'e2e'))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'support'))

import checks_of_jobs
import checks_of_requests
import checks_of_service
import screenshots
from api import Api
from browser import DESKTOP, Browser
from local_stack import Stack

PARTS = {
    'views': [
        checks_of_jobs.begin_dead_letters, checks_of_service.check_files, checks_of_service.check_modules,
        checks_of_jobs.check_conversions, checks_of_jobs.check_dead_letters, checks_of_requests.check_try,
        checks_of_requests.check_more_controls, checks_of_requests.check_request_as_text, checks_of_requests.check_stop,
        checks_of_requests.check_hostile_text, checks_of_jobs.check_queue, checks_of_jobs.check_jobs],
    'service': [
        checks_of_service.check_rules, checks_of_service.check_keyboard, checks_of_service.check_proxy,
        checks_of_service.check_keys, checks_of_service.check_several_schedulers,
        checks_of_service.check_gateway_down, checks_of_service.check_scheduler_down],
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('programs', type=pathlib.Path)
    parser.add_argument('sources', type=pathlib.Path)
    parser.add_argument('--screenshots', type=pathlib.Path)
    parser.add_argument('--only', default='')
    parser.add_argument('--part', choices=PARTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='optserve-page-') as folder, \
            Stack(arguments.programs.resolve(), arguments.sources.resolve(), pathlib.Path(folder)) as stack, \
            Browser(stack.api_url) as browser:
        browser.set_size(DESKTOP)
        api = Api(stack.api_url)
        if arguments.screenshots:
            return screenshots.take(browser, stack, api, arguments.screenshots)
        parts = [arguments.part] if arguments.part else PARTS
        for check in [one for part in parts for one in PARTS[part]]:
            if any(name in check.__name__ for name in arguments.only.split(',')):
                begin = time.monotonic()
                check(browser, stack, api)
                print(f'-- {check.__name__}: {time.monotonic() - begin:.1f} s', flush=True)


main()
