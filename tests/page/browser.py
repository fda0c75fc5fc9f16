"""Chromium on the page, and what it noticed: errors, breaches of the Content-Security-Policy, jumps of the layout."""

import time

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

LIMIT_SECONDS = 20
DESKTOP, PHONE = (1280, 900), (360, 800)
ARGUMENTS = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
             '--hide-scrollbars', '--disable-background-networking', '--disable-component-update']

# Runs before the page's own code.
NOTICE = """
window.noticed = {violations: [], errors: [], shift: 0, moved: []};
document.addEventListener('securitypolicyviolation', (event) => noticed.violations.push(
  `${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
addEventListener('error', (event) => noticed.errors.push(event.message));
addEventListener('unhandledrejection', (event) => noticed.errors.push(String(event.reason)));
new PerformanceObserver((list) => {
  for (const entry of list.getEntries().filter(({hadRecentInput}) => !hadRecentInput)) {
    noticed.shift += entry.value;
    const names = entry.sources.map(({node}) => node?.className || node?.tagName || node?.textContent);
    noticed.moved.push(`${entry.value.toFixed(3)} in ${location.hash.slice(0, 8)}: ${names}`);
  }
}).observe({type: 'layout-shift', buffered: true});
"""


class Browser:
    def __init__(self, url):
        self.url = url
        self.left_at_ms = 0
        options = Options()
        for argument in ARGUMENTS:
            options.add_argument(argument)
        options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
        self.driver = webdriver.Chrome(service=Service('/usr/bin/chromedriver'), options=options)
        self.driver.execute_cdp_cmd('Page.addScriptToEvaluateOnNewDocument', {'source': NOTICE})
        self.driver.execute_cdp_cmd('Browser.grantPermissions', {'permissions': ['clipboardReadWrite']})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.driver.quit()

    def set_size(self, size):
        width, height = size
        self.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', {
            'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': width < 500})

    def set_theme(self, theme):
        self.driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {
            'features': [{'name': 'prefers-color-scheme', 'value': theme}]})

    def open(self, view='try', url=None):
        """The page anew, with this view."""
        self.driver.get('about:blank')
        self.driver.get(f'{url or self.url}/ui/#/{view}')
        self.find('h1')

    def leave(self):
        """Ends the page. What its last requests leave in the log, however late, is no problem of the next page."""
        self.driver.get('about:blank')
        self.left_at_ms = time.time() * 1000

    def go(self, view):
        """Another view of the page that is open."""
        self.run(f"location.hash = '#/{view}'")

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def module(self, script):
        """The value of an asynchronous function's body, which may import the page's modules."""
        done = self.driver.execute_async_script(
            'const done = arguments[0]; const load = (name) => import(new URL(name, document.baseURI));'
            f'(async () => {{ {script} }})().then('
            '(value) => done({value}), (error) => done({error: String(error)}));')
        if 'error' in done:
            raise AssertionError(done['error'])
        return done.get('value')

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def find(self, selector):
        self.wait(lambda: self.all(selector), f'an element {selector}')
        return self.all(selector)[0]

    def button(self, text, within=''):
        """The enabled, visible button whose accessible name begins so."""
        def found():
            buttons = self.run('return [...document.querySelectorAll(arguments[0])].filter((button) => '
                               '!button.disabled && button.ariaDisabled !== "true" && button.checkVisibility() '
                               '&& button.textContent.startsWith(arguments[1]))', f'{within} button', text)
            return buttons[0] if buttons else None
        return self.wait(found, f'a button "{text}"')

    def click(self, text, within=''):
        self.button(text, within).click()

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector)

    def type(self, selector, text):
        """Replaces the text of a control, as keys do."""
        element = self.find(selector)
        element.send_keys(Keys.CONTROL, 'a')
        element.send_keys(Keys.DELETE)
        if text:
            element.send_keys(text)

    def keys(self, *keys):
        actions = ActionChains(self.driver)
        for key in keys:
            actions.send_keys(key)
        actions.perform()

    def wait(self, condition, what, seconds=LIMIT_SECONDS):
        """The first true value of the condition."""
        end = time.monotonic() + seconds
        while True:
            try:
                value = condition()
                if value:
                    return value
            except StaleElementReferenceException:
                pass  # the page has replaced it: look again
            if time.monotonic() > end:
                self.driver.save_screenshot('/tmp/optserve-page-failure.png')
                said = f'{self.text("main")[:1500]}\n{self.text("#banner")}\n{self.driver.get_log("browser")}'
                raise AssertionError(f'{what} did not come within {seconds} s; the page says:\n{said}')
            time.sleep(0.03)

    def wait_text(self, selector, part, seconds=LIMIT_SECONDS):
        self.wait(lambda: part in self.text(selector), f'"{part}" in {selector}', seconds)

    def wait_data(self, view):
        """What a view is about: tokens, rows of a table or conversions."""
        self.wait(lambda: self.all('#main .tokens, #main tbody tr, #main .conversions li'), f'data in {view}')

    def problems(self, may_fail_to_load=False):
        """What went wrong since the page was opened. Requests may only fail while something is down."""
        noticed = self.run('return window.noticed')
        logged = [entry for entry in self.driver.get_log('browser')
                  if entry['timestamp'] >= self.left_at_ms
                  and not (may_fail_to_load and entry['source'] == 'network')]
        return ([f'policy: {one}' for one in noticed['violations']] + [f'error: {one}' for one in noticed['errors']] +
                [f'console: {entry["message"]}' for entry in logged] +
                ([f'layout shift of {noticed["shift"]:.3f}: {noticed["moved"]}'] if noticed['shift'] > 0.1 else []))
