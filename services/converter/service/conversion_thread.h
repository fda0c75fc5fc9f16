// Runs conversions on a thread of its own.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

#include "converter/service/conversion_port.h"

namespace optserve::converter {

class ConversionThread final : public ConversionPort {
 public:
  // Called from time to time with bytes read and bytes in all; false: give up.
  using Progress = std::function<bool(int64_t bytes_done, int64_t bytes_total)>;
  // Converts as `spec` says and returns what was written. May throw Error.
  using Convert = std::function<Result<std::string>(const protocol::ConvertSpec& spec, const Progress& progress)>;

  explicit ConversionThread(Convert convert) : convert_(std::move(convert)) {}
  ~ConversionThread() override;  // cancels and waits
  ConversionThread(const ConversionThread&) = delete;
  ConversionThread& operator=(const ConversionThread&) = delete;

  void start(const protocol::ConvertSpec& spec) override;
  void cancel() override { cancelled_ = true; }
  bool is_idle() const override { return !thread_.joinable(); }
  ConversionState state() const override { return {bytes_done_, bytes_total_}; }
  std::optional<ConversionEnd> take_end() override;

 private:
  void run(const protocol::ConvertSpec& spec);

  Convert convert_;
  std::thread thread_;
  std::atomic<bool> cancelled_{false};
  std::atomic<int64_t> bytes_done_{0};
  std::atomic<int64_t> bytes_total_{0};
  std::mutex mutex_;
  std::optional<ConversionEnd> end_;  // guarded by mutex_
};

}  // namespace optserve::converter
