#!/usr/bin/env python3
"""The tree keeps the house rules, and each rule is able to fail."""

import pathlib
import tempfile
import unittest

import braces
import cpp_source
import tidy

ROOT = pathlib.Path(__file__).resolve().parents[2]

# A small tree that keeps every rule; each test below breaks one.
CLEAN = {
    'libs/LAYERS': '# component: dependencies\nbase:\ntensor: base\nprotocol: base\n',
    'libs/base/CMakeLists.txt': 'add_component(NAME base SRCS error.cc)\n',
    'libs/base/error.h': '#pragma once\n#include <string>\nint answer();\n',
    'libs/base/error.cc': '#include "base/error.h"\nint answer() { return 42; }\n',
    'libs/tensor/CMakeLists.txt': 'add_component(NAME tensor DEPS base TESTS tensor_test.cc)\n',
    'libs/tensor/tensor.h': '#pragma once\n#include "base/error.h"\n',
    'libs/tensor/tensor_test.cc': '#include <gtest/gtest.h>\n#include "tensor/tensor.h"\n',
    'libs/protocol/CMakeLists.txt': 'add_component(NAME protocol SRCS codec.cc DEPS base)\n',
    'libs/protocol/codec.cc': '#include <msgpack.hpp>\n#include <sys/types.h>\n#include "base/error.h"\n',
    'services/worker/CMakeLists.txt': 'add_service(NAME worker SRCS worker.cc)\n',
    'services/worker/main.cc': '#include "worker/worker.h"\nint main() { return 0; }\n',
    'services/worker/worker.h': '#pragma once\n#include "tensor/tensor.h"\n',
    'services/worker/worker.cc': '#include "worker/worker.h"\n',
    'services/cli/CMakeLists.txt': 'add_service(NAME cli)\n',
    'services/cli/cli.h': '#pragma once\n',
    'docs/architecture.md': '`libs/base` `libs/tensor` `libs/protocol` `services/worker` `services/cli`\n',
    'deploy/start': '#!/usr/bin/env bash\nset -euo pipefail\n',
}


def violations_of(files):
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = pathlib.Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding='utf-8')
            path.chmod(0o755 if text.startswith('#!') and name != 'deploy/not_executable' else 0o644)
        return tidy.violations(folder)


class TheTree(unittest.TestCase):
    def test_keeps_the_house_rules(self):
        self.assertEqual([], [str(v) for v in tidy.violations(ROOT)])


class EveryRuleCanFail(unittest.TestCase):
    def breaks(self, rule, path, text, message=''):
        """The clean tree with `text` as file `path` (after '+': added to it) breaks `rule` there, and no other."""
        files = dict(CLEAN)
        files[path] = files.get(path, '') + text[1:] if text.startswith('+') else text
        found = violations_of(files)
        self.assertEqual([(rule, path)], sorted({(v.rule, v.path) for v in found}), [str(v) for v in found])
        self.assertIn(message, found[0].message)

    def test_page_words(self):
        for line in ("box.innerHTML = text;", "localStorage.setItem('key', key);", '<p style="color: red">',
                     '<script>run()</script>', '@import "https://fonts.example/a.css";', '<button onclick="go()">'):
            self.breaks('page-words', 'services/worker/ui/page.html', line + '\n')
        self.breaks('line-length', 'services/worker/ui/page.js', '// ' + 'x' * 120 + '\n')

    def test_the_clean_tree_breaks_none(self):
        self.assertEqual([], violations_of(CLEAN))

    def test_upward_include(self):
        self.breaks('layers', 'libs/base/error.h', '+#include "tensor/tensor.h"\n', 'does not allow base')

    def test_sideways_include(self):
        files = dict(CLEAN)
        files['libs/tensor/tensor.h'] += '#include "protocol/message.h"\n'
        files['libs/protocol/message.h'] = '#pragma once\n'
        self.assertEqual({'layers'}, {v.rule for v in violations_of(files)})

    def test_library_includes_service(self):
        self.breaks('layers', 'libs/base/error.h', '+#include "worker/worker.h"\n', 'includes a service')

    def test_service_includes_service(self):
        self.breaks('layers', 'services/worker/worker.h', '+#include "cli/cli.h"\n',
                    'service worker includes service cli')

    def test_product_includes_test(self):
        self.breaks('layers', 'libs/tensor/tensor.h', '+#include "tensor/tensor_test.cc"\n', 'includes a test')

    def test_include_of_nothing(self):
        self.breaks('layers', 'libs/base/error.h', '+#include "base/gone.h"\n', 'no such file')

    def test_ambiguous_include(self):
        files = dict(CLEAN)
        files['services/tensor/tensor.h'] = '#pragma once\n'
        files['docs/architecture.md'] += '`services/tensor`'
        self.assertIn('ambiguous', violations_of(files)[0].message)

    def test_kernels_include_libraries(self):
        self.breaks('layers', 'kernels/norm.h', '#pragma once\n#include "base/error.h"\n', 'nothing but kernels')

    def test_kernels_seen_outside_the_cuda_backend(self):
        files = dict(CLEAN)
        files['kernels/norm.h'] = '#pragma once\n'
        files['libs/base/error.h'] += '#include "kernels/norm.h"\n'
        self.assertEqual({'layers'}, {v.rule for v in violations_of(files)})

    def test_cmake_names_more_than_the_table(self):
        self.breaks('cmake-deps', 'libs/base/CMakeLists.txt', 'add_component(NAME base SRCS error.cc DEPS tensor)\n',
                    'tensor')

    def test_cmake_does_not_cover_an_include(self):
        files = dict(CLEAN)
        files['libs/tensor/CMakeLists.txt'] = 'add_component(NAME tensor TESTS tensor_test.cc)\n'
        self.assertEqual([('cmake-deps', 'libs/tensor/tensor.h')], [(v.rule, v.path) for v in violations_of(files)])

    def test_component_missing_from_the_table(self):
        files = dict(CLEAN)
        files['libs/extra/extra.h'] = '#pragma once\n'
        files['docs/architecture.md'] += '`libs/extra`'
        self.assertEqual([('cmake-deps', 'libs/LAYERS')], [(v.rule, v.path) for v in violations_of(files)])

    def test_third_party_header_outside_its_owner(self):
        self.breaks('owners', 'libs/tensor/tensor.h', '+#include <msgpack.hpp>\n', 'belongs to libs/protocol/')

    def test_test_framework_in_product_code(self):
        self.breaks('owners', 'libs/tensor/tensor.h', '+#include <gtest/gtest.h>\n', 'belongs to')

    def test_third_party_header_without_an_owner(self):
        self.breaks('owners', 'libs/tensor/tensor.h', '+#include <boost/any.hpp>\n', 'no owner')

    def test_long_function(self):
        body = 'void grow() {\n' + '  answer();\n' * 69 + '}\n'
        self.breaks('function-length', 'libs/base/error.cc', '+' + body, 'grow: 71 lines')

    def test_many_parameters(self):
        self.breaks('parameters', 'libs/base/error.h', '+void f(int a, int b, int c, int d, int e, int g, int h);\n',
                    'f: 7 parameters')

    def test_long_file(self):
        self.breaks('file-length', 'libs/base/error.cc', '+' + 'int x();\n' * 500, '502 lines')

    def test_long_line(self):
        self.breaks('line-length', 'libs/base/error.cc', '+// ' + 'x' * 118 + '\n', '121 columns')

    def test_crowded_folder(self):
        files = CLEAN | {f'tests/crowd/file_{i}.py': '' for i in range(35)}
        self.assertEqual([('folder-size', 'tests/crowd')], [(v.rule, v.path) for v in violations_of(files)])

    def test_namespace_of_another_component(self):
        self.breaks('namespaces', 'services/cli/cli.h', '+namespace optserve {\nclass A;\n}\n', 'optserve::cli')
        self.breaks('namespaces', 'libs/tensor/tensor.h', '+namespace optserve::tensor {\nclass A;\n}\n', 'use')
        found = violations_of(CLEAN | {'tests/support/a.h': '#pragma once\nnamespace optserve {\n}\n'})
        self.assertEqual(['namespaces'], [v.rule for v in found if v.path.endswith('a.h')])

    def test_body_without_braces(self):
        for body in ('if (a)\n  b();', 'if (a) {\n  b();\n} else\n  c();', 'for (;;)\n  b();', 'if (a) b(1,\n  2);'):
            self.breaks('braces', 'libs/base/error.cc', f'+void f() {{\n{body}\n}}\n', 'line of its condition')

    def test_body_that_needs_no_braces(self):
        for body in ('if (a) b();', 'do {\n  b();\n} while (c);', 'while (a)\n  ;',
                     'if (a) {\n  b();\n} else if (c) d();', 'if (a) [[likely]] {\n  b();\n}'):
            files = CLEAN | {'libs/base/error.cc': CLEAN['libs/base/error.cc'] + f'void f() {{\n{body}\n}}\n'}
            self.assertEqual([], violations_of(files), body)

    def test_braces_are_put_in(self):
        hinted = braces.with_braces('if (a) [[likely]]\n  b();')
        self.assertEqual('if (a) [[likely]] { b();\n}', hinted.replace('\n  ', ' '))
        remark = braces.with_braces('for (;;)  // why\n  b();')
        self.assertEqual('for (;;) {  // why\n  b();\n}', remark)
        text = 'void f() {\n  if (a)\n    b();  // why\n  else\n    for (;;)\n      c();\n}\n'
        fixed = braces.with_braces(text)
        self.assertEqual([], list(braces.bare_bodies(fixed)))
        self.assertEqual(''.join(text.split()), ''.join(fixed.replace('{ ', '').replace('\n}', '', 3).split()))

    def test_word_of_a_table(self):
        self.breaks('owned-strings', 'services/cli/cli.h', '+const char* const kName = "fp16";\n', 'format_names')

    def test_path_that_does_not_exist(self):
        self.breaks('paths-in-pages', 'docs/architecture.md', '+See `libs/base/missing.h`.\n', 'libs/base/missing.h')

    def test_stop_of_a_journey_that_does_not_exist(self):
        self.breaks('journeys', 'docs/architecture.md', '+1. `libs/base/error.cc`: `question`\n', 'no question')

    def test_stop_of_a_journey_that_exists(self):
        page = CLEAN['docs/architecture.md'] + '1. `libs/base/error.cc`: `answer`\n'
        self.assertEqual([], violations_of(CLEAN | {'docs/architecture.md': page}))

    def test_test_that_does_not_exist(self):
        self.breaks('tests-in-pages', 'docs/reliability.md', 'Shown by `Tensor.HasNoCase`.\n', 'HasNoCase')

    def test_test_that_exists(self):
        case = CLEAN['libs/tensor/tensor_test.cc'] + 'TEST_F(Tensor,\n       HasACase) {}\n'
        self.assertEqual([], violations_of(CLEAN | {'libs/tensor/tensor_test.cc': case,
                                                    'docs/reliability.md': 'Shown by `Tensor.HasACase`.\n'}))

    def test_banned_calls(self):
        for call in ['getenv("X")', 'std::exit(1)', 'exit(1)', 'system("ls")', 'popen("ls", "r")', 'new int',
                     'delete p', 'sprintf(b, "x")', 'rand()', 'std::chrono::steady_clock::now()', 'thread.detach()',
                     'cudaFree(p)', 'HAVE_CUDA']:
            files = dict(CLEAN)
            files['libs/base/error.cc'] += f'int f() {{ return ({call}, 0); }}\n'
            self.assertIn('words', {v.rule for v in violations_of(files)}, call)

    def test_allowed_look_alikes(self):
        for code in ['X(const X&) = delete;', '// a new delete', 'auto s = "new";', 'void f() { loop.exit_at(1); }',
                     'auto p = std::unique_ptr<X>(new X);', 'int fileSystem(int);', 'bool renew(int x);']:
            files = dict(CLEAN)
            files['libs/base/error.cc'] += code + '\n'
            self.assertEqual([], violations_of(files), code)

    def test_leftover_marker(self):
        self.breaks('words', 'libs/base/error.cc', '+// TO' 'DO: later\n', 'do it')

    def test_ticket_number(self):
        self.breaks('words', 'docs/architecture.md', '+Done in issue #' '12.\n', 'history')

    def test_cuda_word(self):
        self.breaks('cuda-word', 'libs/base/error.cc', '+bool is_cuda();\n')

    def test_test_that_is_not_built(self):
        self.breaks('cmake-lists', 'libs/base/error_test.cc', '#include "base/error.h"\n')

    def test_source_that_is_commented_out_of_the_build(self):
        files = dict(CLEAN)
        files['libs/base/CMakeLists.txt'] = 'add_component(NAME base) # SRCS error.cc\n'
        self.assertEqual([('cmake-lists', 'libs/base/error.cc')], [(v.rule, v.path) for v in violations_of(files)])

    def test_undocumented_folder(self):
        self.breaks('documentation', 'docs/architecture.md', '`libs/base` `libs/tensor` `libs/protocol` `services/cli`',
                    'services/worker')

    def test_name_that_says_nothing(self):
        self.breaks('file-names', 'libs/base/utils.h', '#pragma once\n')

    def test_name_that_is_not_snake_case(self):
        self.breaks('file-names', 'libs/base/ErrorCode.h', '#pragma once\n')

    def test_header_without_guard(self):
        self.breaks('headers', 'libs/base/more.h', 'int f();\n')

    def test_careless_script(self):
        self.breaks('scripts', 'deploy/start', '#!/bin/sh\nfalse\n')

    def test_script_that_cannot_be_executed(self):
        self.breaks('scripts', 'deploy/not_executable', '#!/usr/bin/env python3\n')


class CppSource(unittest.TestCase):
    def functions(self, text):
        return [(f.name, f.lines, f.parameters) for f in cpp_source.functions(text)]

    def test_finds_definitions_and_declarations(self):
        text = ('namespace a {\nclass B : public C<int, 2> {\n public:\n  explicit B(int x) : x_{x}, y_(2) {\n  }\n'
                '  int get() const { return x_; }\n  B& operator=(const B& other);\n private:\n  int x_{3};\n};\n'
                'template <class T, class U>\nauto f(std::map<T, U> m, int n) -> int {\n  return n;\n}\n}\n')
        self.assertEqual([('B', 2, 1), ('get', 1, 0), ('operator=', 0, 1), ('f', 4, 2)], self.functions(text))

    def test_a_lambda_counts_to_its_function(self):
        text = 'void f() {\n  auto g = [](int a, int b) {\n    if (a) {}\n  };\n}\n'
        self.assertEqual([('f', 5, 0)], self.functions(text))

    def test_tables_are_no_functions(self):
        self.assertEqual([], self.functions('constexpr Row kRows[] = {{1, f(2)}, {3, 4}};\nenum class E { kA, kB };\n'))

    def test_braces_in_strings_and_comments(self):
        self.assertEqual([('f', 3, 0)], self.functions('void f() {  // {\n  g("}{", \'{\', R"(})");\n}\n'))

    def test_digit_separators_are_no_quotes(self):
        self.assertEqual([('f', 1, 0), ('g', 1, 0)],
                         self.functions("int f() { return 1'000'000; }\nint g() { return '{'; }\n"))


if __name__ == '__main__':
    unittest.main()
