"""The gateway's API as the tests of the page use it, beside the browser."""

import json
import urllib.error
import urllib.request


class Api:
    def __init__(self, url):
        self.url = url

    def open(self, path, body=None, headers=None, method=None):
        """(status, headers, text), whatever the status."""
        request = urllib.request.Request(self.url + path, method=method, headers=headers or {},
                                         data=None if body is None else json.dumps(body).encode())
        if body is not None:
            request.add_header('Content-Type', 'application/json')
        try:
            with urllib.request.build_opener(NoRedirect).open(request, timeout=30) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()

    def get(self, path):
        status, _, text = self.open(path)
        assert status in (200, 202), f'{path}: {status} {text}'
        return json.loads(text)

    def post(self, path, body=None):
        status, _, text = self.open(path, body, method='POST')
        assert status in (200, 202), f'{path}: {status} {text}'
        return json.loads(text)

    def submit(self, **fields):
        return self.post('/v1/jobs', {'model': 'demo', 'prompt': 'Once'} | fields)['job']

    def state(self, job):
        return self.get(f'/v1/jobs/{job}')['state']

    def fill(self, jobs, group='load'):
        """Work for some seconds, of a tenant of its own, so that a job of another one starts soon."""
        one = {'model': 'demo', 'prompt': 'The king said', 'max_new_tokens': 900, 'ignore_eos': True, 'group': group,
               'tenant': 'load'}
        self.post('/v1/jobs', {'jobs': [one] * jobs})

    def clear(self, group='load'):
        self.post(f'/v1/groups/{group}/cancel?tenant=load')


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None
