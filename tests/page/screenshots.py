"""Pictures of every view with data, for docs/page.md: page_test.py … --screenshots FOLDER."""


def take(browser, stack, api, folder):
    pass
