// Writes why the process ends, in one line, into a file: Kubernetes shows what is in the terminationMessagePath of a
// container that has ended.
#pragma once

#include <string>
#include <string_view>

namespace optserve {

// Opens the file and keeps it open. `path` empty: /dev/termination-log, if there is such a file.
void set_termination_log(const std::string& path);
// Replaces what the file holds. Line ends become spaces, and at most 4 KiB are written. It is no error if the file
// cannot be written, since the message is in the log as well.
void write_termination_message(std::string_view message);

}  // namespace optserve
