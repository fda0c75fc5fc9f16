#include "checkpoint/io/strict_json.h"

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

namespace optserve::checkpoint {
namespace {

using nlohmann::json;

constexpr size_t kValuesMax = 1'000'000;  // in memory they take some thirty times the bytes of their text

// Builds a json value like the library's own parser, and stops at the first duplicate key or too deep value.
class Builder final : public nlohmann::json_sax<json> {
 public:
  explicit Builder(int depth_max) : depth_max_(depth_max) {}

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return fail("holds binary data"); }
  bool start_object(std::size_t) override { return open(json::object()); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (open_.back()->contains(name)) return fail("has the key '" + name.substr(0, 80) + "' twice");
    key_ = std::move(name);
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const json::exception&) override {
    return fail("is not valid JSON near byte " + std::to_string(position));
  }

  json take() { return std::move(root_); }
  const std::string& error() const { return error_; }

 private:
  bool fail(std::string error) {
    error_ = std::move(error);
    return false;
  }
  json* place(json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    json& slot = parent[key_];
    slot = std::move(value);
    return &slot;
  }
  bool put(json value) {
    if (++values_ > kValuesMax) return fail("holds more than " + std::to_string(kValuesMax) + " values");
    place(std::move(value));
    return true;
  }
  bool open(json container) {
    if (static_cast<int>(open_.size()) >= depth_max_) {
      return fail("is nested deeper than " + std::to_string(depth_max_));
    }
    if (++values_ > kValuesMax) return fail("holds more than " + std::to_string(kValuesMax) + " values");
    open_.push_back(place(std::move(container)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  int depth_max_;
  size_t values_ = 0;
  json root_;
  std::vector<json*> open_;  // containers being filled; a parent gets no new element while a child is open
  std::string key_;
  std::string error_;
};

}  // namespace

Result<json> parse_json_strict(std::string_view text, std::string_view what, int depth_max) {
  Builder builder(depth_max);
  if (!json::sax_parse(text.begin(), text.end(), &builder)) {
    return refuse(ErrorCode::kDataCorrupt, std::string(what) + " " + builder.error());
  }
  return builder.take();
}

}  // namespace optserve::checkpoint
