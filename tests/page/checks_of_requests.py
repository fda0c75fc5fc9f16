"""The view that tries a prompt."""

import json
import os
import subprocess
import sys

from local_stack import expect
from selenium.webdriver.common.keys import Keys

OUTPUT = '.choices .text .output, .choices .tokens .token'
HOSTILE = '<img src=x onerror="window.hacked=1"> </textarea><script>window.hacked=1</script> \'"`${1}\\'


def output(browser, card=0):
    return browser.run("""const card = document.querySelectorAll('.choice')[arguments[0]];
        return card ? [...card.querySelectorAll('.text')].map((text) => [...text.childNodes]
          .filter(({className}) => className !== 'prompt')
          .map(({textContent}) => textContent).join('')).join('|') : ''""", card)


def state(browser, card=0):
    return browser.run("return document.querySelectorAll('.choice-state')[arguments[0]]?.textContent ?? ''", card)


def run_prompt(browser, prompt='Once upon a time', end='Done', **fields):
    browser.wait(lambda: browser.run("return document.getElementById('field-model').value"), 'a model')
    browser.type('#field-prompt', prompt)
    for name, value in fields.items():
        browser.type(f'#field-{name}', str(value))
    browser.run("document.querySelectorAll('.choice').forEach((card) => card.remove())")
    browser.click('Run')
    browser.wait(lambda: browser.all('.choice-state'), 'an accepted request')
    browser.wait(lambda: all(end in state.text for state in browser.all('.choice-state')), f'"{end}" in every choice')


def done(browser, what):
    problems = browser.problems()
    expect(problems == [], f'{what}: {problems or "no complaint of the browser"}')


def check_try(browser, stack, api):
    browser.open('try')
    run_prompt(browser, seed=7, max_tokens=24)
    asked = {'model': 'demo', 'prompt': 'Once upon a time', 'seed': 7, 'max_tokens': 24, 'temperature': 0.8,
             'top_p': 0.95, 'logprobs': 5}
    choice = api.post('/v1/completions', asked)['choices'][0]
    expect(output(browser) == choice['text'], f'the page shows the text of the API: {choice["text"]!r}')
    browser.find('.tokens .token')
    names = choice['logprobs']['tokens']
    tokens = browser.all('.tokens .token')
    expect(len(tokens) == len(names), f'{len(tokens)} tokens')
    # The token is pointed at with the mouse, then reached with the arrow keys.
    tokens[3].click()
    shown = browser.text('.token-facts p')
    expect(shown.startswith('Token 4 of 24') and f'{choice["logprobs"]["token_logprobs"][3]:.3f}' in shown, shown)
    expect(len(browser.all('.alternatives li')) in (5, 6), 'its alternatives are listed')
    browser.find('.tokens').send_keys(Keys.ARROW_RIGHT)
    expect(browser.text('.token-facts p').startswith('Token 5 of'), 'the arrow keys move to the next token')
    browser.find('.tokens').send_keys(Keys.END)
    expect(browser.text('.token-facts p').startswith('Token 24 of'), 'End moves to the last one')
    browser.click('Copy', '.choice')
    browser.wait_text('.choice .copy', 'Copied')
    copied = browser.driver.execute_async_script('navigator.clipboard.readText().then(arguments[0])')
    expect(copied == choice['text'], 'the output can be copied')
    run_prompt(browser, n=3, logprobs='', max_tokens=8)
    expect(len(browser.all('.choice')) == 3 and not browser.all('.tokens'), 'three choices, without probabilities')
    expect(len({output(browser, card) for card in range(3)}) > 1, 'choices differ')
    browser.all('.choice a')[0].click()
    browser.wait_text('h1', 'Job ')
    browser.driver.back()
    browser.wait_text('h1', 'Try a prompt')
    expect(len(browser.all('.choice')) == 3, 'the outputs are still there after a look at the job')
    done(browser, 'try a prompt')


def check_more_controls(browser, stack, api):
    browser.open('try')
    browser.find('summary').click()
    run_prompt(browser, beam_width=3, n=2, max_tokens=12)
    best = api.post('/v1/completions', {'prompt': 'Once upon a time', 'beam_width': 3, 'n': 2, 'max_tokens': 12})
    hypotheses = '|'.join(choice['text'] for choice in best['choices'])
    expect(output(browser) == hypotheses, 'a beam search shows its hypotheses')
    expect(browser.find('#field-temperature').get_property('disabled'), 'what beams do not take cannot be set')
    browser.type('#field-beam_width', '1')
    run_prompt(browser, n=1, stop=' the\n\\n', temperature=0, max_tokens=40)
    expect(' the' not in output(browser) and '\n' not in output(browser), f'stop texts end it: {output(browser)!r}')
    for name in ('ignore_eos', 'include_stop_str_in_output', 'add_special_tokens'):
        browser.find(f'#field-{name}').click()
    browser.wait_text('.code', '"ignore_eos":true,"include_stop_str_in_output":true,"add_special_tokens":false')
    # A wrong value is refused by the form, and one that only the gateway knows to be wrong by its message.
    browser.type('#field-temperature', '7')
    browser.click('Run')
    expect(browser.run("return document.activeElement.id") == 'field-temperature', 'a wrong number is pointed out')
    browser.type('#field-temperature', '1')
    browser.type('#field-max_tokens', '2048')
    browser.click('Run')
    browser.wait_text('.problem', 'context')
    expect(browser.all('.problem')[0].is_displayed(), f'a refusal is shown: {browser.text(".problem")}')
    problems = [one for one in browser.problems() if '400' not in one]
    expect(problems == [], f'more controls: {problems}')


def check_request_as_text(browser, stack, api):
    """What is shown is pasted into a shell and into Python, and gives what the page got."""
    browser.open('try')
    prompt = 'It\'s "$HOME" `id` \\n naïve'
    run_prompt(browser, prompt, seed=11, max_tokens=20, stop='zebra', repetition_penalty=1.1)
    shown, text = browser.text('.code'), output(browser)
    answer = subprocess.run(['bash', '-c', shown], capture_output=True, text=True, timeout=30, check=True).stdout
    frames = [line[6:] for line in answer.splitlines() if line.startswith('data: {')]
    streamed = ''.join(choice['text'] for frame in frames for choice in json.loads(frame)['choices'])
    expect(streamed == text, f'the curl line gives the same text: {text!r}')
    browser.find('input[value=python]').click()
    browser.wait_text('.code', 'from openai import OpenAI')
    made = subprocess.run([sys.executable, '-c', browser.text('.code')], capture_output=True, text=True, timeout=60,
                          env={**os.environ, 'PYTHONIOENCODING': 'utf-8'})
    expect(made.stdout == text, f'the program in Python prints the same text {made.stderr}')
    browser.click('Copy', '[aria-labelledby=code-title]')
    browser.wait_text('[aria-labelledby=code-title] .copy', 'Copied')
    copied = browser.driver.execute_async_script('navigator.clipboard.readText().then(arguments[0])')
    expect(copied == browser.text('.code'), 'the request can be copied')
    done(browser, 'the request as text')


def check_stop(browser, stack, api):
    api.fill(40)  # fewer than the worker computes at a time: the page's own job starts at once, and is slow
    browser.open('try')
    browser.run("document.querySelector('details').open = true")
    browser.find('#field-ignore_eos').click()
    browser.type('#field-max_tokens', '900')
    browser.click('Run')
    browser.wait(lambda: 'Writing' in state(browser), 'a text that is being written')
    is_disabled = browser.run("return document.querySelector('.actions .primary').ariaDisabled")
    expect(is_disabled == 'true', 'one run at a time')
    browser.click('Stop')
    browser.wait_text('.choice-state', 'Stopped')
    job = browser.run("return document.querySelector('.choice a').hash.split('/').pop()")
    expect(api.state(job) == 'cancelled' and output(browser) != '', 'Stop cancels the job and keeps its text')
    # Escape does the same, and so does leaving the page.
    browser.click('Run')
    browser.wait(lambda: 'Stopped' not in state(browser) and browser.all('.choice'), 'another run')
    browser.keys(Keys.ESCAPE)
    browser.wait_text('.choice-state', 'Stopped')
    browser.click('Run')
    browser.wait(lambda: 'Stopped' not in state(browser) and browser.all('.choice'), 'a third run')
    job = browser.run("return document.querySelector('.choice a').hash.split('/').pop()")
    done(browser, 'stop')
    browser.driver.get('about:blank')
    browser.wait(lambda: api.state(job) == 'cancelled', 'the cancel of a page that was closed')
    api.clear()


def check_hostile_text(browser, stack, api):
    browser.open('try')
    run_prompt(browser, HOSTILE, max_tokens=4)
    expect(HOSTILE in browser.text('.choice .text'), 'a prompt with markup is shown as it is')
    # What the demo model will never write: an output, names of tokens and a job's message.
    browser.module('const hostile = ' + repr(HOSTILE) + """;
        const {ChoiceCard} = await load('choice_card.js');
        const {tokenText} = await load('token_text.js');
        const card = new ChoiceCard({title: hostile, prompt: hostile, logprobs: undefined, count: 2,
          accepted: {job: hostile, position: 1, eta_ms: 5}});
        card.handlers.onText(hostile);
        const {text, details} = tokenText([{id: 1, text: hostile, name: hostile, logprob: -1,
          best: [{id: 2, name: hostile, logprob: -2}]}], hostile);
        document.querySelector('.choices').replaceChildren(card.element, text, details);
        card.fail(hostile);""")
    api.open('/v1/jobs', {'convert': {'source': HOSTILE, 'destination': 'x', 'dtype': 'fp16'}})
    expect(not browser.all('.choices img, .choices script') and browser.text('.choices').count(HOSTILE) >= 6,
           'an output with markup is text')
    browser.go('conversions')
    browser.wait(lambda: HOSTILE[:20] in browser.text('.conversions'), 'a message with markup')
    browser.go('jobs?text=' + '%3Cimg%20src%3Dx')
    browser.wait(lambda: HOSTILE[:20] in browser.text('tbody'), 'the same in the list of jobs')
    expect(not browser.all('main img, main script'), 'no element comes from the markup of others')
    expect(not browser.run('return window.hacked'), 'nor is any of it run')
    done(browser, 'hostile text')
    refused = browser.run("try { document.querySelector('main').innerHTML = '<b>x</b>'; return ''; } "
                          "catch (error) { return error.name; }")
    expect(refused == 'TypeError', 'the policy refuses markup from text, whoever tries')
    browser.driver.get_log('browser')  # its complaint
