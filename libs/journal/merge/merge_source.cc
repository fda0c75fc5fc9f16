#include <filesystem>

#include "journal/journal_files.h"
#include "journal/merge/journal_merge.h"

namespace optserve::journal {

MergeSource merge_source(const std::string& from) {
  namespace fs = std::filesystem;
  if (is_postgres_url(from)) return {from};
  if (fs::is_regular_file(from) && fs::exists(from + ".lock")) return {from};
  std::string original = from;
  while (original.size() > 1 && original.back() == '/') original.pop_back();
  const bool is_replica = holds_replica(original);
  if (!is_replica && fs::is_directory(original)) {
    const std::string folder = original;
    original = latest_backup(folder);
    if (original.empty()) throw Error(folder + " holds neither a backup nor a replica");
  }
  const std::string copy = original + ".merged";
  if (fs::exists(copy)) return {copy, true};
  if (is_replica) {
    restore_replica(original, copy, false);
  } else {
    restore_journal(original, copy, false);
  }
  return {copy, true};
}

}  // namespace optserve::journal
