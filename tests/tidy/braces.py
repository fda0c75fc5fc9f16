"""The rule about braces: a body on the line of its condition may stand without them; any other body has them.

    braces.py [--fix] FILE...    names the bodies that need braces, or puts them in (clang-format then breaks the lines)
"""

import re
import sys

import cpp_source

_HEAD = re.compile(r'\b(?:(if|for|while|switch)\b(?:\s+constexpr)?\s*\(|(else|do)\b)')
_CLOSING = {'(': ')', '{': '}', '[': ']'}


def _skip_space(code, at):
    while at < len(code) and code[at].isspace():
        at += 1
    return at


def _after_bracket(code, at):
    """The place behind the bracket that closes the one at `at`."""
    stack = []
    while at < len(code):
        if code[at] in _CLOSING:
            stack.append(_CLOSING[code[at]])
        elif stack and code[at] == stack[-1]:
            stack.pop()
            if not stack:
                return at + 1
        at += 1
    return at


def _after_head(code, head):
    """The place behind the condition, or behind `else` and `do`."""
    return _after_bracket(code, head.end() - 1) if head.group(1) else head.end()


def _after_attributes(code, at):
    """The place of the body behind a head that ends at `at`: attributes such as [[likely]] belong to the head."""
    at = _skip_space(code, at)
    while code.startswith('[[', at):
        at = _skip_space(code, _after_bracket(code, at))
    return at


def _after_statement(code, at):
    """The place behind the statement that begins at `at`."""
    at = _skip_space(code, at)
    if code[at:at + 1] == '{':
        return _after_bracket(code, at)
    head = _HEAD.match(code, at)
    if not head:
        while at < len(code) and code[at] != ';':
            at = _after_bracket(code, at) if code[at] in _CLOSING else at + 1
        return at + 1
    if head.group(2) == 'do':
        return _after_statement(code, _after_statement(code, head.end()))
    end = _after_statement(code, _after_attributes(code, _after_head(code, head)))
    following = _skip_space(code, end)
    if head.group(1) == 'if' and re.match(r'else\b', code[following:]):
        return _after_statement(code, following + len('else'))
    return end


def bare_bodies(text):
    """(begin, end) of every body that needs braces: not on the line of its condition, or longer than that line."""
    code = cpp_source.strip_preprocessor(cpp_source.strip_comments_and_strings(text))
    for head in _HEAD.finditer(code):
        if head.group(1) == 'while' and re.search(r'\}\s*$', code[:head.start()]):
            before = code[:head.start()].rstrip()
            if _ends_do_loop(code, len(before) - 1):
                continue
        after_head = _after_head(code, head)
        begin = _after_attributes(code, after_head)
        if code[begin:begin + 1] in ('{', ';', '') or (head.group(2) == 'else' and re.match(r'if\b', code[begin:])):
            continue
        end = _after_statement(code, begin)
        if '\n' in code[after_head:end]:
            yield begin, end


def _ends_do_loop(code, closing):
    """Whether the brace at `closing` ends the body of do { ... } while."""
    depth = 0
    for at in range(closing, -1, -1):
        depth += (code[at] == '}') - (code[at] == '{')
        if depth == 0:
            return bool(re.search(r'\bdo\s*$', code[:at]))
    return False


def _head_end(text, begin):
    """Where the head of the body at `begin` ends, if only space and a comment stand between; else `begin`."""
    line = text.rfind('\n', 0, begin)
    comment = re.search(r'\s*//[^\n]*$', text[:max(line, 0)])
    return comment.start() if comment and not text[line:begin].strip() else begin


def with_braces(text):
    """The same text with braces around these bodies."""
    inserts = []
    for begin, end in bare_bodies(text):
        end += len(re.match(r'(?:[ \t]*//[^\n]*)?', text[end:]).group())  # the comment of a line stays on it
        opening = _head_end(text, begin)  # before a comment that stands between
        inserts.append((opening, 0, ' {' if opening < begin else '{ '))
        inserts.append((end, 1, '\n}'))
    for at, _, piece in sorted(inserts, reverse=True):
        text = text[:at] + piece + text[at:]
    return text


def main():
    fix = sys.argv[1:2] == ['--fix']
    found = 0
    for path in sys.argv[2 if fix else 1:]:
        with open(path, encoding='utf-8') as file:
            text = file.read()
        bodies = list(bare_bodies(text))
        found += len(bodies)
        if fix and bodies:
            with open(path, 'w', encoding='utf-8') as file:
                file.write(with_braces(text))
        elif not fix:
            for begin, _ in bodies:
                print(f'{path}:{text.count(chr(10), 0, begin) + 1}: this body needs braces')
    return 1 if found and not fix else 0


if __name__ == '__main__':
    sys.exit(main())
