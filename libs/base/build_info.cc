#include "base/build_info.h"

#include <elf.h>
#include <link.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstring>
#include <span>

namespace optserve {
namespace {

constexpr size_t kNoteAlignment = 4;

size_t aligned(size_t bytes) { return (bytes + kNoteAlignment - 1) / kNoteAlignment * kNoteAlignment; }

// The description of the note NT_GNU_BUILD_ID among notes that follow each other, or nothing.
std::span<const unsigned char> find_build_id(std::span<const unsigned char> notes) {
  while (notes.size() >= sizeof(ElfW(Nhdr))) {
    ElfW(Nhdr) header;
    std::memcpy(&header, notes.data(), sizeof header);
    const size_t name = sizeof header, description = name + aligned(header.n_namesz);
    const size_t end = description + aligned(header.n_descsz);
    if (end > notes.size()) break;
    if (header.n_type == NT_GNU_BUILD_ID) return notes.subspan(description, header.n_descsz);
    notes = notes.subspan(end);
  }
  return {};
}

// Called for the program first, which ends the walk.
int read_build_id(dl_phdr_info* program, size_t, void* result) {
  for (const ElfW(Phdr) & part : std::span(program->dlpi_phdr, program->dlpi_phnum)) {
    if (part.p_type != PT_NOTE) continue;
    const auto* begin = reinterpret_cast<const unsigned char*>(program->dlpi_addr + part.p_vaddr);
    for (const unsigned char byte : find_build_id({begin, part.p_memsz})) {
      constexpr const char* kDigits = "0123456789abcdef";
      static_cast<std::string*>(result)->append({kDigits[byte >> 4], kDigits[byte & 15]});
    }
  }
  return 1;
}

}  // namespace

std::string_view build_version() { return OPTSERVE_VERSION; }

std::string build_id() {
  std::string id;
  dl_iterate_phdr(read_build_id, &id);
  return id.empty() ? std::string(build_version()) : id;
}

std::string host_and_pid() {
  utsname names{};
  const bool known = uname(&names) == 0;
  return (known ? std::string(names.nodename) : "host") + ":" + std::to_string(getpid());
}

}  // namespace optserve
