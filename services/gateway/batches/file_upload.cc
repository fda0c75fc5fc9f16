#include "gateway/batches/file_upload.h"

#include <charconv>
#include <utility>

#include "base/input_check.h"

namespace optserve::gateway {
namespace {

constexpr size_t kFieldBytesMax = 256;
constexpr size_t kFilenameBytesMax = 255;
constexpr int64_t kExpirySecondsMin = 3'600, kExpirySecondsMax = 2'592'000;

}  // namespace

FileUpload::FileUpload(std::string_view content_type, std::string partial, std::shared_ptr<StoreThread> thread,
                       std::function<void()> on_room)
    : partial_(std::move(partial)),
      writer_(std::make_shared<UploadWriter>(std::move(thread), partial_, std::move(on_room))) {
  if (const auto boundary = http::multipart_boundary(content_type)) {
    reader_.emplace(*boundary, static_cast<http::FormParts&>(*this));
  }
}

FileUpload::~FileUpload() { writer_->leave(); }

bool FileUpload::take(std::string_view bytes, Refused& why) {
  if (!reader_) {
    why = {415, "expected a form: Content-Type multipart/form-data with a boundary"};
    return false;
  }
  if (reader_->feed(bytes)) return true;
  why = reader_->message().empty() ? refused_ : Refused{400, reader_->message()};
  return false;
}

bool FileUpload::refuse_part(int status, std::string message) {
  refused_ = {status, std::move(message)};
  return false;
}

bool FileUpload::on_part(std::string_view name, std::string_view file) {
  is_in_file_ = name == "file";
  field_ = name == "purpose"                  ? &purpose_
           : name == "expires_after[anchor]"  ? &anchor_
           : name == "expires_after[seconds]" ? &seconds_
                                              : nullptr;
  if (field_ != nullptr) field_->clear();
  if (!is_in_file_) return true;
  if (has_file_) return refuse_part(400, "the form has more than one file");
  filename_ = file.empty() ? "upload" : file.substr(0, kFilenameBytesMax);
  has_file_ = true;
  writer_->write("");  // an empty file is one too
  return true;
}

bool FileUpload::on_content(std::string_view bytes) {
  if (field_ != nullptr) {
    if (field_->size() + bytes.size() > kFieldBytesMax) return refuse_part(400, "a field of the form is too long");
    field_->append(bytes);
  }
  if (!is_in_file_) return true;
  bytes_ += bytes.size();
  if (bytes_ > kUploadBytesMax) {
    return refuse_part(413, "the file is larger than " + std::to_string(kUploadBytesMax) + " bytes");
  }
  if (writer_->has_failed()) return refuse_part(503, "the file cannot be written");
  writer_->write(bytes);
  return true;
}

http_api::Parsed<StoredFile> FileUpload::facts() const {
  if (!reader_ || !reader_->is_complete()) return http_api::invalid_value("file", "The form is not complete.");
  if (!has_file_) return http_api::invalid_value("file", "The form has no part with the name 'file'.");
  if (purpose_ != "batch") {
    return http_api::invalid_value("purpose", "purpose is " + found_text(purpose_) + ", expected batch");
  }
  StoredFile file;
  file.filename = filename_;
  file.purpose = purpose_;
  file.bytes = bytes_;
  if (anchor_.empty() && seconds_.empty()) return file;
  const auto [end, error] = std::from_chars(seconds_.data(), seconds_.data() + seconds_.size(), file.expires_at);
  if (anchor_ != "created_at" || error != std::errc() || end != seconds_.data() + seconds_.size() ||
      file.expires_at < kExpirySecondsMin || file.expires_at > kExpirySecondsMax) {
    return http_api::invalid_value("expires_after", "expires_after is not the anchor created_at with " +
                                                        std::to_string(kExpirySecondsMin) + " to " +
                                                        std::to_string(kExpirySecondsMax) + " seconds");
  }
  return file;
}

}  // namespace optserve::gateway
