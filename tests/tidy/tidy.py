#!/usr/bin/env python3
"""The house rules as a program: layers, owners, sizes and words. `tidy.py [ROOT]` prints what breaks them.

Each rule is a function that yields Violations; tidy_test.py shows for each one a tree in which it fails.
"""

import os
import pathlib
import re
import sys
from dataclasses import dataclass

import braces as bare_braces
import cpp_source
import tables

CPP = {'.h', '.cc', '.cu', '.cuh'}
PAGE = {'.js', '.css', '.html'}
TEXT = CPP | PAGE | {'.py', '.txt', '.cmake', '.json', '.md', '.yaml', '.yml', '.sh', ''}
NOT_OURS = {'deploy/demo-model'}
_TEST_NAME = re.compile(r'_(test|fuzz|bench)[_.]')  # x_test.cc, and what several tests share: x_test_nodes.h


@dataclass(frozen=True)
class Violation:
    rule: str
    path: str
    line: int
    message: str

    def __str__(self):
        return f'{self.path}:{self.line}: [{self.rule}] {self.message}'


@dataclass
class SourceFile:
    path: str  # relative to the root, with slashes
    text: str
    is_executable: bool = False

    @property
    def is_cpp(self):
        return pathlib.PurePath(self.path).suffix in CPP

    @property
    def is_test(self):
        return self.path.startswith('tests/') or bool(_TEST_NAME.search(self.parts[-1]))

    @property
    def parts(self):
        return self.path.split('/')


class Tree:
    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.files = {}
        for path in sorted(self.root.rglob('*')):
            name = path.relative_to(self.root).as_posix()
            if not path.is_file() or path.suffix not in TEXT or self._is_skipped(name):
                continue
            try:
                self.files[name] = SourceFile(name, path.read_text(encoding='utf-8'), os.access(path, os.X_OK))
            except UnicodeDecodeError:
                continue
        self.layers = self._read_layers()

    @staticmethod
    def _is_skipped(name):
        parts = name.split('/')
        return (parts[0] in ('build', 'install') or any(part.startswith('.') or part.endswith('_corpus') or
                                                       part in ('__pycache__', 'data') for part in parts) or
                any(name.startswith(folder) for folder in NOT_OURS))

    def _read_layers(self):
        layers = {}
        for line in self.files['libs/LAYERS'].text.splitlines():
            line = line.split('#')[0].strip()
            if line:
                name, _, allowed = line.partition(':')
                layers[name.strip()] = set(allowed.split())
        return layers

    def cpp(self):
        return [f for f in self.files.values() if f.is_cpp]

    def resolve(self, includer, path):
        """Files that a quoted include may mean: beside the includer, or from the include roots."""
        beside = (pathlib.PurePosixPath(includer.path).parent / path).as_posix()
        candidates = [beside] + [f'{root}/{path}' for root in ('libs', 'services', 'tests')] + [path]
        return [c for c in dict.fromkeys(candidates) if c in self.files]


def _allowed(path, places):
    return any(path.startswith(p) if '/' in p else path.endswith(p) for p in places)


def layers(tree):
    """Quoted includes go along libs/LAYERS; services meet only in libs/; nothing includes tests."""
    for file in tree.cpp():
        if file.is_test:
            continue
        for line, kind, path in cpp_source.includes(file.text):
            if kind != '"':
                continue
            found = tree.resolve(file, path)
            if len(found) != 1:
                what = 'no such file' if not found else f'ambiguous: {", ".join(found)}'
                yield Violation('layers', file.path, line, f'"{path}": {what}')
                continue
            why = _forbidden_edge(tree, file.parts, found[0].split('/'))
            if why:
                yield Violation('layers', file.path, line, f'"{path}": {why}')


def _forbidden_edge(tree, source, target):
    if target[0] == 'tests' or _TEST_NAME.search(target[-1]):
        return 'product code includes a test'
    if target[0] == 'kernels' and source[0] != 'kernels':
        may = '/'.join(source).startswith(('libs/backend/cuda/', 'libs/comm/nccl'))
        return None if may else 'kernels are seen by the CUDA backend and the NCCL communicator only'
    if source[0] == 'kernels' and target[0] != 'kernels' and '/'.join(target) not in tables.KERNEL_INCLUDES:
        return 'kernels include nothing but kernels, and the plain data of KERNEL_INCLUDES'
    if source[0] == 'libs' and target[0] == 'services':
        return 'a library includes a service'
    if source[0] == 'services' and target[0] == 'services' and source[1] != target[1]:
        return f'service {source[1]} includes service {target[1]}'
    if source[0] == 'libs' and target[0] == 'libs' and source[1] != target[1]:
        if target[1] not in tree.layers.get(source[1], set()):
            return f'libs/LAYERS does not allow {source[1]} to include {target[1]}'
    return None


def cmake_deps(tree):
    """DEPS of add_component() are those of libs/LAYERS, and cover what the sources include."""
    deps = {name: _component_deps(tree, name) for name in tree.layers}
    for name, allowed in tree.layers.items():
        path = f'libs/{name}/CMakeLists.txt'
        if path not in tree.files:
            yield Violation('cmake-deps', 'libs/LAYERS', 1, f'{name} has no {path}')
        for extra in sorted(deps[name] - allowed):
            yield Violation('cmake-deps', path, 1, f'DEPS names {extra}, which libs/LAYERS does not allow')
        linked = {name} | deps[name]
        for _ in tree.layers:  # public dependencies of dependencies come along
            linked |= {d for other in linked - {name} for d in deps.get(other, set())}
        for file in tree.cpp():
            if file.path.startswith(f'libs/{name}/') and not file.is_test:
                yield from _unlinked_includes(tree, file, allowed - linked)
    for folder in sorted({f.parts[1] for f in tree.cpp() if f.parts[0] == 'libs'} - set(tree.layers)):
        yield Violation('cmake-deps', 'libs/LAYERS', 1, f'libs/{folder} is not listed')


def _component_deps(tree, name):
    file = tree.files.get(f'libs/{name}/CMakeLists.txt')
    call = re.search(r'add_component\((.*?)\)', file.text, re.DOTALL) if file else None
    return set(_cmake_list(call.group(1), 'DEPS')) if call else set()


def _unlinked_includes(tree, file, unlinked):
    for line, kind, path in cpp_source.includes(file.text):
        target = tree.resolve(file, path)[:1] if kind == '"' else []
        if target and target[0].startswith('libs/') and target[0].split('/')[1] in unlinked:
            yield Violation('cmake-deps', file.path, line, f'"{path}" is not covered by DEPS')


def _cmake_list(call, keyword):
    match = re.search(rf'\b{keyword}\b([^)]*?)(?=\b[A-Z_]{{3,}}\b|$)', call, re.DOTALL)
    return match.group(1).split() if match else []


def owners(tree):
    """One owner per third-party header."""
    for file in tree.cpp():
        for line, kind, path in cpp_source.includes(file.text):
            row = next((r for r in tables.HEADER_OWNERS if re.match(r[0], path)), None) if kind == '<' else None
            if row and not file.is_test and not _allowed(file.path, row[1]):
                owner = ', '.join(row[1]) or 'tests and benchmarks only'
                yield Violation('owners', file.path, line, f'<{path}> belongs to {owner}')
            if kind == '<' and not row and '/' in path and not path.startswith(tuple(tables.SYSTEM_HEADER_FOLDERS)):
                yield Violation('owners', file.path, line, f'<{path}> has no owner in tests/tidy/tables.py')


def sizes(tree):
    """Functions, parameter lists, files and lines stay within the limits."""
    for file in tree.files.values():
        if not (file.is_cpp or file.path.endswith(('.py', *PAGE))):
            continue
        lines = file.text.splitlines()
        if len(lines) > tables.FILE_LINES_MAX:
            yield Violation('file-length', file.path, 1, f'{len(lines)} lines, at most {tables.FILE_LINES_MAX}')
        for number, line in enumerate(lines, 1):
            if len(line) > tables.LINE_COLUMNS_MAX and 'http' not in line:
                yield Violation('line-length', file.path, number,
                                f'{len(line)} columns, at most {tables.LINE_COLUMNS_MAX}')
        for function in cpp_source.functions(file.text) if file.is_cpp else []:
            if function.lines > tables.FUNCTION_LINES_MAX:
                yield Violation('function-length', file.path, function.line,
                                f'{function.name}: {function.lines} lines, at most {tables.FUNCTION_LINES_MAX}')
            if function.parameters > tables.PARAMETERS_MAX and not function.name.isupper():
                yield Violation('parameters', file.path, function.line,
                                f'{function.name}: {function.parameters} parameters, at most {tables.PARAMETERS_MAX}')


def folder_sizes(tree):
    """A folder has one subject, and few enough files to find one at a glance."""
    counts = {}
    for file in tree.files.values():
        if file.parts[0] in ('libs', 'services', 'kernels', 'tests') and len(file.parts) > 1:
            folder = '/'.join(file.parts[:-1])
            counts[folder] = counts.get(folder, 0) + 1
    for folder, count in sorted(counts.items()):
        if count > tables.FOLDER_FILES_MAX:
            yield Violation('folder-size', folder, 1, f'{count} files, at most {tables.FOLDER_FILES_MAX}')


def owned_strings(tree):
    """The words of a table stand in that table alone."""
    for file in tree.cpp():
        if file.is_test:
            continue
        code = cpp_source.strip_comments(file.text)
        for pattern, places, instead in tables.OWNED_STRINGS:
            if not _allowed(file.path, places):
                for match in re.finditer(rf'"(?:{pattern})"', code):
                    yield Violation('owned-strings', file.path, _line(code, match), f'{match.group()}: use {instead}')


def paths_in_pages(tree):
    """Every file or folder that a page of the project names in backticks exists."""
    known = set(tree.files)
    for name in tree.files:
        known.update(parent.as_posix() for parent in pathlib.PurePosixPath(name).parents)
    for file in tree.files.values():
        if file.path not in tables.PAGES_WITH_PATHS:
            continue
        for match in re.finditer(r'`((?:libs|services|kernels|tests|deploy|docs|cmake)/[\w./-]+?)/?`', file.text):
            if match.group(1) not in known:
                yield Violation('paths-in-pages', file.path, _line(file.text, match), f'there is no {match.group(1)}')


def stops_of_journeys(tree):
    """`file`: `function` in a page means that the file has that function."""
    for file in tree.files.values():
        if file.path not in tables.PAGES_WITH_PATHS:
            continue
        for match in re.finditer(r'`([\w/]+\.(?:h|cc|cu|cuh))`: `([\w:]+)`', file.text):
            source, function = tree.files.get(match.group(1)), match.group(2).split('::')[-1]
            if source is None or not re.search(rf'\b{function}\b', cpp_source.strip_comments(source.text)):
                yield Violation('journeys', file.path, _line(file.text, match), f'no {function} in {match.group(1)}')


def tests_in_pages(tree):
    """`Suite.Case` in a page that says how something is shown is a test of the tree."""
    known = set()
    for file in tree.files.values():
        if file.path.endswith('_test.cc'):
            known.update(re.findall(r'\bTEST(?:_F|_P)?\((\w+),\s*(\w+)\)', file.text))
    suites = {suite for suite, _ in known}
    for file in tree.files.values():
        if file.path not in tables.PAGES_WITH_TESTS:
            continue
        for match in re.finditer(r'`([A-Z]\w+)\.([A-Z]\w+)`', file.text):
            if match.groups() not in known and match.groups() != ('Suite', 'Case'):
                what = f'{match.group(1)} has no test' if match.group(1) in suites else 'there is no test'
                yield Violation('tests-in-pages', file.path, _line(file.text, match), f'{what} {match.group(2)}')


def namespaces(tree):
    """The namespace of a file is that of its component."""
    for file in tree.cpp():
        if file.path in tables.NAMESPACES_OF_OTHERS:
            continue
        room = file.parts[0] if file.parts[0] in ('kernels', 'tests') else file.parts[1]
        expected = 'optserve' if room in tables.COMPONENTS_OF_EVERY_LAYER else f'optserve::{room}'
        for match in re.finditer(r'^namespace (optserve\b[\w:]*) \{', file.text, re.MULTILINE):
            given = match.group(1)
            if room == 'tests':
                is_right = given != 'optserve'
            else:
                is_right = given == expected or (given.startswith(expected + '::') and given != f'optserve::{room}')
            if not is_right:
                yield Violation('namespaces', file.path, _line(file.text, match), f'{given}: use {expected}')


def braces(tree):
    """A body that is not on the line of its condition has braces."""
    for file in tree.cpp():
        for begin, _ in bare_braces.bare_bodies(file.text):
            line = file.text.count('\n', 0, begin) + 1
            yield Violation('braces', file.path, line, 'this body is not on the line of its condition')


def words(tree):
    """Calls that have a better replacement, and words that do not belong into files."""
    for file in tree.files.values():
        for pattern, why in tables.BANNED_TEXT:
            for match in re.finditer(pattern, file.text):
                yield Violation('words', file.path, _line(file.text, match), f'"{match.group().strip()}": {why}')
        if not file.is_cpp:
            continue
        code = cpp_source.strip_comments_and_strings(file.text)
        code = re.sub(r'^[ \t]*#[^\n]*', '', code, flags=re.MULTILINE)
        code = re.sub(r'(unique_ptr<[^;(]*>\s*\w*\(\s*)new\b', r'\1   ', code)  # for private constructors
        for pattern, places, instead in tables.BANNED_CODE:
            if _allowed(file.path, places) or (file.is_test and tables.TESTS in places):
                continue
            for match in re.finditer(pattern, code):
                yield Violation('words', file.path, _line(code, match), f'"{match.group().strip()}": use {instead}')


def page_words(tree):
    """The page makes no markup from text, and asks nobody but its own gateway."""
    for file in tree.files.values():
        if pathlib.PurePath(file.path).suffix not in PAGE:
            continue
        for pattern, instead in tables.BANNED_IN_PAGE:
            for match in re.finditer(pattern, file.text):
                found = f'"{match.group().strip()}": use {instead}'
                yield Violation('page-words', file.path, _line(file.text, match), found)


def cuda_word(tree):
    """Only the CUDA parts know that CUDA exists."""
    for file in tree.cpp():
        if file.is_test or _allowed(file.path, tables.CUDA_WORD_ALLOWED):
            continue
        for match in re.finditer('(?i)cuda', cpp_source.strip_comments(file.text)):
            yield Violation('cuda-word', file.path, _line(file.text, match), 'the word cuda')


def _line(text, match):
    return text.count('\n', 0, match.start()) + 1


def cmake_lists(tree):
    """Every source is built and every test is registered."""
    for file in tree.files.values():
        if pathlib.PurePath(file.path).suffix not in ('.cc', '.cu'):
            continue
        name, folder = file.parts[-1], pathlib.PurePosixPath(file.path).parent
        if name == 'main.cc' and folder.parent.name == 'services':
            continue  # add_service() takes it by its name
        lists = '\n'.join(re.sub(r'#[^\n]*', '', tree.files[path].text) for path in _lists_above(tree, folder))
        if not re.search(rf'(?<![\w.]){re.escape(name)}(?![\w.])', lists):
            yield Violation('cmake-lists', file.path, 1, 'stands in no CMakeLists.txt')


def _lists_above(tree, folder):
    for place in (folder, *folder.parents):
        for name, file in tree.files.items():
            if file.parts[-1] == 'CMakeLists.txt' or name.endswith('.cmake'):
                if pathlib.PurePosixPath(name).parent == place and place != pathlib.PurePosixPath('.'):
                    yield name


def documentation(tree):
    """docs/architecture.md names every folder of libs/ and services/."""
    page = tree.files.get('docs/architecture.md')
    if page is None:
        yield Violation('documentation', 'docs/architecture.md', 1, 'is missing')
        return
    sources = [f for f in tree.files.values() if f.parts[0] in ('libs', 'services') and len(f.parts) > 2]
    folders = {'/'.join(f.parts[:2]) for f in sources}
    for folder in sorted(folders):
        if not re.search(rf'`{re.escape(folder)}`', page.text):
            yield Violation('documentation', page.path, 1, f'does not name `{folder}`')


def file_names(tree):
    """Files are snake_case nouns of the problem."""
    for file in tree.files.values():
        stem = file.parts[-1].split('.')[0]
        folders = file.parts[:-1]
        if stem in tables.BANNED_FILE_NAMES or any(f in tables.BANNED_FILE_NAMES for f in folders):
            yield Violation('file-names', file.path, 1, 'a name that says nothing')
        if file.is_cpp and not re.fullmatch(r'[a-z0-9_]+', stem):
            yield Violation('file-names', file.path, 1, 'not snake_case')


def headers(tree):
    """Headers are included once."""
    for file in tree.cpp():
        if file.path.endswith(('.h', '.cuh')) and '#pragma once' not in file.text:
            yield Violation('headers', file.path, 1, 'no #pragma once')


def scripts(tree):
    """What names its interpreter can be executed, and nothing else; shell scripts stop at the first failure."""
    for file in tree.files.values():
        if file.is_executable != file.text.startswith('#!'):
            yield Violation('scripts', file.path, 1,
                            'executable, but names no interpreter' if file.is_executable else 'not executable')
        if re.match(r'#!.*\b(ba)?sh\b', file.text) and 'set -euo pipefail' not in file.text:
            yield Violation('scripts', file.path, 1, 'no "set -euo pipefail"')


RULES = [layers, cmake_deps, owners, sizes, folder_sizes, namespaces, braces, words, page_words, owned_strings,
         cuda_word, cmake_lists, documentation, paths_in_pages, stops_of_journeys, tests_in_pages, file_names, headers,
         scripts]


def violations(root):
    tree = Tree(root)
    found = [v for rule in RULES for v in rule(tree)]
    return [v for v in found if tables.EXCEPTIONS.get(v.path, ('',))[0] != v.rule]


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[2]
    found = violations(root)
    for violation in found:
        print(violation)
    print(f'{len(found)} violations')
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
