// The exit statuses of all programs.
#pragma once

namespace optserve {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;          // refused, did not succeed, damaged, or the environment failed
inline constexpr int kExitUsage = 2;           // the command line cannot be understood
inline constexpr int kExitUnreachable = 3;     // no scheduler answers
inline constexpr int kExitConfiguration = 78;  // a value of a file or variable, or a configuration that cannot work
inline constexpr int kExitInterrupted = 130;   // ended by Ctrl-C or SIGTERM before the work was done

}  // namespace optserve
