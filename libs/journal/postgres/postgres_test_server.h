// For tests: a PostgreSQL server for this process alone, in a temporary folder and with its socket there. It ends with
// its owner, however that ends.
#pragma once

#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "journal/journal.h"
#include "journal/postgres/connection.h"

namespace optserve::journal::testing {

class TestServer {
 public:
  TestServer() : TestServer("") {}
  // A replica of that server as it is now, which does not run yet.
  explicit TestServer(const TestServer& of) : TestServer(of.socket_folder()) {}
  ~TestServer() {
    stop(SIGQUIT);
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  TestServer& operator=(const TestServer&) = delete;

  void start() {
    pid_ = run("postgres",
               {"-D", data(), "-k", folder_, "-p", "5432", "-c", "listen_addresses=", "-c", "max_connections=40", "-c",
                "shared_buffers=32MB", "-c", "wal_level=replica", "-c", "hot_standby=on", "-c", "full_page_writes=on"});
    for (int i = 0; i < 1'200; ++i) {
      try {
        Connection(url() + "&target_session_attrs=any", "public", seconds(2));
        return;
      } catch (const PostgresError&) {
        std::this_thread::sleep_for(milliseconds(50));
      }
    }
    throw Error("the test's PostgreSQL did not start; see " + folder_ + "/log");
  }
  void stop(int signal) {
    if (pid_ <= 0) return;
    // The sessions of a killed server would live on for a while, and keep the next one from using its shared memory.
    const std::vector<pid_t> sessions = signal == SIGKILL ? children() : std::vector<pid_t>();
    ::kill(pid_, signal);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
    for (const pid_t session : sessions) ::kill(session, SIGKILL);
    for (const pid_t session : sessions) {
      while (is_alive(session)) std::this_thread::sleep_for(milliseconds(2));
    }
  }
  void promote() {
    Connection connection(url() + "&target_session_attrs=any", "public", seconds(5));
    connection.query("SELECT pg_promote()");
  }

  std::string url() const { return "postgresql:///postgres?user=optserve&host=" + folder_; }
  const std::string& socket_folder() const { return folder_; }
  std::string data() const { return folder_ + "/data"; }
  std::string socket() const { return folder_ + "/.s.PGSQL.5432"; }

 private:
  explicit TestServer(const std::string& primary) {
    // The path is short, since the path of a socket has a limit, and not in a folder that only the test's user may
    // enter.
    std::string name = "/tmp/optserve-pg-XXXXXX";
    check(::mkdtemp(name.data()) != nullptr, "mkdtemp");
    folder_ = name;
    if (const passwd* user = ::geteuid() == 0 ? ::getpwnam("postgres") : nullptr) {
      uid_ = user->pw_uid;
      gid_ = user->pw_gid;
      check(::chown(folder_.c_str(), uid_, gid_) == 0, "chown");
    }
    ::chmod(folder_.c_str(), 0755);
    if (primary.empty()) {
      finish(run("initdb", {"-D", data(), "-A", "trust", "-U", "optserve", "-E", "UTF8", "--locale=C", "--no-sync",
                            "--no-instructions", "--data-checksums"}));
      start();
    } else {
      finish(run("pg_basebackup", {"-D", data(), "-h", primary, "-p", "5432", "-U", "optserve", "-R", "-X", "stream",
                                   "--no-sync", "-c", "fast"}));
    }
  }

  static std::string programs() {
    std::string found;
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator("/usr/lib/postgresql", ignored)) {
      if (std::filesystem::exists(entry.path() / "bin/postgres")) found = entry.path() / "bin";
    }
    if (found.empty()) throw Error("no PostgreSQL server is installed: deploy/install-deps --test brings it");
    return found;
  }

  std::vector<pid_t> children() const {
    const std::string name = std::to_string(pid_);
    std::ifstream file("/proc/" + name + "/task/" + name + "/children");
    return {std::istream_iterator<pid_t>(file), std::istream_iterator<pid_t>()};
  }
  static bool is_alive(pid_t process) {
    std::ifstream file("/proc/" + std::to_string(process) + "/stat");
    std::string number, name, state;
    return file >> number >> name >> state && state != "Z";
  }

  pid_t run(const std::string& program, std::vector<std::string> arguments) {
    const std::string path = programs() + "/" + program;
    arguments.insert(arguments.begin(), path);
    std::vector<char*> pointers;
    for (std::string& argument : arguments) pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    const std::string log = folder_ + "/log";
    const pid_t child = ::fork();
    if (child != 0) return child;
    const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666);
    ::dup2(out, 1);
    ::dup2(out, 2);
    if (uid_ != 0 && (::setgid(gid_) != 0 || ::setuid(uid_) != 0)) ::_exit(126);
    ::prctl(PR_SET_PDEATHSIG, SIGQUIT);  // after setuid, which resets it
    if (::chdir(folder_.c_str()) != 0) ::_exit(126);
    ::execv(path.c_str(), pointers.data());
    ::_exit(127);
  }
  void finish(pid_t child) {
    int status = 0;
    ::waitpid(child, &status, 0);
    if (status != 0) throw Error("a program of PostgreSQL failed; see " + folder_ + "/log");
  }

  std::string folder_;
  uid_t uid_ = 0;
  gid_t gid_ = 0;
  pid_t pid_ = 0;
};

// One for all tests of a process.
inline TestServer& shared_server() {
  static TestServer server;
  return server;
}

// A new queue in a server.
inline std::string fresh_queue(const TestServer& server) {
  static int number = 0;
  const std::string queue = "queue_" + std::to_string(++number);
  init_queue(server.url(), queue, {});
  return queue;
}

}  // namespace optserve::journal::testing
