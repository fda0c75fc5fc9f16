"""The views of the queue, of jobs and of conversions."""

import pathlib

from checks_of_requests import done
from local_stack import expect


def confirmed(browser, action, within):
    browser.click(action, within)
    browser.find('dialog[open]')
    browser.click(action, 'dialog')
    browser.wait(lambda: not browser.all('dialog'), 'the end of the question')


def check_queue(browser, stack, api):
    browser.open('queue')
    browser.wait_text('tbody', 'demo')
    services = browser.run("return [...document.querySelectorAll('tbody')][1].textContent")
    expect(all(kind in services for kind in ('worker-0', 'tokenizer', 'converter')), 'every service is listed')
    whole, model, worker = '.section-head', 'tbody tr[data-key=demo]', 'tbody tr:has(progress)'
    browser.click('Pause', whole)
    browser.click('Keep as it is', 'dialog')
    expect(api.get('/v1/queue')['schedulers'][0]['mode'] == 'open', 'a question that is left changes nothing')
    for place, read in ((whole, lambda state: state['mode']), (model, lambda state: state['models'][0]['mode'])):
        for action, mode in (('Pause', 'paused'), ('Drain', 'draining'), ('Resume', 'open')):
            confirmed(browser, action, place)
            browser.wait_text(f'{place} .badge', mode)
            expect(read(api.get('/v1/queue')['schedulers'][0]) == mode, f'{action} makes it {mode}')

    def is_paused():
        services = api.get('/v1/queue')['schedulers'][0]['services']
        return next(one['paused'] for one in services if one['kind'] == 'worker')

    confirmed(browser, 'Pause', worker)
    browser.wait_text(worker, 'paused')
    expect(is_paused(), 'a worker can be paused')
    confirmed(browser, 'Resume', worker)
    browser.wait_text(worker, 'ready')
    expect(not is_paused(), 'and resumed')
    # While the system is busy, the page shows what the API says.
    api.fill(200)
    browser.wait(lambda: int(browser.all('.totals dd')[0].text.replace(',', '') or 0) > 0, 'waiting jobs')
    browser.wait(lambda: browser.run("return document.querySelector('progress').value") == 1, 'a full worker')
    browser.wait(lambda: 'L' in browser.all('.plot-line')[0].get_attribute('d'), 'a line in the plot')
    expect('at most' in browser.all('.plot svg')[0].accessible_name, browser.all('.plot svg')[0].accessible_name)
    browser.wait(lambda: browser.all('.totals dd')[2].text not in ('0', '–'), 'tokens per second')
    api.clear()
    browser.wait(lambda: browser.all('.totals dd')[0].text == '0', 'an empty queue')
    browser.wait(lambda: int(browser.all('.totals dd')[6].text.replace(',', '')) >= 200, 'the cancelled jobs')
    done(browser, 'the queue')


def rows(browser):
    return browser.run("return [...document.querySelectorAll('tbody tr')].map((row) => row.textContent)")


def check_jobs(browser, stack, api):
    api.post('/v1/queue', {'action': 'pause', 'model': 'demo'})
    waiting = api.submit(key='look-for-me', group='red')
    other = api.submit(key='another', group='blue')
    browser.open('jobs')
    browser.wait(lambda: waiting[:8] in browser.text('tbody'), 'the new jobs')
    expect(other[:8] in rows(browser)[0], 'the newest job is the first')
    browser.type('#filter-text', 'look-for')
    browser.wait(lambda: len(rows(browser)) == 1 and waiting[:8] in rows(browser)[0], 'the job whose key was searched')
    browser.type('#filter-text', other[:6])
    browser.wait(lambda: len(rows(browser)) == 1 and other[:8] in rows(browser)[0], 'the job whose id begins so')
    browser.type('#filter-text', '')
    browser.type('#filter-group', 'red')
    browser.wait(lambda: len(rows(browser)) == 1 and waiting[:8] in rows(browser)[0], 'the jobs of a group')
    expect(browser.run('return location.hash') == '#/jobs?group=red', 'filters stand in the address')
    browser.open('jobs?state=queued')
    browser.wait(lambda: len(rows(browser)) == 2, 'the jobs of a state, from an address')
    browser.open('jobs?model=nothing')
    browser.wait(lambda: browser.find('.placeholder').is_displayed(), 'a list without jobs says so')
    # One job: the page shows how it waits, runs and ends.
    browser.open(f'jobs/{waiting}')
    browser.wait_text('.steps', 'In the queue')
    api.post('/v1/queue', {'action': 'resume', 'model': 'demo'})
    browser.wait_text('.steps', 'Ended: succeeded')
    result = api.get(f'/v1/jobs/{waiting}/result')
    expect(browser.text('.job-text') == result['text'], f'its text is there: {result["text"]!r}')
    record = api.get(f'/v1/jobs/{waiting}/record')
    expect(record['model'] == 'demo' and record['accepted_ms'] > 0 and record['text'] == result['text'],
           'a record says of which model the job is, and when it was accepted')
    steps = browser.text('.steps')
    wanted = ('Accepted', 'Encoded', 'Leased to a worker', 'First token')
    expect(all(step in steps for step in wanted), f'its life: {steps}')
    expect('look-for-me' in browser.text('.facts') and 'red' in browser.text('.facts'), 'its facts')
    browser.click('Copy', '.job')
    browser.wait_text('.job .copy', 'Copied')
    # Cancel, from the list and from the job.
    api.post('/v1/queue', {'action': 'pause', 'model': 'demo'})
    first, second = api.submit(), api.submit()
    browser.open('jobs')
    browser.wait(lambda: first[:8] in browser.text('tbody'), 'two more jobs')
    confirmed(browser, 'Cancel', f'tr[data-key="{first}"]')
    browser.wait_text(f'tr[data-key="{first}"]', 'cancelled')
    browser.find(f'tr[data-key="{second}"] a').click()
    confirmed(browser, 'Cancel', '.job')
    browser.wait_text('.steps', 'Ended: cancelled')
    expect(api.state(first) == api.state(second) == 'cancelled', 'both are cancelled')
    api.post('/v1/queue', {'action': 'resume', 'model': 'demo'})
    done(browser, 'jobs')
    browser.open('jobs/' + '0' * 32)
    browser.wait_text('.problem', 'is not known')
    browser.driver.get_log('browser')  # of that 404


def begin_dead_letters(browser, stack, api):
    """Kills the worker of a job. That it is lost takes some seconds, in which other checks go on."""
    api.fill(40)  # so that it lasts
    job = api.submit(max_new_tokens=900, ignore_eos=True, max_attempts=1, key='will-die')
    browser.wait(lambda: api.get(f'/v1/jobs/{job}')['progress_done'] > 0, 'a running job')
    stack.kill('worker-0')


def check_dead_letters(browser, stack, api):
    job = next(one['job'] for one in api.get('/v1/jobs?limit=1000')['jobs'] if one['key'] == 'will-die')
    browser.wait(lambda: api.state(job) == 'dead', 'a dead job')
    api.clear()
    browser.open('jobs?state=dead')
    browser.wait(lambda: job[:8] in browser.text('tbody'), 'the dead letter')
    browser.find(f'tr[data-key="{job}"] a').click()
    browser.wait_text('.steps', 'Attempt 1 lost')
    record = api.get(f'/v1/jobs/{job}/record')
    expect(record['kind'] == 'generate' and record['prompt'] in browser.text('.job') and record['prompt'], 'its prompt')
    expect(0 <= record['tries'][0]['began_ms'] <= record['tries'][0]['ended_ms'], record['tries'])
    expect('Ended: dead' in browser.text('.steps'), browser.text('.steps'))
    browser.driver.back()
    browser.wait(lambda: job[:8] in browser.text('tbody'), 'the list again')
    confirmed(browser, 'Requeue', f'tr[data-key="{job}"]')
    browser.wait(lambda: not rows(browser), 'an empty list of dead letters')
    browser.wait(lambda: api.state(job) == 'succeeded', 'the end of the job that was queued again')
    done(browser, 'dead letters')


def check_conversions(browser, stack, api):
    services = api.get('/v1/queue')['schedulers'][0]['services']
    converter = next(one['instance'] for one in services if one['kind'] == 'converter')
    api.post('/v1/queue', {'action': 'pause', 'service': converter})
    folder = pathlib.Path(stack.folder)
    ask = lambda name: api.post('/v1/jobs', {'key': name, 'convert': {
        'source': str(folder / 'opt'), 'destination': str(folder / name), 'dtype': 'fp16', 'shards': 2}})['job']
    kept, dropped = ask('first-conversion'), ask('second-conversion')
    browser.open('conversions')
    browser.wait_text(f'li[data-key="{kept}"]', 'Waiting for a converter')
    confirmed(browser, 'Cancel', f'li[data-key="{dropped}"]')
    browser.wait_text(f'li[data-key="{dropped}"]', 'cancelled')
    api.post('/v1/queue', {'action': 'resume', 'service': converter})
    browser.wait_text(f'li[data-key="{kept}"]', '(100%)')
    browser.wait_text(f'li[data-key="{kept}"]', 'succeeded')
    expect('first-conversion' in browser.text(f'li[data-key="{kept}"]'), browser.text(f'li[data-key="{kept}"]'))
    browser.find(f'li[data-key="{kept}"] a').click()
    browser.wait_text('.steps', 'Leased to a converter')
    done(browser, 'conversions')
