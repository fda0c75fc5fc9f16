// The body of `POST /v1/files`: its file goes to the folder of the store as it comes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "gateway/batches/file_store.h"
#include "http/message/body_sink.h"
#include "http/message/multipart.h"
#include "http_api/openai/api_error.h"

namespace optserve::gateway {

inline constexpr uint64_t kUploadBytesMax = 200 << 20;

class FileUpload final : public http::BodySink, private http::FormParts {
 public:
  // `content_type`: of the request. The file is written to `partial`, and removed with this unless keep() was called.
  FileUpload(std::string_view content_type, std::string partial);
  ~FileUpload() override;
  FileUpload(const FileUpload&) = delete;
  FileUpload& operator=(const FileUpload&) = delete;

  bool take(std::string_view bytes, Refused& why) override;

  // After the whole body: what it says of the file, without id, tenant and the time of its making; `expires_at` is
  // seconds after that. Or what is missing.
  http_api::Parsed<StoredFile> facts() const;
  const std::string& partial() const { return partial_; }
  void keep() { is_kept_ = true; }

 private:
  bool on_part(std::string_view name, std::string_view file) override;
  bool on_content(std::string_view bytes) override;
  bool refuse_part(int status, std::string message);

  std::string partial_;
  std::optional<http::MultipartReader> reader_;
  int fd_ = -1;
  bool is_kept_ = false;
  bool is_in_file_ = false, has_file_ = false;
  uint64_t bytes_ = 0;
  std::string filename_;
  std::string* field_ = nullptr;  // that the part's content belongs to; null: an unknown one, which is skipped
  std::string purpose_, anchor_, seconds_;
  Refused refused_;
};

}  // namespace optserve::gateway
