// System calls by purpose. They are names, since each architecture has its own numbers.
#pragma once

#include <array>
#include <string_view>

namespace optserve::confinement {

inline constexpr auto kComputingCalls = std::to_array<std::string_view>(
    {"brk", "madvise", "mlock", "mlock2", "mremap", "msync", "munlock", "munmap", "mincore", "getrandom", "getcpu",
     // threads
     "exit", "exit_group", "futex", "futex_waitv", "get_robust_list", "set_robust_list", "set_tid_address",
     "membarrier", "rseq", "gettid", "arch_prctl", "sched_get_priority_max", "sched_get_priority_min",
     "sched_getaffinity", "sched_getparam", "sched_getscheduler", "sched_setaffinity", "sched_setparam",
     "sched_setscheduler", "sched_yield", "getpriority", "get_mempolicy",
     // time
     "clock_getres", "clock_gettime", "clock_nanosleep", "gettimeofday", "nanosleep", "time", "times", "timerfd_create",
     "timerfd_gettime", "timerfd_settime", "restart_syscall",
     // signals to itself
     "pause", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait",
     "sigaltstack", "signalfd4",
     // who and where it is
     "capget", "getegid", "geteuid", "getgid", "getgroups", "getpgid", "getpgrp", "getpid", "getppid", "getresgid",
     "getresuid", "getrlimit", "getrusage", "getsid", "getuid", "sysinfo", "uname"});

// ioctl() is not here, since it depends on what is asked.
inline constexpr auto kDescriptorCalls = std::to_array<std::string_view>(
    {"close", "close_range", "fallocate", "fdatasync", "fsync", "ftruncate", "sync_file_range", "dup", "dup2", "dup3",
     "fcntl", "lseek", "memfd_create", "pipe", "pipe2", "pread64", "preadv", "preadv2", "pwrite64", "pwritev",
     "pwritev2", "read", "readv", "write", "writev",
     // events
     "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2",
     "poll", "ppoll", "pselect6", "select"});

// openat() is not here, since it depends on its flags.
inline constexpr auto kReadingCalls = std::to_array<std::string_view>(
    {"access", "faccessat", "faccessat2", "fadvise64", "fgetxattr", "flock", "fstat", "fstatfs", "getcwd", "getdents64",
     "lstat", "newfstatat", "readahead", "readlink", "readlinkat", "stat", "statfs", "statx",
     // changes of files
     "inotify_add_watch", "inotify_init1", "inotify_rm_watch"});

inline constexpr auto kWritingCalls = std::to_array<std::string_view>(
    {"chdir",    "chmod",     "copy_file_range", "creat",    "fchmod",   "fchmodat",  "fchown",
     "link",     "linkat",    "mkdir",           "mkdirat",  "open",     "openat",    "rename",
     "renameat", "renameat2", "rmdir",           "sendfile", "symlink",  "symlinkat", "syncfs",
     "truncate", "umask",     "unlink",          "unlinkat", "utimensat"});

// socket() is not here, since it depends on the family.
inline constexpr auto kSocketCalls = std::to_array<std::string_view>(
    {"accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recvfrom",
     "recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown", "socketpair"});

// Calls that start another program. They end a service that must not start any.
inline constexpr auto kProgramCalls = std::to_array<std::string_view>({"execve", "execveat", "fork", "vfork"});

// What a program does with programs that it has started, and what these do before they lock themselves.
inline constexpr auto kChildCalls =
    std::to_array<std::string_view>({"clone", "kill", "pidfd_open", "pidfd_send_signal", "prctl", "prlimit64",
                                     "seccomp", "setpgid", "setrlimit", "setsid", "tgkill", "wait4", "waitid"});

// Calls that administer the machine, look into other processes, or have repeatedly been a way to attack the kernel.
inline constexpr auto kHostileCalls = std::to_array<std::string_view>({"acct",
                                                                       "add_key",
                                                                       "adjtimex",
                                                                       "bpf",
                                                                       "chroot",
                                                                       "clock_adjtime",
                                                                       "clock_settime",
                                                                       "delete_module",
                                                                       "finit_module",
                                                                       "fsconfig",
                                                                       "fsmount",
                                                                       "fsopen",
                                                                       "init_module",
                                                                       "io_uring_enter",
                                                                       "io_uring_register",
                                                                       "io_uring_setup",
                                                                       "ioperm",
                                                                       "iopl",
                                                                       "kcmp",
                                                                       "kexec_file_load",
                                                                       "kexec_load",
                                                                       "keyctl",
                                                                       "lookup_dcookie",
                                                                       "mknod",
                                                                       "mknodat",
                                                                       "modify_ldt",
                                                                       "mount",
                                                                       "mount_setattr",
                                                                       "move_mount",
                                                                       "name_to_handle_at",
                                                                       "open_by_handle_at",
                                                                       "open_tree",
                                                                       "perf_event_open",
                                                                       "personality",
                                                                       "pidfd_getfd",
                                                                       "pivot_root",
                                                                       "process_madvise",
                                                                       "process_vm_readv",
                                                                       "process_vm_writev",
                                                                       "ptrace",
                                                                       "quotactl",
                                                                       "reboot",
                                                                       "request_key",
                                                                       "setdomainname",
                                                                       "setfsgid",
                                                                       "setfsuid",
                                                                       "setgid",
                                                                       "setgroups",
                                                                       "sethostname",
                                                                       "setns",
                                                                       "setregid",
                                                                       "setresgid",
                                                                       "setresuid",
                                                                       "setreuid",
                                                                       "settimeofday",
                                                                       "setuid",
                                                                       "swapoff",
                                                                       "swapon",
                                                                       "syslog",
                                                                       "umount",
                                                                       "umount2",
                                                                       "unshare",
                                                                       "userfaultfd",
                                                                       "vhangup"});

}  // namespace optserve::confinement
