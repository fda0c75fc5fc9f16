#include "cli/stack/stack_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <deque>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

namespace optserve::cli {
namespace {

using nlohmann::json;
constexpr int kStateFormat = 1;

json to_json(const StackState& state) {
  json processes = json::array();
  for (const StackProcess& process : state.processes) {
    processes.push_back({{"name", process.name},
                         {"pid", process.pid},
                         {"http_port", process.http_port},
                         {"restarts", process.restarts}});
  }
  return {{"format", kStateFormat},
          {"state", state.state},
          {"model", state.model},
          {"client_endpoint", state.client_endpoint},
          {"service_endpoint", state.service_endpoint},
          {"api_url", state.api_url},
          {"client_secret_key", state.client_secret_key},
          {"server_key", state.server_key},
          {"drain_seconds", state.drain_seconds},
          {"processes", std::move(processes)}};
}

StackState from_json(const json& root) {
  StackState state;
  root.at("state").get_to(state.state);
  root.at("model").get_to(state.model);
  root.at("client_endpoint").get_to(state.client_endpoint);
  root.at("service_endpoint").get_to(state.service_endpoint);
  state.api_url = root.value("api_url", "");
  state.client_secret_key = root.value("client_secret_key", "");
  state.server_key = root.value("server_key", "");
  root.at("drain_seconds").get_to(state.drain_seconds);
  for (const json& entry : root.at("processes")) {
    StackProcess process;
    entry.at("name").get_to(process.name);
    entry.at("pid").get_to(process.pid);
    entry.at("http_port").get_to(process.http_port);
    entry.at("restarts").get_to(process.restarts);
    state.processes.push_back(std::move(process));
  }
  return state;
}

std::optional<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

void StackFolder::create() const {
  std::error_code code;
  std::filesystem::create_directories(path_, code);
  if (code || access(path_.c_str(), W_OK | X_OK) != 0) {
    throw Error("cannot use the folder " + path_ + ": " + (code ? code.message() : errno_error("access").what()));
  }
}

std::string StackFolder::log_tail(const std::string& process, int lines) const {
  std::ifstream file(log_path(process));
  std::deque<std::string> last;
  for (std::string line; std::getline(file, line);) {
    last.push_back(std::move(line));
    if (static_cast<int>(last.size()) > lines) last.pop_front();
  }
  std::string text;
  for (const std::string& line : last) text += line + "\n";
  return text;
}

std::string StackFolder::first_cause(const std::string& process) const {
  constexpr std::string_view kError = " E ", kCause = " cause=";
  std::ifstream file(log_path(process));
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('{')) {  // --log-format json
      const json record = json::parse(line, nullptr, false);
      if (!record.is_object() || record.value("level", json()) != "error") continue;
      if (const json cause = record.value("cause", json()); cause.is_string()) return cause.get<std::string>();
      continue;
    }
    const size_t at = line.find(kCause);
    if (at == std::string::npos || line.find(kError) > at) continue;
    const std::string cause = line.substr(at + kCause.size());
    if (!cause.starts_with('"')) return cause;
    std::string plain;  // a text with spaces is quoted, with backslashes before the quotes in it
    for (size_t i = 1; i < cause.size() && cause[i] != '"'; ++i) {
      if (cause[i] == '\\' && i + 1 < cause.size()) ++i;
      plain += cause[i];
    }
    return plain;
  }
  return "";
}

void StackFolder::rotate_logs() const {
  for (const auto& entry : std::filesystem::directory_iterator(path_)) {
    if (entry.path().extension() != ".log") continue;
    std::error_code code;  // an old log in the way is no reason not to start
    std::filesystem::rename(entry.path(), entry.path().string() + ".1", code);
  }
}

void StackFolder::replace_file(const std::string& name, const std::string& text) const {
  const std::string path = path_ + "/" + name;
  const std::string staged = path + ".new";
  std::ofstream file(staged, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (!file || std::rename(staged.c_str(), path.c_str()) != 0) throw errno_error("write " + path);
}

void StackFolder::write_state(const StackState& state) const {
  replace_file("stack.json", to_json(state).dump(2) + "\n");
}

Result<StackState> StackFolder::read_state() const {
  const std::string path = path_ + "/stack.json";
  const std::optional<std::string> text = read_file(path);
  if (!text) return refuse(ErrorCode::kNotFound, "there is no " + path + ": no stack was started in this folder");
  try {
    const json root = json::parse(*text);
    if (root.at("format") != kStateFormat) {
      return refuse(ErrorCode::kUnsupportedFormat,
                    path + ": format is " + root.at("format").dump() + ", expected " + std::to_string(kStateFormat));
    }
    return from_json(root);
  } catch (const json::exception& error) {
    return refuse(ErrorCode::kDataCorrupt, path + ": " + error.what());
  }
}

void StackFolder::write_pid(const ProcessIdentity& identity) const { replace_file("supervisor.pid", identity.text()); }

std::optional<ProcessIdentity> StackFolder::read_pid() const {
  const std::optional<std::string> text = read_file(path_ + "/supervisor.pid");
  return text ? ProcessIdentity::parse(*text) : std::nullopt;
}

void StackFolder::remove_pid() const { unlink((path_ + "/supervisor.pid").c_str()); }

std::optional<StackLock> StackLock::try_take(const StackFolder& folder) {
  const std::string path = folder.path() + "/lock";
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) throw errno_error("open " + path);
  StackLock lock(fd);
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return lock;
  if (errno != EWOULDBLOCK) throw errno_error("lock " + path);
  return std::nullopt;
}

StackLock::StackLock(StackLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
StackLock::~StackLock() {
  if (fd_ >= 0) close(fd_);
}

}  // namespace optserve::cli
