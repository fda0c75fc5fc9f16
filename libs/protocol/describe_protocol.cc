// Writes docs/protocol.json and the parts of docs/protocol.md that are made from the code.
#include <cstdio>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "protocol/protocol_description.h"

namespace {

std::string read(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

bool write(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  if (file.flush()) return true;
  std::fprintf(stderr, "describe_protocol: %s cannot be written\n", path.c_str());
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: describe_protocol DOCS_FOLDER\n");
    return 2;
  }
  const std::string folder = argv[1], page = folder + "/protocol.md";
  try {
    const std::string text = optserve::protocol::with_made_parts(read(page));
    return write(page, text) && write(folder + "/protocol.json", optserve::protocol::describe_protocol()) ? 0 : 1;
  } catch (const optserve::Error& error) {
    std::fprintf(stderr, "describe_protocol: %s\n", error.what());
    return 1;
  }
}
