// Reads a body of multipart/form-data (RFC 7578) from bytes that arrive in pieces of any size. It is pure and needs
// little memory: a part's content is handed on as it arrives.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace optserve::http {

// The parts of a form, in their order.
class FormParts {
 public:
  virtual ~FormParts() = default;
  // A part begins. `file` is the file name that the sender gives; empty if the part is not a file. False ends the
  // reading.
  virtual bool on_part(std::string_view name, std::string_view file) = 0;
  // The next bytes of the content of the part that has begun. False ends the reading.
  virtual bool on_content(std::string_view bytes) = 0;
};

class MultipartReader {
 public:
  // `parts` outlives the reader.
  MultipartReader(std::string_view boundary, FormParts& parts);

  // False if the form is malformed, as message() says, or if `parts` has ended the reading (message() is then empty).
  bool feed(std::string_view bytes);
  // True if the last boundary has come; anything after it is ignored.
  bool is_complete() const { return state_ == State::kEnd; }
  const std::string& message() const { return message_; }

 private:
  enum class State { kBegin, kAfterBoundary, kHead, kContent, kEnd, kFailed };

  bool fail(std::string message);
  // Each takes what it can from the front of waiting_; false if more bytes are needed or the reading has ended.
  bool read_begin();
  bool read_after_boundary();
  bool read_head();
  bool read_content();

  std::string delimiter_;  // "\r\n--boundary"
  FormParts& parts_;
  State state_ = State::kBegin;
  std::string waiting_;
  size_t skip_ = 0;  // bytes at the front of waiting_ that are not content: an inserted line end
  int num_parts_ = 0;
  std::string message_;
};

// The boundary in the value of Content-Type; nullopt if that is not multipart/form-data or has no valid boundary.
std::optional<std::string> multipart_boundary(std::string_view content_type);

}  // namespace optserve::http
