// SIGTERM and SIGINT, as a flag that loops can poll and as a descriptor that they can wait for.
#pragma once

namespace optserve {

// Installs the handlers once; later calls do nothing. Call before threads start.
void install_shutdown_signals();
// The same for a process that works in the background: SIGHUP, SIGUSR1 and SIGUSR2, which would end it without a drain,
// are ignored as well.
void install_service_signals();
// True once SIGTERM or SIGINT has come.
bool shutdown_requested();
// True once a second signal has come: the operator does not want to wait for the drain.
bool shutdown_forced();
// For a process that its parent stops. A signal to all processes of a terminal or a service reaches it directly, and
// then again when the parent passes it on. That is one request and not two, so shutdown_forced() stays false.
void count_signals_as_one();
// For a program whose work can be killed at any moment: the second signal ends it at once with this status.
void end_at_second_signal(int exit_status);
// Forgets each SIGINT that has come, for a program in which Ctrl-C ends a part of the work and not the program. A
// SIGTERM is not forgotten.
void forget_interrupts();
// Becomes readable when the first signal arrives; only forget_interrupts() reads from it. -1 before
// install_shutdown_signals().
int shutdown_fd();

}  // namespace optserve
