// The files of the page (services/gateway/ui), which the build puts into the program.
#pragma once

#include <span>
#include <string_view>

namespace optserve::gateway {

struct PageFile {
  std::string_view name;  // "index.html"
  std::string_view text;
};

std::span<const PageFile> page_files();

}  // namespace optserve::gateway
