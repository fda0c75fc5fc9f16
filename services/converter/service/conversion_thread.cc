#include "converter/service/conversion_thread.h"

#include <utility>

#include "base/check.h"

namespace optserve::converter {

ConversionThread::~ConversionThread() {
  cancelled_ = true;
  if (thread_.joinable()) thread_.join();
}

void ConversionThread::start(const protocol::ConvertSpec& spec) {
  check(is_idle(), "one conversion at a time");
  cancelled_ = false;
  bytes_done_ = 0;
  bytes_total_ = 0;
  thread_ = std::thread([this, spec] { run(spec); });
}

void ConversionThread::run(const protocol::ConvertSpec& spec) {
  ConversionEnd end;
  try {
    Result<std::string> summary = convert_(spec, [this](int64_t done, int64_t total) {
      bytes_done_ = done;
      bytes_total_ = total;
      return !cancelled_;
    });
    if (summary.ok()) {
      end.summary = std::move(summary).value();
    } else {
      end.refused = summary.refusal();
    }
  } catch (const std::exception& error) {  // the environment: a full disk, no memory
    end.refused = refuse(ErrorCode::kUnavailable, error.what());
    end.transient = true;
  }
  const std::lock_guard lock(mutex_);
  end_ = std::move(end);
}

std::optional<ConversionEnd> ConversionThread::take_end() {
  std::optional<ConversionEnd> end;
  {
    const std::lock_guard lock(mutex_);
    end = std::exchange(end_, std::nullopt);
  }
  if (end) thread_.join();
  return end;
}

}  // namespace optserve::converter
