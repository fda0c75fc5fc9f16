#include "http/exchange.h"

#include "http/connection.h"

namespace optserve::http {

Exchange::~Exchange() {
  if (connection_ != nullptr) connection_->abandon();
}

void Exchange::detach() {
  connection_ = nullptr;
  on_closed_ = on_slow_ = on_drained_ = on_half_closed_ = nullptr;
}

void Exchange::answer(const Answer& answer) {
  if (connection_ != nullptr) connection_->answer(answer);
}

void Exchange::refuse(int status, std::string_view message) {
  if (connection_ != nullptr) connection_->refuse(status, message);
}

void Exchange::begin_stream(int status, const Headers& headers) {
  if (connection_ == nullptr) return;
  is_streaming_ = true;
  connection_->begin_stream(status, headers);
}

void Exchange::write(std::string_view piece) {
  if (connection_ != nullptr) connection_->write(piece);
}

void Exchange::end() {
  if (connection_ != nullptr) connection_->end_stream();
}

void Exchange::abort() {
  if (connection_ != nullptr) connection_->abort();
}

size_t Exchange::buffered_bytes() const { return connection_ == nullptr ? 0 : connection_->buffered_bytes(); }

}  // namespace optserve::http
