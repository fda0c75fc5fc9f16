// SIGTERM and SIGINT as a flag that loops poll and a descriptor that they can wait on.
#pragma once

namespace optserve {

// Installs the handlers once; later calls do nothing. Call before threads start.
void install_shutdown_signals();
// True once SIGTERM or SIGINT came.
bool shutdown_requested();
// True once a second signal came: the operator is in a hurry, skip the drain.
bool shutdown_forced();
// Becomes readable when the first signal arrives; never read from it. -1 before install_shutdown_signals().
int shutdown_fd();

}  // namespace optserve
