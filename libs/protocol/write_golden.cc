// Writes the golden files that a folder lacks, one for each kind of message (tests/data/protocol_v1/README.md).
#include <cstdio>
#include <fstream>

#include "protocol/sample_messages.h"

int main(int argc, char** argv) {
  using namespace optserve::protocol;
  if (argc != 2) {
    std::fprintf(stderr, "usage: write_golden FOLDER\n");
    return 2;
  }
  for (size_t kind = 0; kind < kMessageKinds; ++kind) {
    const std::string path = std::string(argv[1]) + "/" + std::string(message_name(kind)) + ".hex";
    if (std::ifstream(path)) continue;  // existing files are never changed
    std::ofstream file(path);
    file << golden_text(kind);
    if (!file.flush()) {
      std::fprintf(stderr, "write_golden: %s cannot be written\n", path.c_str());
      return 1;
    }
    std::printf("%s\n", path.c_str());
  }
  return 0;
}
