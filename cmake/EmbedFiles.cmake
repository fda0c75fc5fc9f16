# Run as a script: writes a C++ source with the bytes of the files of a web page.
#   cmake -DFOLDER=services/gateway/ui -DOUTPUT=page_files.cc -P cmake/EmbedFiles.cmake
file(GLOB files RELATIVE ${FOLDER} ${FOLDER}/*.html ${FOLDER}/*.css ${FOLDER}/*.js ${FOLDER}/*.svg)
list(SORT files)
set(arrays "")
set(rows "")
set(number 0)
foreach(name IN LISTS files)
  file(READ ${FOLDER}/${name} bytes HEX)
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
  string(APPEND arrays "constexpr unsigned char kFile${number}[] = {${bytes}};\n")
  string(APPEND rows "    {\"${name}\", text_of(kFile${number})},\n")
  math(EXPR number "${number} + 1")
endforeach()
file(WRITE ${OUTPUT}.new "// Made by cmake/EmbedFiles.cmake.
#include \"gateway/service/page_files.h\"

#include <array>

namespace optserve::gateway {
namespace {

${arrays}
template <size_t kSize>
std::string_view text_of(const unsigned char (&bytes)[kSize]) {
  return {reinterpret_cast<const char*>(bytes), kSize};
}

}  // namespace

std::span<const PageFile> page_files() {
  static const std::array<PageFile, ${number}> kFiles{{
${rows}  }};
  return kFiles;
}

}  // namespace optserve::gateway
")
file(RENAME ${OUTPUT}.new ${OUTPUT})
