"""Just enough reading of C++ for the house rules: code without comments and strings, includes, and functions.

It is a scanner, not a compiler: it relies on the sources being formatted by clang-format.
"""

import re
from dataclasses import dataclass

_LITERAL_OR_COMMENT = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<delimiter>[^()\\ ]{0,16})\(.*?\)(?P=delimiter)"'
    r'|"(?:\\.|[^"\\\n])*"|(?<![0-9A-Fa-f])\'(?:\\.|[^\'\\\n])+\'',
    re.DOTALL)
_PREPROCESSOR = re.compile(r'^[ \t]*#(?:[^\n]*\\\n)*[^\n]*', re.MULTILINE)
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.MULTILINE)
_TYPE_HEAD = re.compile(r'^\s*(?:\[\[.*?\]\]\s*)*(?:typedef\s+)?(class|struct|union|enum)\b')
_NAMESPACE_HEAD = re.compile(r'\bnamespace\b|^\s*extern\s*$')
_ACCESS_LABEL = re.compile(r'^\s*(?:public|private|protected)\s*$')
_NOT_A_NAME = {'alignas', 'alignof', 'catch', 'decltype', 'defined', 'explicit', 'for', 'if', 'noexcept', 'requires',
               'return', 'sizeof', 'static_assert', 'switch', 'typeid', 'while', '__attribute__', 'asm'}
_AFTER_SIGNATURE = {'const', 'noexcept', 'override', 'final', 'try', 'mutable', 'else', 'do'}
_PARAMETERS_BEGIN = re.compile(r'(operator\s*(?:\(\)|[^\s(\w]+|\w+)|~?[A-Za-z_][\w:]*)\s*$')


@dataclass
class Function:
    name: str
    line: int  # of the first line of the signature
    lines: int  # from there to the closing brace; 0 for a declaration
    parameters: int


def _blank(text):
    return re.sub(r'[^\n]', ' ', text)


def strip_comments_and_strings(text):
    """The same text with comments, literals' contents and their quotes turned to spaces; lines stay where they are."""
    return _LITERAL_OR_COMMENT.sub(lambda match: _blank(match.group()), text)


def strip_comments(text):
    """The same text without comments; strings stay."""
    return _LITERAL_OR_COMMENT.sub(
        lambda match: _blank(match.group()) if match.group()[0] == '/' else match.group(), text)


def strip_preprocessor(code):
    """The same code with the lines of the preprocessor turned to spaces."""
    return _PREPROCESSOR.sub(lambda match: _blank(match.group()), code)


def includes(text):
    """(line, '<' or '"', path) of every #include."""
    code = strip_comments(text)
    return [(code.count('\n', 0, match.start(1)) + 1, match.group(1), match.group(2))
            for match in _INCLUDE.finditer(code)]


def _strip_template(head):
    """Without leading template<...>; angle brackets are matched."""
    head = head.lstrip()
    while re.match(r'template\s*<', head):
        depth = 0
        for index, char in enumerate(head):
            depth += (char == '<') - (char == '>' and head[index - 1] != '-')
            if char == '>' and depth == 0:
                head = head[index + 1:].lstrip()
                break
        else:
            return ''
    return head


def _matching(text, begin, opening, closing):
    """Index of the bracket that closes text[begin]; len(text) if none does."""
    depth = 0
    for index in range(begin, len(text)):
        depth += (text[index] == opening) - (text[index] == closing)
        if depth == 0:
            return index
    return len(text)


def _count_parameters(inside):
    depth, count = 0, 1
    for index, char in enumerate(inside):
        if char in '([{<':
            depth += 1
        elif char in ')]}' or (char == '>' and inside[index - 1] != '-'):
            depth -= 1
        elif char == ',' and depth == 0:
            count += 1
    return count if inside.strip() not in ('', 'void') else 0


def _signature(head):
    """(name, parameters) of a function's head, or None if it is not one."""
    head = _strip_template(head)
    angle = 0
    for index, char in enumerate(head):
        if char == '<' and 'operator' not in head[max(0, index - 12):index]:
            angle += 1
        elif char == '>' and head[index - 1] != '-':
            angle = max(0, angle - 1)
        elif char == '=' and angle == 0 and 'operator' not in head[max(0, index - 12):index]:
            return None
        elif char == '(' and angle == 0:
            match = _PARAMETERS_BEGIN.search(head[:index])
            if match and match.group(1) not in _NOT_A_NAME:
                return match.group(1), _count_parameters(head[index + 1:_matching(head, index, '(', ')')])
    return None


def _is_member_initialiser(head):
    """True if a '{' after this head initialises a member in a constructor's list: `: a_(1), b_{2}`."""
    if not re.search(r'\)\s*(?:noexcept\s*)?:(?!:)', head) and not re.search(r'[})]\s*,\s*[\w:<>]+\s*$', head):
        return False
    last = re.search(r'([\w>]+)\s*$', head)
    return bool(last) and last.group(1) not in _AFTER_SIGNATURE


class _Scanner:
    def __init__(self, code):
        self.code = code
        self.found = []
        self.head_begin = 0

    def head(self, end):
        return self.code[self.head_begin:end]

    def line_of_head(self):
        text = self.code[self.head_begin:]
        return self.code.count('\n', 0, self.head_begin + len(text) - len(text.lstrip())) + 1

    def add(self, head, end):
        signature = _signature(head)
        if signature is None:
            return
        name, parameters = signature
        first = self.line_of_head()
        lines = self.code.count('\n', 0, end) + 2 - first if end is not None else 0
        self.found.append(Function(name, first, lines, parameters))

    def open_brace(self, at):
        """Handles '{' at namespace or class scope; returns where to go on."""
        head = self.head(at)
        bare = _strip_template(head)
        if _NAMESPACE_HEAD.search(bare) and '(' not in bare:
            self.head_begin = at + 1
            return at + 1
        kind = _TYPE_HEAD.match(bare)
        if kind and kind.group(1) != 'enum' and not re.search(r'\)\s*(?:const\s*)?$', bare):
            self.head_begin = at + 1
            return at + 1
        end = _matching(self.code, at, '{', '}')
        if _is_member_initialiser(bare) or re.search(r'=\s*$', bare) or '(' not in bare or kind:
            return end + 1  # an initialiser or an enum: part of the declaration
        self.add(head, end)
        self.head_begin = end + 1
        return end + 1

    def run(self):
        at, parens = 0, 0
        while at < len(self.code):
            char = self.code[at]
            if char == '{' and parens == 0:
                at = self.open_brace(at)
                continue
            if char == ';' and parens == 0:
                self.add(self.head(at), None)
            if (char in ';}' and parens == 0) or (char == ':' and _ACCESS_LABEL.search(self.head(at))):
                self.head_begin = at + 1
            parens = max(0, parens + (char == '(') - (char == ')'))
            at += 1
        return self.found


def functions(text):
    """Functions defined or declared at namespace and class scope; a lambda counts to the function around it."""
    code = strip_preprocessor(strip_comments_and_strings(text))
    return _Scanner(code).run()
