"""The page as a whole: how it is served, its rules, the keyboard, keys, and what it says while something is down."""

import http.server
import os
import pathlib
import re
import signal
import subprocess
import threading
import urllib.request

from api import Api
from browser import DESKTOP, PHONE, Browser
from checks_of_requests import done, run_prompt
from local_stack import expect
from ports import free_port
from rules import FOCUS, broken_rules
from selenium.webdriver.common.keys import Keys

VIEWS = ['try', 'queue', 'jobs', 'conversions']
KINDS = {'.html': 'text/html', '.css': 'text/css', '.js': 'text/javascript', '.svg': 'image/svg+xml'}


def check_files(browser, stack, api):
    status, headers, _ = api.open('/ui')
    expect(status == 308 and headers['Location'] == 'ui/', '/ui leads to /ui/, also under a path of a proxy')
    for path in sorted(pathlib.Path(stack.sources, 'services/gateway/ui').iterdir()):
        status, headers, text = api.open(f'/ui/{path.name}')
        kind = KINDS[path.suffix]
        expect(status == 200 and text == path.read_text(encoding='utf-8') and headers['Content-Type'].startswith(kind),
               f'{path.name} is served as it is, as {headers["Content-Type"]}')
        policy = headers['Content-Security-Policy']
        assert "default-src 'none'" in policy and 'unsafe' not in policy
        assert headers['X-Content-Type-Options'] == 'nosniff'
        known = api.open(f'/ui/{path.name}', headers={'If-None-Match': f'"other", W/{headers["ETag"]}'})
        assert known[0] == 304 and known[2] == '', known
        elsewhere = re.findall(r'https?://(?!www\.w3\.org/)[^\s"\'`$]+', text)
        assert elsewhere == [], elsewhere
    expect(api.open('/ui/index.html', method='HEAD')[0] == 200, 'HEAD')
    expect(api.open('/ui/nothing.js')[0] == 404 and api.open('/ui/../main.cc')[0] == 404, 'other files are not there')


def check_modules(browser, stack, api):
    """Pure functions, in the browser that runs them."""
    browser.open('try')
    value = browser.module("""
        const {duration, bytes, ago, percent, decimal} = await load('format.js');
        const {retryDelay} = await load('poller.js');
        const {niceMax, linePath, History} = await load('history.js');
        const {EventParser} = await load('event_stream.js');
        const {tokensOf, surprise} = await load('tokens.js');
        const {valueOf, completionBody, ALL_FIELDS} = await load('completion_fields.js');
        const {summarize} = await load('status.js');
        const {spansOf, stepsOf} = await load('life.js');
        const parser = new EventParser();
        const history = new History();
        history.add(0, {queued: 1});
        history.add(700_000, {queued: 2});
        const stop = ALL_FIELDS.find(({name}) => name === 'stop');
        return {
          durations: [-1, 0, 999, 1500, 59_000, 61_000, 3_700_000].map(duration),
          bytes: [0, 999, 1000, 15_808_512].map(bytes), ago: [ago(0, 1000), ago(0, 61_000)],
          percent: [0, -1, -20].map(percent), decimal: [0, 0.034, 12.34, 1845.2].map(decimal),
          delays: [1, 2, 3, 10].map((failures) => retryDelay(failures, 1000, 1)), spread: retryDelay(2, 1000, 0),
          tops: [0, 1, 3, 23, 5001].map(niceMax),
          path: linePath([{at: 0, value: 0}, {at: 5000, value: 1}, {at: 60_000, value: 2}],
            {now: 60_000, width: 60, height: 10, top: 2, windowMs: 60_000}),
          kept: history.samples.length,
          events: ['id: 3\\nevent: te', 'xt\\ndata: {"a', '":1}\\n\\n: keep-alive\\n\\ndata: x\\n\\n']
            .map((text) => parser.push(text)),
          tokens: tokensOf({text: 'aé😀b', ids: [5, 6, 7, 8], logprobs: [-1, -2, -3, -4], best: [],
            token_texts: {5: 'aé', 6: 'bytes:\\\\xf0', 7: 'bytes:\\\\x9f', 8: 'b'},
            text_offsets: [0, 2, 2, 3]}).map(({text}) => text),
          none: tokensOf({text: 'a', ids: [5], logprobs: [-1]}).length,
          surprises: [0, -0.5, -1.5, -3, -9].map(surprise),
          stop: [valueOf(stop, ' the\\n\\\\n\\n'), valueOf(stop, '')],
          beam: completionBody('m', 'p', {beam_width: '2', temperature: '0.5',
            logprobs: '5', max_tokens: '16', stop: ''}),
          down: summarize({schedulers: [{endpoint: 'e', error: 'unavailable', message: 'm'}]}),
          spans: spansOf({model: 'm', attempts: 1, accepted_ms: 0,
            timings: {encode_ms: 1, queue_ms: 2, first_token_ms: 10,
            run_ms: 0, total_ms: 30}}, 99).map(({ms}) => ms),
          steps: stepsOf({kind: 'generate', state: 'succeeded', attempts: 3, prompt_tokens: 2, output_tokens: 4,
            finish_reason: 'length', losses: ['old', 'rank died'],
            tries: [{number: 2, began_ms: 20, ended_ms: 50, service: 'w1', loss: 'rank died'},
              {number: 3, began_ms: 60, ended_ms: 90, service: 'w2', loss: ''}],
            timings: {encode_ms: 1, queue_ms: 2, first_token_ms: 70, run_ms: 0, total_ms: 90}})
            .map(({what, afterMs}) => [what, afterMs]),
        };""")
    expected = {
        'durations': ['not known', '0 s', '999 ms', '1.5 s', '59 s', '1 min 1 s', '1 h 1 min'],
        'bytes': ['0 B', '999 B', '1 KB', '15.8 MB'], 'ago': ['just now', '1 min ago'],
        'percent': ['100%', '37%', 'under 0.01%'], 'decimal': ['0', '0.034', '12.3', '1,845'],
        'delays': [1000, 2000, 4000, 30000], 'spread': 1500, 'tops': [1, 1, 5, 50, 10000],
        'path': 'M0.0 10.0L5.0 5.0M60.0 0.0', 'kept': 1,
        'events': [[], [], [{'id': '3', 'event': 'text', 'data': '{"a":1}'}, {'data': 'x'}]],
        'tokens': ['aé', '', '😀', 'b'], 'none': 0, 'surprises': [0, 1, 2, 3, 4], 'stop': [[' the', '\n'], None],
        'beam': {'model': 'm', 'prompt': 'p', 'beam_width': 2}, 'spans': [1, 2, 7, 20],
        'steps': [['Accepted', 0], ['Attempt 1 lost', None], ['Encoded', 1], ['Attempt 2', 20], ['Attempt 2 lost', 50],
                  ['Attempt 3', 60], ['First token', 70], ['Ended: succeeded', 90]]}
    for name, wanted in expected.items():
        expect(value[name] == wanted, f'{name}: {value[name]}')
    expect(value['down']['problems'] and value['down']['models'] == [], 'a status without schedulers is one')


def check_rules(browser, stack, api):
    api.fill(60)
    api.post('/v1/jobs', {'convert': {'source': 'nothing', 'destination': 'x', 'dtype': 'fp16'}})
    for size in (DESKTOP, PHONE):
        browser.set_size(size)
        browser.open('try')
        browser.run("document.querySelector('details').open = true")
        run_prompt(browser, n=2, max_tokens=24, logprobs=5)
        browser.find('.tokens')
        job = browser.run("return document.querySelector('.choice a').hash.slice(2)")
        for view in VIEWS + [job]:
            browser.go(view)
            browser.wait_data(view)
            for theme in ('light', 'dark'):
                browser.set_theme(theme)
                broken = broken_rules(browser)
                expect(broken == [], f'{view}, {theme}, {size[0]} wide: {broken or "no rule is broken"}')
        done(browser, f'all views, {size[0]} wide')
    browser.run("document.querySelector('h1').style.color = '#555'; document.querySelector('h1').id = 'main'")
    expect(len(broken_rules(browser)) == 2, f'broken rules are found: {broken_rules(browser)}')
    browser.set_theme('light')
    browser.set_size(DESKTOP)
    api.clear()


def check_keyboard(browser, stack, api):
    """With keys alone: every stop can be seen, and the main actions can be done."""
    browser.open('try')
    browser.wait(lambda: browser.run("return document.getElementById('field-model').value"), 'a model')
    browser.keys(Keys.TAB)
    expect(browser.run('return document.activeElement.id') == 'skip', 'the first stop leads past the navigation')
    browser.keys(Keys.ENTER)
    expect(browser.run('return document.activeElement.id') == 'main', 'and it does')
    for view in VIEWS:
        browser.open(view)
        browser.wait(lambda: browser.run("return document.body.dataset.health") == 'ok', 'the status')
        stops = []
        for _ in range(120):
            browser.keys(Keys.TAB)
            stop = browser.run(FOCUS)
            if stop['name'] == '':
                break
            assert stop['isSeen'] and stop['isInside'], f'{view}: {stop}'
            stops.append(stop['name'])
        expect(len(stops) > 6 and len(set(stops)) > 5,
               f'{view}: {len(stops)} stops of the Tab key, each of them can be seen')
    browser.open('try')
    browser.wait(lambda: browser.run("return document.getElementById('field-model').value"), 'a model')
    browser.run("document.getElementById('field-prompt').focus()")
    browser.keys('!')
    browser.driver.switch_to.active_element.send_keys(Keys.CONTROL, Keys.ENTER)
    browser.wait_text('.choice-state', 'Done')
    browser.open('queue')
    browser.wait_text('tbody', 'demo')
    browser.run("document.querySelector('.section-head button').focus()")
    browser.keys(Keys.ENTER)
    browser.find('dialog[open]')
    focus = browser.run('return document.activeElement.textContent')
    expect(focus == 'Keep as it is', 'the harmless answer has the focus')
    browser.keys(Keys.ESCAPE)
    browser.wait(lambda: not browser.all('dialog'), 'Escape as a no')
    focus = browser.run('return document.activeElement.textContent')
    expect(focus.startswith('Pause'), 'the focus is back where it was')
    done(browser, 'the keyboard')


class PrefixProxy(http.server.BaseHTTPRequestHandler):
    """Serves the gateway under /models/opt/."""
    target = ''
    PREFIX = '/models/opt'

    def do_GET(self):
        if not self.path.startswith(self.PREFIX):
            return self.send_error(404)
        body = self.rfile.read(int(self.headers.get('Content-Length', 0))) or None
        headers = {name: self.headers[name] for name in ('Content-Type',) if name in self.headers}
        request = urllib.request.Request(self.target + self.path.removeprefix(self.PREFIX), body, headers,
                                         method=self.command)
        with urllib.request.urlopen(request, timeout=30) as answer:
            self.send_response(answer.status)
            for name in ('Content-Type', 'Content-Security-Policy', 'ETag'):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.end_headers()
            while piece := answer.read1():
                self.wfile.write(piece)

    do_POST = do_GET

    def log_message(self, *_):
        pass


def check_proxy(browser, stack, api):
    PrefixProxy.target = stack.api_url
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), PrefixProxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f'http://127.0.0.1:{server.server_port}{PrefixProxy.PREFIX}'
    browser.open('try', url)
    run_prompt(browser, max_tokens=8)
    expect(f'{url}/v1/completions' in browser.text('.code'), 'the page works under a path of a proxy')
    done(browser, 'proxy')
    browser.driver.get('about:blank')
    server.shutdown()


def new_key(programs, *arguments):
    made = subprocess.run([str(programs / 'optserve-gateway'), 'new-key', *arguments],
                          capture_output=True, text=True, check=True)
    return re.search(r'osk-\w+', made.stderr).group(), made.stdout


def check_keys(browser, stack, api):
    programs = pathlib.Path(stack.optserve).parent
    alice, alice_line = new_key(programs, 'alice-1', '--tenant', 'alice')
    boss, boss_line = new_key(programs, 'boss-1', '--operate')
    keys = pathlib.Path(stack.folder, 'keys.jsonl')
    keys.touch(mode=0o600)
    keys.write_text(alice_line + boss_line, encoding='utf-8')
    port = free_port()
    options = {'scheduler': stack.endpoint, 'http': f'127.0.0.1:{port}', 'http-port': free_port(), 'keys': keys,
               'model': f'demo={stack.folder}/demo'}
    words = [f'--{name}={value}' for name, value in options.items()]
    gateway = subprocess.Popen([programs / 'optserve-gateway', *words],
                               stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        url = f'http://127.0.0.1:{port}'
        browser.wait(lambda: answers(url), 'a gateway with keys')
        browser.open('try', url)
        browser.find('dialog[open]')
        browser.keys('osk-wrong', Keys.ENTER)
        browser.wait_text('dialog', 'does not know this key')
        browser.type('#api-key', alice)
        browser.keys(Keys.ENTER)
        browser.wait(lambda: browser.run('return document.body.dataset.health') == 'ok', 'the status, with the key')
        run_prompt(browser, max_tokens=4)
        expect('$OPTSERVE_API_KEY' in browser.text('.code')
               and alice not in browser.text('main'), 'no key is written out')
        stored = browser.run(
            'return [JSON.stringify(sessionStorage), JSON.stringify(localStorage), document.cookie, location.href]')
        expect(alice in stored[0] and alice not in ''.join(stored[1:]),
               'the key is kept in the session of the tab alone')
        browser.go('queue')
        browser.wait_text('tbody', 'demo')
        browser.click('Pause', '.section-head')
        browser.click('Pause', 'dialog')
        browser.wait_text('.queue .problem', 'may not operate')
        browser.click('API key')
        browser.type('#api-key', boss)
        browser.click('Use', 'dialog')
        browser.wait(lambda: not browser.all('dialog'), 'the end of the dialog')
        browser.click('Resume', 'tbody') if browser.all('tbody button:not([disabled])[data-action=resume]') else None
        problems = [one for one in browser.problems() if '401' not in one and '403' not in one]
        expect(problems == [], f'keys: {problems}')
        browser.click('API key')
        browser.click('Forget', 'dialog')
        browser.wait_text('#banner', 'asks for an API key')
        expect(browser.run('return sessionStorage.length') == 0, 'a key can be forgotten')
    finally:
        browser.leave()  # the log has answers without a key
        gateway.terminate()
        gateway.wait()


def answers(url):
    try:
        return urllib.request.urlopen(url + '/health', timeout=5).status == 200
    except OSError:
        return False


class Frozen:
    """The supervisor sleeps, so that what is killed stays dead."""

    def __init__(self, stack):
        text = pathlib.Path(stack.run_folder, 'supervisor.pid').read_text(encoding='utf-8')
        self.pid = int(re.search(r'\d+', text).group())

    def __enter__(self):
        os.kill(self.pid, signal.SIGSTOP)

    def __exit__(self, *_):
        os.kill(self.pid, signal.SIGCONT)


def check_several_schedulers(browser, stack, api):
    """The page of a gateway of two schedulers, of which one ends."""
    programs = pathlib.Path(stack.optserve).parent
    second = f'tcp://127.0.0.1:{free_port()}'
    port = free_port()
    quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
    keys = pathlib.Path(stack.run_folder, 'keys')
    scheduler = subprocess.Popen([programs / 'optserve-scheduler', '--volatile', '--bind-clients', second,
                                  '--models=demo', '--bind-services', f'tcp://127.0.0.1:{free_port()}',
                                  f'--http-port={free_port()}', '--secret-key', keys / 'scheduler.secret',
                                  '--allowed-keys', keys / 'allowed_keys'], **quiet)
    gateway = subprocess.Popen([programs / 'optserve-gateway', '--scheduler', stack.endpoint, '--scheduler', second,
                                f'--http=127.0.0.1:{port}', f'--http-port={free_port()}', '--secret-key',
                                keys / 'gateway.secret', '--server-key', keys / 'scheduler.public'], **quiet)
    try:
        url = f'http://127.0.0.1:{port}'
        browser.wait(lambda: answers(url), 'a gateway of two schedulers')
        both = Api(url)
        browser.wait(lambda: all('error' not in one for one in both.get('/v1/queue')['schedulers']), 'both schedulers')
        # Jobs are spread by their keys; those of the second scheduler wait there for ever.
        jobs = [both.post('/v1/jobs', {'model': 'demo', 'prompt': 'Once', 'max_new_tokens': 1, 'group': 'spread',
                                       'key': f'spread-{i}'})['job'] for i in range(12)]
        waiting = lambda: [one['job'] for one in both.get('/v1/jobs?group=spread&state=queued')['jobs']]
        browser.wait(lambda: both.get('/v1/groups/spread')['succeeded'] + len(waiting()) == 12, 'the first one\'s jobs')
        expect(0 < len(waiting()) < 12, f'{len(waiting())} of 12 jobs are at the second scheduler')
        browser.open('queue', url)
        for endpoint in (stack.endpoint, second):
            browser.wait_text('main', endpoint.removeprefix('tcp://'))
        browser.open('jobs?group=spread', url)
        browser.wait(lambda: len(browser.all('tbody tr')) == 12, 'the jobs of both')
        rows = [row.get_attribute('data-key') for row in browser.all('tbody tr')]
        expect(rows == jobs[::-1], 'the jobs of both, newest first')
        browser.open(f'jobs/{waiting()[0]}', url)
        browser.wait_text('.steps', 'In the queue')
        done(browser, 'two schedulers')
        browser.open('queue', url)
        browser.wait_text('main', second.removeprefix('tcp://'))
        scheduler.kill()
        browser.wait_text('#banner', second.removeprefix('tcp://'))
        expect(browser.text('tbody') != '' and stack.endpoint.removeprefix('tcp://') in browser.text('main'),
               'one of two schedulers is gone, and the other is shown')
        both.get('/v1/jobs?group=spread&state=succeeded')
    finally:
        browser.leave()
        for process in (gateway, scheduler):
            process.kill()
            process.wait()


def check_gateway_down(browser, stack, api):
    for size in (DESKTOP, PHONE):
        browser.set_size(size)
        browser.open('queue')
        browser.wait_text('tbody', 'demo')
        done(browser, 'before the gateway is killed')
        with Frozen(stack):
            os.kill(stack.pid('gateway'), signal.SIGKILL)
            browser.wait(lambda: browser.find('#banner').is_displayed(), 'the banner')
            browser.wait_text('#banner', 'The gateway does not answer.')
            browser.wait_text('#banner', 'The figures are those of')
            browser.wait_text('#banner', 'asks again in')
            expect(browser.text('#health-text') == 'No answer', 'the head of the page says so too')
            expect(browser.run("return getComputedStyle(document.querySelector('.totals')).opacity") == '0.55' and
                   'demo' in browser.text('tbody'), 'the last figures stay, and look like old ones')
            broken = broken_rules(browser)
            broken = [one for one in broken if not re.match(r'[\d.]+ of', one)]
            expect(broken == [], f'while the gateway is down: {broken}')
            browser.go('jobs')
            browser.wait_text('.jobs .problem', 'not up to date')
            browser.go('try')
            browser.click('Run')
            browser.wait_text('.try .problem', 'does not answer')
            expect(browser.problems(may_fail_to_load=True) == [], 'no complaint but of requests')
        browser.wait(lambda: answers(stack.api_url), 'the next gateway')
        browser.run("document.querySelector('#banner button').click()")  # Ask now
        browser.wait(lambda: browser.run('return document.body.dataset.health') == 'ok', 'the figures are live again')
        expect(not browser.find('#banner').is_displayed(), 'the banner is gone')
        browser.leave()  # requests may have failed until the gateway was back
    browser.set_size(DESKTOP)


def check_scheduler_down(browser, stack, api):
    """Killed while a text is being written: the page says so, the text goes on when it is back."""
    api.fill(40)
    browser.open('try')
    browser.run("document.querySelector('details').open = true")
    browser.find('#field-ignore_eos').click()
    browser.type('#field-max_tokens', '900')
    browser.type('#field-logprobs', '')
    browser.click('Run')
    browser.wait_text('.choice-state', 'Writing')
    with Frozen(stack):
        os.kill(stack.pid('scheduler'), signal.SIGKILL)
        browser.wait(lambda: browser.find('#banner').is_displayed(), 'the banner')
        browser.wait_text('#banner', 'o answer from the scheduler at')
        expect(browser.run('return document.body.dataset.health') == 'down', browser.text('#banner'))
        browser.go('queue')
        browser.wait_text('tbody', 'demo')
        expect(browser.run("return getComputedStyle(document.querySelector('.totals')).opacity") == '0.55',
               'the figures look like old ones')
        browser.go('try')
    browser.wait(lambda: browser.run('return document.body.dataset.health') == 'ok', 'the figures are live again', 40)
    api.clear()
    browser.wait_text('.choice-state', 'Done', 40)
    job = browser.run("return document.querySelector('.choice a').hash.split('/').pop()")
    text = browser.run("return document.querySelector('.choice .output').textContent")
    expect(text == api.get(f'/v1/jobs/{job}/result')['text'], f'{len(text)} characters went over the restart')
    problems = browser.problems(may_fail_to_load=True)
    expect(problems == [], f'the restart of the scheduler: {problems}')
