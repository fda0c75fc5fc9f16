#include "gateway/batches/upload_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "base/error.h"
#include "base/log.h"

namespace optserve::gateway {

UploadWriter::~UploadWriter() {
  if (fd_ < 0) return;
  close(fd_);
  if (!is_kept_) std::remove(path_.c_str());
}

void UploadWriter::write(std::string_view bytes) {
  const std::shared_ptr<StoreThread> thread = thread_.lock();
  if (thread == nullptr) {
    has_failed_ = true;
    return;
  }
  waiting_ += bytes.size();
  thread->post([self = shared_from_this(), piece = std::string(bytes)] {
    if (!self->has_failed_) self->put(piece);
    self->waiting_ -= piece.size();
    self->on_written_();
  });
}

void UploadWriter::leave() {
  if (const std::shared_ptr<StoreThread> thread = thread_.lock()) thread->post([self = shared_from_this()] {});
}

void UploadWriter::put(std::string_view bytes) {
  const auto fail = [this](const char* what) {
    has_failed_ = true;
    log_error("upload_failed", {{"cause", errno_error(what + path_).what()}});
  };
  if (fd_ < 0) fd_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd_ < 0) return fail("create ");
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return fail("write ");
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace optserve::gateway
