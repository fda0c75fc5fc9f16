"""Pictures of every view with data, for docs/page.md: page_test.py … --screenshots FOLDER."""

import os
import pathlib
import signal

from browser import DESKTOP, PHONE
from checks_of_requests import run_prompt
from checks_of_service import Frozen


def take(browser, stack, api, folder):
    folder.mkdir(parents=True, exist_ok=True)
    take_views(browser, folder, ['try'])  # while the worker is free
    job = fill(browser, stack, api)
    take_views(browser, folder, ['queue', 'jobs', f'jobs/{job}', 'conversions'])
    browser.set_size(DESKTOP)
    browser.set_theme('light')
    browser.open('queue')
    browser.wait_text('tbody', 'demo')
    with Frozen(stack):
        os.kill(stack.pid('gateway'), signal.SIGKILL)
        browser.wait_text('#banner', 'asks again in 2')
        browser.wait(lambda: browser.run('return document.getAnimations().length') == 0, 'a banner that has risen')
        browser.driver.save_screenshot(str(folder / 'down-desktop-light.png'))


def take_views(browser, folder, views):
    for theme in ('light', 'dark'):
        browser.set_theme(theme)
        for size, name in ((DESKTOP, 'desktop'), (PHONE, 'phone')):
            browser.set_size(size)
            for view in views:
                show(browser, view)
                word = 'job' if view.startswith('jobs/') else view
                browser.driver.save_screenshot(str(folder / f'{word}-{name}-{theme}.png'))


def show(browser, view):
    browser.open(view) if view == 'try' else browser.go(view)
    if view == 'try':
        run_prompt(browser, 'Once upon a time', seed=8, max_tokens=48)
        browser.find('.tokens .token[data-token="6"]').click()
        if browser.run('return innerWidth') == DESKTOP[0]:
            browser.run('scrollTo(0, 0)')
    browser.wait_data(view)
    if view == 'queue':  # something to see in the plots
        wait_for_figure(browser)
    browser.run('document.activeElement.blur()')


def fill(browser, stack, api):
    """Jobs in every state, conversions, and a queue that moves. Returns a job with probabilities."""
    folder = pathlib.Path(stack.folder)
    job = api.submit(prompt='In the forest there lived', max_new_tokens=60, logprobs=4, key='letter-12',
                     group='letters', seed=9)
    api.post('/v1/jobs', {'key': 'opt-demo-fp16', 'convert': {
        'source': str(folder / 'opt'), 'destination': str(folder / 'demo-fp16'), 'dtype': 'fp16', 'shards': 2}})
    api.post('/v1/jobs', {'key': 'opt-missing', 'convert': {
        'source': str(folder / 'missing'), 'destination': str(folder / 'x'), 'dtype': 'fp16'}})
    browser.wait(lambda: api.state(job) == 'succeeded', 'the first job')
    dead = api.submit(max_new_tokens=1000, ignore_eos=True, max_attempts=1, key='chapter-3', group='book')
    browser.wait(lambda: api.get(f'/v1/jobs/{dead}')['progress_done'] > 0, 'a running job')
    stack.kill('worker-0')
    browser.wait(lambda: api.state(dead) == 'dead', 'a dead job')
    browser.open('queue')
    for step in range(4):
        api.fill(90, f'nightly-{step}')
        wait_for_figure(browser)
    cancelled = api.submit(key='chapter-4', group='book')
    api.post(f'/v1/jobs/{cancelled}/cancel')
    return job


def wait_for_figure(browser):
    """Another point in the plots."""
    line = "return document.querySelector('.plot-line').getAttribute('d')"
    before = browser.run(line)
    browser.wait(lambda: browser.run(line) != before, 'a figure')
