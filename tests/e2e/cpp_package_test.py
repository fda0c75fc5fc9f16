#!/usr/bin/env python3
"""The installed C++ client library: what it exports, and the programs of docs/examples/cpp, which are built outside of
the tree against the installed files alone and run against a local stack.

usage: cpp_package_test.py FOLDER_OF_PROGRAMS SOURCE_FOLDER BUILD_FOLDER [--write]

--write stores the library's surface in libs/client/package/surface.txt, after a change that the version tells of.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from local_stack import LIMIT_SECONDS, Stack, expect

PROGRAMS, SOURCES, BUILD = (pathlib.Path(argument).resolve() for argument in sys.argv[1:4])
SURFACE = SOURCES / "libs/client/package/surface.txt"
PUBLIC_TYPES = """
optserve::Refusal optserve::Result<JobResult> AsyncClient BackedUp Client ClientOptions ConvertSpec
Follow GroupStatus Hypothesis JobEvent JobFilter JobList JobResult JobSpec JobStream JobSummary
ModelStatus SamplingParams SchedulerAnswer<SystemStatus> ServiceStatus Submission SubmitOutcome
SystemStatus TokenRules
""".split()
WARNINGS = "-O0 -Wall -Wextra -Wpedantic -Wconversion -Wno-sign-conversion -Werror"


def output_of(*command, status=0, **settings):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=3 * LIMIT_SECONDS,
                          **settings)
    if done.returncode != status:
        sys.exit(f"FAILED: {command}\nended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def install(folder):
    for component in ("client", "client-dev"):
        output_of("cmake", "--install", BUILD, "--prefix", folder, "--component", component)
    return next(folder.rglob("pkgconfig"))


def check_headers(folder):
    headers = sorted((folder / "include/optserve").iterdir())
    names = {header.name for header in headers}
    foreign = []
    for header in headers:
        for include in re.findall(r'#include\s+([<"].*[>"])', header.read_text(encoding="utf-8")):
            own = include.startswith('"optserve/') and include[10:-1] in names
            if not own and not re.fullmatch(r"<[a-z_]+>", include):
                foreign.append(f"{header.name}: {include}")
    expect(not foreign and "client.h" in names,
           f"{len(headers)} headers include only each other and C++'s own {foreign}")


def check_surface(folder, pkgconfig):
    """Functions that the library exports, and sizes of what programs hold."""
    environment = {**os.environ, "PKG_CONFIG_PATH": str(pkgconfig)}
    flags = output_of("pkg-config", "--cflags", "--libs", "optserve-client", env=environment).split()
    program, source = folder / "surface", folder / "surface.cc"
    includes = [f"#include <optserve/{name}.h>" for name in ("async_client", "choices", "client", "future", "version")]
    prints = [f'  std::printf("{name} %zu\\n", sizeof({name}));' for name in PUBLIC_TYPES]
    source.write_text("\n".join([*includes, "#include <cstdio>", "using namespace optserve::client;",
                                 'int main() {', *prints, "}", ""]), encoding="utf-8")
    output_of("c++", *WARNINGS.split(), source, "-o", program, *flags)
    library = next(pkgconfig.parent.glob("liboptserve-client.so"))
    sizes = output_of(program, env={**os.environ, "LD_LIBRARY_PATH": str(library.parent)})
    symbols = {line.split(" ", 2)[2] for line in output_of("nm", "-DC", "--defined-only", library).splitlines()}
    surface = sizes + "\n".join(sorted(symbols)) + "\n"
    if "--write" in sys.argv:
        SURFACE.write_text(surface, encoding="utf-8")
    known = SURFACE.read_text(encoding="utf-8").splitlines()
    changed = sorted(set(known) ^ set(surface.splitlines()))
    expect(not changed, "the surface of the library is that of surface.txt, which changes with the minor version "
                        f"(docs/cpp.md) {changed}")
    dynamic = output_of("readelf", "-d", library)
    needed = re.findall(r"NEEDED.*\[(.*?)\.so", dynamic)
    known = "libspdlog libprometheus-cpp-core libzmq libsodium "\
        "libstdc++ libm libgcc_s libc ld-linux-x86-64 ld-linux-aarch64"
    unexpected = set(needed) - set(known.split())
    expect("SONAME" in dynamic and not unexpected, f"the library needs few others {unexpected}")


def check_versions(folder, pkgconfig):
    version_file = pkgconfig.parent / "cmake/optserve/optserve-config-version.cmake"
    major, minor, _ = re.search(r'PACKAGE_VERSION "(\d+)\.(\d+)\.(\d+)"', version_file.read_text()).groups()
    fits = {}
    for wanted in (f"{major}.{minor}", f"{major}.{int(minor) + 1}", f"{int(major) + 1}.0"):
        parts = wanted.split(".")
        script = "\n".join([f"set(PACKAGE_FIND_VERSION {wanted})", "set(CMAKE_SIZEOF_VOID_P 8)",
                            f"set(PACKAGE_FIND_VERSION_MAJOR {parts[0]})",
                            f"set(PACKAGE_FIND_VERSION_MINOR {parts[1]})",
                            f"include({version_file})", 'message("${PACKAGE_VERSION_COMPATIBLE}")'])
        (folder / "version.cmake").write_text(script, encoding="utf-8")
        done = subprocess.run(["cmake", "-P", folder / "version.cmake"], capture_output=True, text=True)
        fits[wanted] = done.stderr.strip()
    expect(list(fits.values())[0] == "TRUE" and "TRUE" not in list(fits.values())[1:],
           f"find_package takes versions that fit {fits}")


def build_examples(folder, installed):
    sources, build = folder / "examples", folder / "examples-build"
    shutil.copytree(SOURCES / "docs/examples/cpp", sources)
    output_of("cmake", "-S", sources, "-B", build, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={installed}",
              f"-DCMAKE_CXX_FLAGS={WARNINGS}")
    output_of("cmake", "--build", build)
    return build


def check_page():
    """What docs/cpp.md shows stands in a program that is run."""
    examples = (SOURCES / "docs/examples/cpp").iterdir()
    plain = [re.sub(r"\s+", " ", path.read_text(encoding="utf-8")) for path in examples]
    blocks = re.findall(r"```(?:cpp|cmake)\n(.*?)```", (SOURCES / "docs/cpp.md").read_text(encoding="utf-8"), re.S)
    unknown = [block for block in blocks
               if not any(re.sub(r"\s+", " ", block).strip() in text for text in plain)]
    expect(blocks and not unknown, f"the {len(blocks)} pieces of docs/cpp.md stand in the examples {unknown}")


def check_examples(build, stack, folder):
    def run(name, *arguments):
        begin = time.monotonic()
        printed = output_of(build / name, *arguments)
        print(f"    {name}: {time.monotonic() - begin:.1f} s", flush=True)
        return printed

    first, again = (run("submit_and_wait", stack.endpoint) for _ in range(2))
    expect(re.match(r"[0-9a-f]{32}: .", first) and first == again, "submit_and_wait: the same key is the same job")
    expect("from byte" in run("stream", stack.endpoint), "stream: a text, and its second half again")
    expect(len(run("callbacks", stack.endpoint)) > 10, "callbacks: a text")

    (folder / "in.txt").write_text("".join(f"Chapter {i}. Once\n" for i in range(30)))
    printed = run("batch", folder / "in.txt", folder / "out.txt", stack.endpoint)
    answers = (folder / "out.txt").read_text()
    expect("30 lines, 0 failed" in printed and answers.count("\n---\n") == 30, "batch: an answer to each of 30 lines")
    run("batch", folder / "in.txt", folder / "out2.txt", stack.endpoint)
    expect((folder / "out2.txt").read_text() == answers, "batch: the same answers when it is run again")

    printed = run("pool", stack.endpoint, "demo", "1000")
    expect("1000 accepted" in printed and "1000 succeeded" in printed, "pool: 1,000 jobs of a group")
    printed = run("operate", stack.endpoint)
    expect(all(word in printed for word in ("demo: paused", "demo: open", "is cancelled", "1 purged")), "operate")
    run("convert", folder / "opt", folder / "opt-again", stack.endpoint)
    expect((folder / "opt-again/manifest.json").exists(), "convert: a checkpoint")
    output_of(build / "convert", folder / "nothing", folder / "other", stack.endpoint, status=1)


def main():
    with tempfile.TemporaryDirectory(prefix="optserve-cpp-") as name:
        folder = pathlib.Path(name)
        installed = folder / "installed"
        pkgconfig = install(installed)
        check_headers(installed)
        check_surface(folder, pkgconfig)
        check_versions(folder, pkgconfig)
        check_page()
        build = build_examples(folder, installed)
        with Stack(PROGRAMS, SOURCES, folder) as stack:
            check_examples(build, stack, folder)


main()
