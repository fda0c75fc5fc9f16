// What the exit statuses of `optserve` mean.
#pragma once

namespace optserve::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitRefused = 1;      // the request was refused, the job did not succeed, the file is damaged
inline constexpr int kExitUsage = 2;        // the command line cannot be understood
inline constexpr int kExitUnreachable = 3;  // the scheduler does not answer

}  // namespace optserve::cli
