#include "gateway/batches/batch_store.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/ids.h"
#include "gateway/batches/file_store.h"

namespace optserve::gateway {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kBatchPrefix = "batch_";

void create_folder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) throw Error("create " + path + ": " + error.message());
}

}  // namespace

BatchStore::BatchStore(std::string folder) : folder_(std::move(folder)) { create_folder(folder_); }

bool BatchStore::is_id(std::string_view text) {
  return text.starts_with(kBatchPrefix) && Id128::from_hex(text.substr(kBatchPrefix.size())).has_value();
}

std::string BatchStore::new_id() { return std::string(kBatchPrefix) + Id128::random().hex(); }

std::string BatchStore::path(std::string_view id, std::string_view name) const {
  return folder_ + "/" + std::string(id) + "/" + std::string(name);
}

void BatchStore::create(const BatchState& state) {
  create_folder(folder_ + "/" + state.id);
  save(state, true);
}

void BatchStore::save(const BatchState& state, bool is_durable) const {
  replace_file(path(state.id, "batch.json"), state_text(state), is_durable);
}

std::optional<BatchState> BatchStore::find(std::string_view id) const {
  if (!is_id(id)) return std::nullopt;
  const std::optional<std::string> text = read_small_file(path(id, "batch.json"));
  if (!text) return std::nullopt;
  std::optional<BatchState> state = parse_state(*text);
  if (!state) throw Error(path(id, "batch.json") + " is damaged");
  if (is_ended(state->status)) return state;
  if (const auto asked = asked_to_cancel_at(id)) {
    state->status = BatchStatus::kCancelling;
    state->cancelling_at = *asked;
  }
  return state;
}

std::vector<std::string> BatchStore::ids() const {
  std::vector<std::string> ids;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) {
    if (std::string name = entry.path().filename(); is_id(name)) ids.push_back(std::move(name));
  }
  return ids;
}

std::vector<BatchState> BatchStore::list() const {
  std::vector<BatchState> states;
  for (const std::string& id : ids()) {
    if (auto state = find(id)) states.push_back(std::move(*state));
  }
  std::ranges::sort(states, [](const BatchState& a, const BatchState& b) {
    return std::pair(b.created_at, std::string_view(b.id)) < std::pair(a.created_at, std::string_view(a.id));
  });
  return states;
}

void BatchStore::ask_to_cancel(const std::string& id, int64_t now) {
  if (!asked_to_cancel_at(id)) replace_file(path(id, "cancel"), std::to_string(now), true);
}

std::optional<int64_t> BatchStore::asked_to_cancel_at(std::string_view id) const {
  const std::optional<std::string> text = read_small_file(path(id, "cancel"));
  if (!text) return std::nullopt;
  int64_t at = 0;
  std::from_chars(text->data(), text->data() + text->size(), at);
  return at;
}

std::optional<FileLock> BatchStore::try_lock(std::string_view id) const {
  return FileLock::try_exclusive(path(id, "lock"));
}

void BatchStore::tidy(std::string_view id) const {
  for (const char* name : {"answers.part", "errors.part", "cancel"}) std::remove(path(id, name).c_str());
}

void BatchStore::remove(std::string_view id) const {
  std::error_code ignored;  // another gateway may remove it too
  fs::remove(path(id, "batch.json"), ignored);
  fs::remove_all(folder_ + "/" + std::string(id), ignored);
}

}  // namespace optserve::gateway
