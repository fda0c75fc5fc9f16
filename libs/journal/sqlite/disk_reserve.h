// A file that only takes up space. It is deleted when the disk is full, so that existing jobs can end.
#pragma once

#include <cstdint>
#include <string>

namespace optserve::journal {

class DiskReserve {
 public:
  DiskReserve(const std::string& journal_path, int64_t bytes) : path_(journal_path + ".reserve"), bytes_(bytes) {}

  // Takes up the space; false if the disk does not have it.
  bool fill();
  void release();
  // Whether the disk has free space for twice the reserve, so that taking it does not fill the disk again.
  bool has_room_for_it() const;

 private:
  std::string path_;
  int64_t bytes_;  // 0: no reserve is kept
};

}  // namespace optserve::journal
