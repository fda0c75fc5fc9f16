// `optserve-gateway new-key`: makes a key, and prints it once together with the line for the file.
#pragma once

#include <iosfwd>

namespace optserve::gateway {

// The arguments begin with the word new-key. The key goes to `err` and the line to `out`, so that `>> keys.jsonl`
// stores the line alone. Returns the exit status.
int run_new_key(int argc, const char* const* argv, std::ostream& out, std::ostream& err);

}  // namespace optserve::gateway
