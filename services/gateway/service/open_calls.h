// Requests that wait for jobs. Belongs to the HTTP server's thread.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "http_api/openai/api_error.h"

namespace optserve::gateway {

class OpenCall {
 public:
  virtual ~OpenCall() = default;
  virtual void on_tick(Instant now) = 0;                    // about once a second
  virtual void give_up(const http_api::ApiError& why) = 0;  // answers, cancels its jobs and ends
};

class OpenCalls {
 public:
  void add(std::shared_ptr<OpenCall> call) {
    OpenCall* key = call.get();
    calls_.emplace(key, std::move(call));
  }
  void remove(OpenCall& call) { calls_.erase(&call); }
  size_t size() const { return calls_.size(); }

  void tick(Instant now) {
    for (const auto& call : present()) call->on_tick(now);
  }
  void give_up_all(const http_api::ApiError& why) {
    for (const auto& call : present()) call->give_up(why);
  }

 private:
  // A copy: a call may remove itself.
  std::vector<std::shared_ptr<OpenCall>> present() const {
    std::vector<std::shared_ptr<OpenCall>> all;
    for (const auto& [key, call] : calls_) all.push_back(call);
    return all;
  }

  std::unordered_map<OpenCall*, std::shared_ptr<OpenCall>> calls_;
};

}  // namespace optserve::gateway
