// Runs a filter of system calls as the kernel does, for tests, and also filters of other architectures than this
// machine's. The instructions are those of classic BPF that libseccomp emits (linux/filter.h, seccomp(2)).
#pragma once

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include <array>
#include <cstring>
#include <span>

#include "base/check.h"

namespace optserve::confinement {

// The filter's result for this call: SECCOMP_RET_*.
inline uint32_t run_filter(std::span<const uint64_t> program, const seccomp_data& call) {
  uint32_t accumulator = 0;
  std::array<uint32_t, BPF_MEMWORDS> memory{};
  uint32_t index = 0;
  for (size_t at = 0; at < program.size(); ++at) {
    sock_filter step{};
    std::memcpy(&step, &program[at], sizeof step);
    const auto jump = [&](bool holds) { at += holds ? step.jt : step.jf; };
    switch (step.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        check(step.k + 4 <= sizeof call, "the filter reads beyond the call");
        std::memcpy(&accumulator, reinterpret_cast<const char*>(&call) + step.k, 4);
        break;
      case BPF_LD | BPF_MEM:
        accumulator = memory.at(step.k);
        break;
      case BPF_ST:
        memory.at(step.k) = accumulator;
        break;
      case BPF_ALU | BPF_AND | BPF_K:
        accumulator &= step.k;
        break;
      case BPF_JMP | BPF_JA:
        at += step.k;
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
        jump(accumulator == step.k);
        break;
      case BPF_JMP | BPF_JGT | BPF_K:
        jump(accumulator > step.k);
        break;
      case BPF_JMP | BPF_JGE | BPF_K:
        jump(accumulator >= step.k);
        break;
      case BPF_JMP | BPF_JSET | BPF_K:
        jump((accumulator & step.k) != 0);
        break;
      case BPF_MISC | BPF_TAX:
        index = accumulator;
        break;
      case BPF_MISC | BPF_TXA:
        accumulator = index;
        break;
      case BPF_RET | BPF_K:
        return step.k;
      default:
        check(false, "the filter has an instruction that this machine does not know");
    }
  }
  check(false, "the filter has no end");
  return 0;
}

}  // namespace optserve::confinement
