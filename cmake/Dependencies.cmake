# Every third-party package, with the Debian package that brings it. deploy/install-deps installs the same list.
find_package(PkgConfig REQUIRED)                                        # pkg-config
find_package(Threads REQUIRED)
find_package(CLI11 REQUIRED)                                            # libcli11-dev
find_package(spdlog REQUIRED)                                           # libspdlog-dev
find_package(nlohmann_json REQUIRED)                                    # nlohmann-json3-dev
find_package(GTest REQUIRED)                                            # libgtest-dev libgmock-dev
find_package(benchmark REQUIRED)                                        # libbenchmark-dev
find_package(OpenSSL REQUIRED)                                          # libssl-dev
find_package(SQLite3 REQUIRED)                                          # libsqlite3-dev
find_package(prometheus-cpp REQUIRED CONFIG COMPONENTS core)            # prometheus-cpp-dev
pkg_check_modules(libpq IMPORTED_TARGET libpq)                          # libpq-dev; without it, no journal in PostgreSQL
pkg_check_modules(seccomp REQUIRED IMPORTED_TARGET libseccomp)          # libseccomp-dev
pkg_check_modules(isal REQUIRED IMPORTED_TARGET libisal)                # libisal-dev
pkg_check_modules(libedit REQUIRED IMPORTED_TARGET libedit)              # libedit-dev
find_package(yaml-cpp REQUIRED)                                         # libyaml-cpp-dev
find_package(msgpack REQUIRED CONFIG NAMES msgpack-cxx msgpack msgpackc-cxx) # libmsgpack-cxx-dev
pkg_check_modules(zmq REQUIRED IMPORTED_TARGET libzmq)                  # libzmq3-dev cppzmq-dev
pkg_check_modules(sodium REQUIRED IMPORTED_TARGET libsodium)            # libsodium-dev
pkg_check_modules(libevent REQUIRED IMPORTED_TARGET libevent libevent_pthreads libevent_openssl) # libevent-dev
pkg_check_modules(openblas REQUIRED IMPORTED_TARGET openblas)           # libopenblas-dev
find_package(Python3 REQUIRED COMPONENTS Interpreter)                  # python3: the tidy test and the oracles

# NVIDIA's own repository has these: nvcc, cuBLAS and NCCL.
if(OPTSERVE_CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    find_program(CMAKE_CUDA_COMPILER nvcc HINTS $ENV{CUDA_HOME}/bin /usr/local/cuda/bin REQUIRED)
  endif()
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 90 CACHE STRING "GPU architectures: 90 is H100 and H200; the preset cuda-release has more")
  endif()
  enable_language(CUDA)
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")  # CMake 3.25 knows no flags of nvcc 13
  find_package(CUDAToolkit REQUIRED)
  find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS} REQUIRED)
  find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR} REQUIRED)
  add_library(nccl::nccl UNKNOWN IMPORTED)
  set_target_properties(nccl::nccl PROPERTIES IMPORTED_LOCATION ${NCCL_LIBRARY}
                                              INTERFACE_INCLUDE_DIRECTORIES ${NCCL_INCLUDE_DIR})
endif()
