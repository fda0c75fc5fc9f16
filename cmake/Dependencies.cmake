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
find_package(yaml-cpp REQUIRED)                                         # libyaml-cpp-dev
find_package(msgpack REQUIRED CONFIG NAMES msgpack-cxx msgpack msgpackc-cxx) # libmsgpack-cxx-dev
pkg_check_modules(zmq REQUIRED IMPORTED_TARGET libzmq)                  # libzmq3-dev cppzmq-dev
pkg_check_modules(libevent REQUIRED IMPORTED_TARGET libevent libevent_pthreads) # libevent-dev
pkg_check_modules(openblas REQUIRED IMPORTED_TARGET openblas)           # libopenblas-dev
