// Futures of the calls of AsyncClient, for programs that start several and wait for them later:
//
//   auto jobs = future_of<Answers<JobList>>([&](auto done) { client.async().list({}, 100, {}, done); });
//   auto status = future_of<Answers<SystemStatus>>([&](auto done) { client.async().status(done); });
#pragma once

#include <future>
#include <memory>
#include <utility>

namespace optserve::client {

// Calls `start(done)` and returns a future of the value that `done` is called with. It must be called exactly once.
template <class T, class Start>
std::future<T> future_of(Start start) {
  const auto promise = std::make_shared<std::promise<T>>();
  auto future = promise->get_future();
  start([promise](T answer) { promise->set_value(std::move(answer)); });
  return future;
}

}  // namespace optserve::client
