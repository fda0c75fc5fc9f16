// The body of `POST /v1/files`: its file is written to the folder of the store as it arrives.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "gateway/batches/file_store.h"
#include "gateway/batches/upload_writer.h"
#include "http/message/body_sink.h"
#include "http/message/multipart.h"
#include "http_api/openai/api_error.h"

namespace optserve::gateway {

inline constexpr uint64_t kUploadBytesMax = 200 << 20;

class FileUpload final : public http::BodySink, private http::FormParts {
 public:
  // `content_type`: of the request. The file is written to `partial` on the thread of the store, and removed there when
  // this is destroyed, unless keep() was called. `on_room`: see http::RouteLimits.
  FileUpload(std::string_view content_type, std::string partial, std::shared_ptr<StoreThread> thread,
             std::function<void()> on_room);
  ~FileUpload() override;
  FileUpload(const FileUpload&) = delete;
  FileUpload& operator=(const FileUpload&) = delete;

  bool take(std::string_view bytes, Refused& why) override;

  // After the whole body: the facts of the file without its id, tenant and time of creation, or a refusal that names
  // what is missing. `expires_at` is in seconds after the creation.
  http_api::Parsed<StoredFile> facts() const;
  const std::string& partial() const { return partial_; }
  bool is_full() const override { return writer_->is_full(); }
  // On the thread of the store, after the whole body.
  bool is_written() const { return !writer_->has_failed(); }
  void keep() { writer_->keep(); }

 private:
  bool on_part(std::string_view name, std::string_view file) override;
  bool on_content(std::string_view bytes) override;
  bool refuse_part(int status, std::string message);

  std::string partial_;
  std::optional<http::MultipartReader> reader_;
  const std::shared_ptr<UploadWriter> writer_;
  bool is_in_file_ = false, has_file_ = false;
  uint64_t bytes_ = 0;
  std::string filename_;
  std::string* field_ = nullptr;  // that the part's content belongs to; null: an unknown one, which is skipped
  std::string purpose_, anchor_, seconds_;
  Refused refused_;
};

}  // namespace optserve::gateway
