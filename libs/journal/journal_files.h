// The files of a journal at `path`, beside the database itself:
//   path-wal       SQLite's write-ahead log
//   path.lock      held by the process that owns the journal
//   path.commits   how many commits are durable (commit_record.h)
//   path.reserve   room that is given up when the disk is full (disk_reserve.h)
//   path.v1.bak    the journal before its schema was raised
#pragma once

#include <cstdint>
#include <string>

#include "base/file_lock.h"

namespace optserve::journal {

// Locks the side file `path` before SQLite opens the database, so that the error about a second process is clear.
// Throws Error if another process holds it; the message has its process id.
FileLock lock_journal(const std::string& path);

// Throws Error if `path` exists and is anything but a regular file that may be a journal; creates it as 0600.
void prepare_journal_file(const std::string& path);

int64_t file_bytes(const std::string& path);   // 0 if there is none
void sync_folder_of(const std::string& path);  // a created, renamed or removed name is on disk afterwards
void sync_file(const std::string& path);
void copy_file(const std::string& from, const std::string& to);  // as 0600, synced, replaces `to`
// Renames `partial` to `path` as a whole and synced, or not at all.
void publish_file(const std::string& partial, const std::string& path);
void remove_file(const std::string& path);  // fine if there is none

}  // namespace optserve::journal
