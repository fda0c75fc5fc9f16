// The duties of process 1 of a container, for which signals have no default action, and which alone can reap orphaned
// processes.
#pragma once

namespace optserve {

// In a process that is not the first, does nothing. Otherwise the program goes on in a child, and this process hands
// every signal on to it, reaps whatever ends, and ends as the child does: with its status, or 128 and the signal. Call
// before threads start.
void leave_first_process();

}  // namespace optserve
