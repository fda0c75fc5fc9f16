# Manual pages and shell completion, made by the programs from their own tables of options, and Debian packages of it all:
#   cmake --preset package && cmake --build --preset package && (cd build/package && cpack)
# deploy/package does that; docs/packages.md says what is in them.
include(GNUInstallDirs)
set(OPTSERVE_MAINTAINER "" CACHE STRING "Of the Debian packages, as \"Name <address>\"; by default DEBFULLNAME and DEBEMAIL")

# --- manual pages and completion

set(documented_programs optserve optserve-scheduler optserve-tokenizer optserve-worker optserve-converter optserve-gateway)
set(manuals ${PROJECT_BINARY_DIR}/manuals)
set(commands)
foreach(program IN LISTS documented_programs)
  list(APPEND commands
       COMMAND ${program} --manual=${manuals}/man
       COMMAND ${program} --completion=bash > ${manuals}/bash/${program}
       COMMAND ${program} --completion=zsh > ${manuals}/zsh/_${program}
       COMMAND ${program} --completion=fish > ${manuals}/fish/${program}.fish)
endforeach()
add_custom_command(OUTPUT ${manuals}/made DEPENDS ${documented_programs}
  COMMAND ${CMAKE_COMMAND} -E rm -rf ${manuals}
  COMMAND ${CMAKE_COMMAND} -E make_directory ${manuals}/man ${manuals}/bash ${manuals}/zsh ${manuals}/fish
  ${commands}
  COMMAND sh -c "gzip -9n ${manuals}/man/*"
  COMMAND ${CMAKE_COMMAND} -E touch ${manuals}/made
  WORKING_DIRECTORY ${PROJECT_BINARY_DIR} VERBATIM COMMENT "Manual pages and shell completion")
add_custom_target(manuals DEPENDS ${manuals}/made)
if(NOT OPTSERVE_PACKAGE)
  return()
endif()

# --- Debian packages

# Whoever makes packages is responsible for them, so there is no default address.
set(maintainer ${OPTSERVE_MAINTAINER})
if(NOT maintainer AND DEFINED ENV{DEBFULLNAME} AND DEFINED ENV{DEBEMAIL})
  set(maintainer "$ENV{DEBFULLNAME} <$ENV{DEBEMAIL}>")
endif()
if(NOT maintainer MATCHES "^[^<>]+ <[^<>@ ]+@[^<>@ ]+>$")
  message(FATAL_ERROR "Debian packages name who made them, and '${maintainer}' is no \"Name <address>\": set the variables "
                      "DEBFULLNAME and DEBEMAIL, or give -DOPTSERVE_MAINTAINER=\"Name <address>\"")
endif()

set(debian ${PROJECT_SOURCE_DIR}/deploy/packages/debian)
set(made ${PROJECT_BINARY_DIR}/debian)
set(client_package liboptserve-client${OPTSERVE_CLIENT_SOVERSION})
if(OPTSERVE_CUDA)
  set(programs_package optserve-cuda)
else()
  set(programs_package optserve)
endif()

add_custom_target(package_documents ALL DEPENDS manuals)
foreach(section IN ITEMS 1 8)
  install(DIRECTORY ${manuals}/man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section} COMPONENT programs
          FILES_MATCHING PATTERN "*.${section}.gz")
endforeach()
install(DIRECTORY ${manuals}/bash/ DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions COMPONENT programs)
install(DIRECTORY ${manuals}/zsh/ DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions COMPONENT programs)
install(DIRECTORY ${manuals}/fish/ DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d COMPONENT programs)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/deploy/packages/systemd/ DESTINATION lib/systemd/system COMPONENT programs)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/deploy/packages/etc/ DESTINATION /etc/optserve COMPONENT programs)
install(FILES ${PROJECT_SOURCE_DIR}/docs/cpp.md DESTINATION ${CMAKE_INSTALL_DOCDIR}/../liboptserve-client-dev
        COMPONENT client-dev)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/docs/examples/cpp/ COMPONENT client-dev
        DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/liboptserve-client-dev/examples)

string(TIMESTAMP date "%a, %d %b %Y %H:%M:%S +0000" UTC)
configure_file(${debian}/changelog.in ${made}/changelog @ONLY)
execute_process(COMMAND gzip -9nkf ${made}/changelog COMMAND_ERROR_IS_FATAL ANY)
foreach(component_package IN ITEMS programs=${programs_package} client=${client_package} client-dev=liboptserve-client-dev)
  string(REGEX MATCH "([^=]*)=(.*)" component_package "${component_package}")
  install(FILES ${debian}/copyright ${made}/changelog.gz COMPONENT ${CMAKE_MATCH_1}
          DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${CMAKE_MATCH_2})
  if(EXISTS ${debian}/${CMAKE_MATCH_1}.overrides) # what lintian says, and why it stays so
    install(FILES ${debian}/${CMAKE_MATCH_1}.overrides COMPONENT ${CMAKE_MATCH_1}
            DESTINATION ${CMAKE_INSTALL_DATADIR}/lintian/overrides RENAME ${CMAKE_MATCH_2})
  endif()
endforeach()
file(GLOB settings RELATIVE ${PROJECT_SOURCE_DIR}/deploy/packages/etc ${PROJECT_SOURCE_DIR}/deploy/packages/etc/*)
list(TRANSFORM settings PREPEND /etc/optserve/)
list(JOIN settings "\n" settings)
file(WRITE ${made}/conffiles "${settings}\n")

set(CPACK_GENERATOR DEB)
set(CPACK_SET_DESTDIR ON)  # for what is in /etc
set(CPACK_INSTALL_PREFIX ${CMAKE_INSTALL_PREFIX})
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
    OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL programs client client-dev)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_PACKAGE_NAME optserve)
set(CPACK_PACKAGE_CONTACT ${maintainer})
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${PROJECT_BINARY_DIR}/lib)

set(about_system "server of OPT language models around a durable queue
optserve serves OPT models, from 125M to 175B parameters, through a scheduler
that keeps every accepted job on disk, tokenizers, groups of workers, an HTTP
gateway and a converter of checkpoints. Each is a systemd service, which
drains when it is stopped. The command optserve runs local stacks, sends
jobs and shows the state of a system.")
set(CPACK_DEBIAN_PROGRAMS_PACKAGE_NAME ${programs_package})
set(CPACK_DEBIAN_PROGRAMS_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PROGRAMS_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PROGRAMS_PACKAGE_DEPENDS adduser)
set(CPACK_DEBIAN_PROGRAMS_PACKAGE_SUGGESTS bash-completion)
set(CPACK_DEBIAN_PROGRAMS_PACKAGE_CONTROL_EXTRA
    ${debian}/postinst ${debian}/prerm ${debian}/postrm ${made}/conffiles)
set(CPACK_COMPONENT_PROGRAMS_DESCRIPTION "${about_system}")
if(OPTSERVE_CUDA)
  # All programs, with workers that compute on GPUs. A host may have the libraries of CUDA and NCCL from elsewhere, so
  # NVIDIA's packages are only recommended: apt installs them where it can. The script postinst names what is missing.
  set(CPACK_DEBIAN_PROGRAMS_PACKAGE_RECOMMENDS "libcublas-${CUDAToolkit_VERSION_MAJOR}-${CUDAToolkit_VERSION_MINOR}, libnccl2")
  set(CPACK_DEBIAN_PROGRAMS_PACKAGE_PROVIDES "optserve (= ${PROJECT_VERSION})")
  set(CPACK_DEBIAN_PROGRAMS_PACKAGE_CONFLICTS optserve)
  set(CPACK_DEBIAN_PROGRAMS_PACKAGE_REPLACES optserve)
  set(CPACK_COMPONENTS_ALL programs)
  string(REPLACE "durable queue" "durable queue (GPUs)" CPACK_COMPONENT_PROGRAMS_DESCRIPTION "${about_system}")
endif()

set(CPACK_DEBIAN_CLIENT_PACKAGE_NAME ${client_package})
set(CPACK_DEBIAN_CLIENT_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_CLIENT_PACKAGE_SHLIBDEPS ON)
file(WRITE ${made}/shlibs "liboptserve-client ${OPTSERVE_CLIENT_SOVERSION} ${client_package} (>= ${PROJECT_VERSION})\n")
set(CPACK_DEBIAN_CLIENT_PACKAGE_CONTROL_EXTRA ${debian}/triggers ${made}/shlibs)
set(CPACK_COMPONENT_CLIENT_DESCRIPTION "client library of optserve, a server of OPT language models
Submits jobs that are accepted once, follows streams that resume where they
broke off, converts checkpoints and operates schedulers.")

set(CPACK_DEBIAN_CLIENT-DEV_PACKAGE_NAME liboptserve-client-dev)
set(CPACK_DEBIAN_CLIENT-DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_CLIENT-DEV_PACKAGE_DEPENDS "${client_package} (= ${PROJECT_VERSION})")
set(CPACK_COMPONENT_CLIENT-DEV_DESCRIPTION "client library of optserve: headers and examples
What programs in C++20 need to be compiled with the client library of
optserve, with files for CMake and pkg-config, and small programs to start
from.")
include(CPack)
