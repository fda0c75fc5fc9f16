// Which paths a conversion job may name. Jobs come over the network, and a converter can read and write much more than
// they should reach.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "protocol/message_types.h"

namespace optserve::converter {

class PathGuard {
 public:
  // Folders below which sources and destinations must lie; none: everything is refused. Throws Error naming a root that
  // is no folder.
  explicit PathGuard(const std::vector<std::string>& roots);

  // The spec with both paths absolute and free of symbolic links as far as they exist; refused if one of them, or
  // something in the source's folder, leads outside the roots. Relative paths count from the first root.
  Result<protocol::ConvertSpec> resolve(const protocol::ConvertSpec& spec) const;

 private:
  bool is_inside(const std::string& canonical) const;
  Refusal outside(const char* field, const std::string& path) const;
  Result<std::string> resolve_source(const std::string& source) const;
  Result<std::string> resolve_destination(const std::string& destination) const;

  std::vector<std::string> roots_;  // canonical
};

}  // namespace optserve::converter
