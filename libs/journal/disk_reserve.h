// A file of room that is given up when the disk is full, so that what is known can still be brought to its end.
#pragma once

#include <cstdint>
#include <string>

namespace optserve::journal {

class DiskReserve {
 public:
  DiskReserve(const std::string& journal_path, int64_t bytes) : path_(journal_path + ".reserve"), bytes_(bytes) {}

  // Takes the room if the disk has it; false: it does not.
  bool fill();
  void release();
  // Whether the disk has twice the reserve, so that taking it does not fill the disk again.
  bool has_room_for_it() const;

 private:
  std::string path_;
  int64_t bytes_;  // 0: no reserve is kept
};

}  // namespace optserve::journal
