# The whole CMake vocabulary of the project: add_component() for libraries, add_service() for programs,
# add_suite() for tests that span components.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
# Several files of a component are compiled as one: headers are then read once for all of them, which takes a third of the
# time of a whole build. Names in anonymous namespaces are therefore unique in a component. -DCMAKE_UNITY_BUILD=OFF
# compiles each file by itself.
set(CMAKE_UNITY_BUILD ON CACHE BOOL "Compile several files of a component as one")
set(CMAKE_UNITY_BUILD_BATCH_SIZE 12)
# Installed programs find the libraries that deploy/bundle puts beside them, and what those load in turn (hence no
# RUNPATH, which is not inherited).
if(NOT OPTSERVE_PACKAGE)
  set(CMAKE_INSTALL_RPATH "$ORIGIN/../lib")
endif()
add_link_options(-Wl,--disable-new-dtags)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
option(OPTSERVE_WERROR "Treat warnings as errors (set by the presets)" OFF)
set(OPTSERVE_TEST_OPTIONS "" CACHE STRING "Compiler options of tests alone, whose build takes longer than that of the programs")
option(OPTSERVE_TOOLS "Use ccache and mold where they are installed (set by the presets)" OFF)

# Warnings are for C++ only, since nvcc passes generated code to its host compiler.
set(warnings -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion)
if(CMAKE_UNITY_BUILD AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  list(APPEND warnings -Wno-subobject-linkage)  # a class of one .cc file may have members of types that are private to it
endif()
if(OPTSERVE_WERROR)
  list(APPEND warnings -Werror)
endif()
if(CMAKE_BUILD_TYPE STREQUAL "Release" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  list(APPEND warnings -Wno-restrict)  # warns of sums of strings, wrongly: gcc bug 105651
endif()
add_library(optserve_options INTERFACE)
target_include_directories(optserve_options INTERFACE ${PROJECT_SOURCE_DIR}/libs)
target_compile_options(optserve_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${warnings}>")
if(OPTSERVE_SANITIZE)
  target_compile_options(optserve_options INTERFACE -fsanitize=${OPTSERVE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(optserve_options INTERFACE -fsanitize=${OPTSERVE_SANITIZE})
  if(OPTSERVE_SANITIZE_WITHOUT)
    target_compile_options(optserve_options INTERFACE -fno-sanitize=${OPTSERVE_SANITIZE_WITHOUT})
  endif()
endif()
if(OPTSERVE_FUZZERS)  # coverage feedback from the libraries under test, not only from the target's own file
  target_compile_options(optserve_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

if(OPTSERVE_TOOLS)
  find_program(CCACHE_PROGRAM ccache)
  find_program(MOLD_PROGRAM mold)
  mark_as_advanced(CCACHE_PROGRAM MOLD_PROGRAM)
  if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
    set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
  endif()
  if(MOLD_PROGRAM)
    # Not if the target has this property, since mold links more members of archives than are needed.
    target_link_options(optserve_options INTERFACE $<$<NOT:$<BOOL:$<TARGET_PROPERTY:OPTSERVE_WITHOUT_MOLD>>>:-fuse-ld=mold>)
  endif()
endif()

# Tests are built by these targets and not by `all`, so that people who only want the programs do not wait for them. A
# test has the labels of the groups it belongs to; docs/testing.md says what each is for.
add_custom_target(all_tests)
foreach(group unit e2e slow threads reduced untrusted tree)
  add_custom_target(${group}_tests)
endforeach()
add_custom_target(benchmarks)

# Internal: labels a test, and lets the targets of its groups build `program`, if that is a target.
function(optserve_label_test test program)
  set_tests_properties(${test} PROPERTIES LABELS "${ARGN}")
  if(TARGET ${program})
    add_dependencies(all_tests ${program})
    foreach(group IN LISTS ARGN)
      add_dependencies(${group}_tests ${program})
    endforeach()
  endif()
endfunction()

# Internal: one GoogleTest program `name` of all `sources`, and for each source a test of the source's name that runs the
# suites in it. One program for a whole component, since most of the time of a build goes into the headers of tests;
# its files are compiled together, so each has its names in a namespace called after the file. A file that checks
# whether a sanitizer is there does less under it, so CI runs it without one too.
function(optserve_add_tests name labels sources)
  add_executable(${name} EXCLUDE_FROM_ALL ${sources})
  target_link_libraries(${name} PRIVATE ${ARGN} GTest::gmock GTest::gtest_main optserve_options)
  target_compile_options(${name} PRIVATE ${OPTSERVE_TEST_OPTIONS})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)  # for headers of tests/support that need no library
  foreach(source IN LISTS sources)
    get_filename_component(test ${source} NAME_WE)
    file(STRINGS ${source} lines REGEX "^(TEST|TEST_F|TEST_P|TYPED_TEST)\\(")
    list(TRANSFORM lines REPLACE "^[A-Z_]+\\( *([A-Za-z0-9_]+).*" "\\1.*:*/\\1.*:\\1/*")
    list(REMOVE_DUPLICATES lines)
    list(JOIN lines ":" filter)
    if(NOT filter)
      message(FATAL_ERROR "${CMAKE_CURRENT_SOURCE_DIR}/${source}: found no test in it")
    endif()
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
    add_test(NAME ${test} COMMAND ${name} --gtest_filter=${filter})
    set_tests_properties(${test} PROPERTIES TIMEOUT 600)
    file(STRINGS ${source} reduced REGEX "[Ss]anitize" LIMIT_COUNT 1)
    set(groups ${labels})
    get_source_file_property(sequential ${source} OPTSERVE_SEQUENTIAL)
    if(sequential)
      list(REMOVE_ITEM groups threads)
    endif()
    if(reduced)
      list(APPEND groups reduced)
    endif()
    # Slow tests have the machine to themselves, and so do systems of processes that a sanitizer makes ten times slower.
    if(slow IN_LIST groups OR (e2e IN_LIST groups AND OPTSERVE_SANITIZE))
      set_tests_properties(${test} PROPERTIES RUN_SERIAL TRUE)
    endif()
    if(slow IN_LIST groups)
      set_tests_properties(${test} PROPERTIES TIMEOUT 1800)
    endif()
    optserve_label_test(${test} ${name} ${groups})
  endforeach()
endfunction()

# Internal: a libFuzzer target x_fuzz.cc with its seed corpus in the folder x_fuzz_corpus beside it.
function(optserve_add_fuzzer source)
  if(NOT OPTSERVE_FUZZERS)
    return()
  endif()
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE ${ARGN} optserve_options)
  target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  set_property(GLOBAL APPEND PROPERTY OPTSERVE_FUZZER_NAMES ${name})
endfunction()

# Internal: the tests of one component, and those of components with threads under ThreadSanitizer too.
function(optserve_add_unit_tests name has_threads sources)
  set(labels unit)
  if(has_threads)
    list(APPEND labels threads)
  endif()
  if(sources)
    optserve_add_tests(${name} "${labels}" "${sources}" ${ARGN})
  endif()
endfunction()

add_custom_target(programs)  # what is installed
add_custom_target(gpu_programs)
# A test or benchmark that needs a GPU: run by `tests/run --gpu`, installed by deploy/bundle
# --tests.
function(optserve_add_gpu_program name)
  cmake_parse_arguments(ARG "TEST" "" "SRCS;LIBS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE ${ARG_LIBS} optserve_options)
  add_dependencies(gpu_programs ${name})
  install(TARGETS ${name} RUNTIME DESTINATION tests COMPONENT gpu_tests EXCLUDE_FROM_ALL)
  if(ARG_TEST)
    target_link_libraries(${name} PRIVATE GTest::gmock GTest::gtest_main)
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES LABELS gpu TIMEOUT 900 RUN_SERIAL TRUE)
  endif()
endfunction()

# add_component(NAME x [THREADS] SRCS ... DEPS (components) LIBS (third party) TESTS ... FUZZERS ... BENCHES ...)
# Tests are labelled "unit". THREADS: the component has threads or processes of its own, so its tests are labelled
# "threads" too and run under ThreadSanitizer, except those of SEQUENTIAL, whose code has one thread. TEST_DEPS are
# components that only the tests need. GPU_TESTS, labelled "gpu", and GPU_BENCHES, with a main() of their own, are built
# with OPTSERVE_CUDA only.
function(add_component)
  cmake_parse_arguments(ARG "THREADS" "NAME"
                        "SRCS;DEPS;LIBS;TESTS;SEQUENTIAL;TEST_DEPS;FUZZERS;BENCHES;GPU_TESTS;GPU_BENCHES" ${ARGN})
  if(ARG_SEQUENTIAL)
    set_source_files_properties(${ARG_SEQUENTIAL} PROPERTIES OPTSERVE_SEQUENTIAL TRUE)
  endif()
  set(target optserve_${ARG_NAME})
  list(TRANSFORM ARG_DEPS PREPEND optserve::)
  list(TRANSFORM ARG_TEST_DEPS PREPEND optserve::)
  if(ARG_SRCS)
    add_library(${target} STATIC ${ARG_SRCS})
    target_link_libraries(${target} PUBLIC ${ARG_DEPS} optserve_options ${ARG_LIBS})
  else()
    add_library(${target} INTERFACE)
    target_link_libraries(${target} INTERFACE ${ARG_DEPS} optserve_options ${ARG_LIBS})
  endif()
  add_library(optserve::${ARG_NAME} ALIAS ${target})
  optserve_add_unit_tests(${ARG_NAME}_tests "${ARG_THREADS}" "${ARG_TESTS}" ${target} ${ARG_TEST_DEPS})
  foreach(fuzzer IN LISTS ARG_FUZZERS)
    optserve_add_fuzzer(${fuzzer} ${target} ${ARG_TEST_DEPS})
  endforeach()
  foreach(bench IN LISTS ARG_BENCHES)
    get_filename_component(name ${bench} NAME_WE)
    add_executable(${name} EXCLUDE_FROM_ALL ${bench})
    target_link_libraries(${name} PRIVATE ${target} ${ARG_TEST_DEPS} benchmark::benchmark_main)
    add_dependencies(benchmarks ${name})
  endforeach()
  if(NOT OPTSERVE_CUDA)
    return()
  endif()
  foreach(test IN LISTS ARG_GPU_TESTS)
    get_filename_component(name ${test} NAME_WE)
    optserve_add_gpu_program(${name} TEST SRCS ${test} LIBS ${target} ${ARG_TEST_DEPS})
  endforeach()
  foreach(bench IN LISTS ARG_GPU_BENCHES)
    get_filename_component(name ${bench} NAME_WE)
    optserve_add_gpu_program(${name} SRCS ${bench} LIBS ${target} ${ARG_TEST_DEPS})
  endforeach()
endfunction()

# add_service(NAME x [THREADS] PROGRAM optserve-x SRCS (without main.cc) DEPS ... LIBS ... TESTS ... TEST_DEPS ...)
# Everything but main.cc is a library, so that tests can hold the same objects. THREADS: as for add_component().
function(add_service)
  cmake_parse_arguments(ARG "THREADS" "NAME;PROGRAM" "SRCS;DEPS;LIBS;TESTS;TEST_DEPS" ${ARGN})
  set(library ${ARG_NAME}_service)
  list(TRANSFORM ARG_DEPS PREPEND optserve::)
  list(TRANSFORM ARG_TEST_DEPS PREPEND optserve::)
  add_library(${library} STATIC ${ARG_SRCS})
  target_include_directories(${library} PUBLIC ${PROJECT_SOURCE_DIR}/services)
  target_link_libraries(${library} PUBLIC ${ARG_DEPS} optserve_options ${ARG_LIBS})
  add_library(optserve::${library} ALIAS ${library})
  add_executable(${ARG_PROGRAM} main.cc)
  target_link_libraries(${ARG_PROGRAM} PRIVATE ${library})
  add_dependencies(programs ${ARG_PROGRAM})
  install(TARGETS ${ARG_PROGRAM} RUNTIME DESTINATION bin COMPONENT programs)
  optserve_add_unit_tests(${ARG_NAME}_service_tests "${ARG_THREADS}" "${ARG_TESTS}" ${library} ${ARG_TEST_DEPS})
endfunction()

# add_suite(NAME x LABELS unit|e2e|slow [threads] [untrusted] TESTS ... DEPS ... LIBS ...): tests under tests/ that span
# components, as the program x_tests.
function(add_suite)
  cmake_parse_arguments(ARG "" "NAME" "LABELS;TESTS;DEPS;LIBS" ${ARGN})
  list(TRANSFORM ARG_DEPS PREPEND optserve::)
  optserve_add_tests(${ARG_NAME}_tests "${ARG_LABELS}" "${ARG_TESTS}" ${ARG_DEPS} ${ARG_LIBS})
endfunction()
