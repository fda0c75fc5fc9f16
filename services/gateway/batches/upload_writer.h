// Writes an uploaded file on the thread of the store, so that a slow folder stops no stream. What waits to be written
// is bounded: is_full() says when nothing more should come.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "gateway/batches/store_thread.h"

namespace optserve::gateway {

class UploadWriter : public std::enable_shared_from_this<UploadWriter> {
 public:
  static constexpr size_t kWaitingMax = 256 << 10;

  // `on_written` is called on the thread after each piece.
  UploadWriter(const std::shared_ptr<StoreThread>& thread, std::string path, std::function<void()> on_written)
      : thread_(thread), path_(std::move(path)), on_written_(std::move(on_written)) {}
  // Removes the file unless it was kept.
  ~UploadWriter();
  UploadWriter(const UploadWriter&) = delete;
  UploadWriter& operator=(const UploadWriter&) = delete;

  // On the thread of the server.
  void write(std::string_view bytes);
  bool is_full() const { return waiting_ >= kWaitingMax; }
  // Something could not be written: the log says why.
  bool has_failed() const { return has_failed_; }
  // Removes the file after what waits, unless it was kept.
  void leave();

  // On the thread of the store, where all that was written before is in the file.
  void keep() { is_kept_ = true; }

 private:
  void put(std::string_view bytes);

  const std::weak_ptr<StoreThread> thread_;  // whose work owns this object, and which must not end on itself
  const std::string path_;
  const std::function<void()> on_written_;
  std::atomic<size_t> waiting_{0};
  std::atomic<bool> has_failed_{false};
  int fd_ = -1;  // this and the next: of the thread of the store
  bool is_kept_ = false;
};

}  // namespace optserve::gateway
