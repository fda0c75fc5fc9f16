#include "scheduler/leases/service_table.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/limits.h"

namespace optserve::scheduler {
namespace {

constexpr size_t kNameBytesMax = 256;
constexpr size_t kModelsMax = 64;
constexpr size_t kModelsKnownMax = 1'024;
constexpr int32_t kSequencesMax = 100'000;

}  // namespace

Status validate_registration(const protocol::Register& info) {
  if (info.name.size() > kNameBytesMax || info.build.size() > kNameBytesMax) {
    return refuse(ErrorCode::kBadRequest, "name and build: at most " + std::to_string(kNameBytesMax) + " bytes");
  }
  if (info.models.size() > kModelsMax) {
    return refuse(ErrorCode::kBadRequest, "models: " + std::to_string(info.models.size()) + ", at most " +
                                              std::to_string(kModelsMax) + " are allowed");
  }
  for (const protocol::ModelInfo& model : info.models) {
    if (model.name.empty() || model.name.size() > limits::kModelNameBytesMax || model.context < 0 || model.vocab < 0 ||
        model.context > static_cast<int32_t>(limits::kContextTokensMax)) {
      return refuse(ErrorCode::kBadRequest, "model '" + model.name.substr(0, limits::kModelNameBytesMax) +
                                                "': expected a name of 1 to 64 bytes and a context of at most " +
                                                std::to_string(limits::kContextTokensMax) + ", found context " +
                                                std::to_string(model.context));
    }
  }
  const bool takes_jobs = info.kind != protocol::ServiceKind::kTokenizer;
  if (takes_jobs && (info.max_sequences < 1 || info.max_sequences > kSequencesMax || info.kv_tokens < 0)) {
    return refuse(ErrorCode::kBadRequest, "max_sequences: expected 1 to " + std::to_string(kSequencesMax) + ", found " +
                                              std::to_string(info.max_sequences));
  }
  return ok_status();
}

bool ServiceEntry::serves(std::string_view model) const {
  return std::any_of(info.models.begin(), info.models.end(), [&](const auto& m) { return m.name == model; });
}

ServiceEntry* ServiceTable::find(const transport::Peer& peer) const {
  const auto found = by_peer_.find(peer);
  return found == by_peer_.end() ? nullptr : found->second;
}

ServiceEntry* ServiceTable::find(const InstanceId& instance) const {
  const auto found = entries_.find(instance);
  return found == entries_.end() ? nullptr : found->second.get();
}

Status ServiceTable::check(const protocol::Register& info) const {
  if (Status status = validate_registration(info); !status.ok()) return status;
  for (const protocol::ModelInfo& model : info.models) {
    const auto found = digests_.find(model.name);
    if (found == digests_.end()) continue;
    const ModelDigests& known = found->second;
    Status status = check_digest(info, model, "vocabulary", model.vocabulary_digest, known.vocabulary);
    if (!status.ok()) return status;
    const Digests& manifests = known.manifest[static_cast<size_t>(info.kind) - 1];
    status = check_digest(info, model, "manifest", model.manifest_digest, manifests);
    if (!status.ok()) return status;
  }
  return ok_status();
}

Status ServiceTable::check_digest(const protocol::Register& info, const protocol::ModelInfo& model, const char* what,
                                  const std::string& digest, const Digests& known) {
  if (digest.empty()) return ok_status();
  for (const auto& [other, holders] : known) {
    if (other == digest) continue;
    // A service that registers again may change what it said before.
    auto holder = holders.begin();
    if (holder->second->info.instance == info.instance) ++holder;
    if (holder == holders.end()) continue;
    return refuse(ErrorCode::kBadRequest, "model " + model.name + ": " + what + " digest " + digest + ", but " +
                                              std::string(protocol::service_kind_name(holder->second->info.kind)) +
                                              " " + holder->second->info.name + " registered " + other);
  }
  return ok_status();
}

void ServiceTable::add_digests(const ServiceEntry& entry) {
  for (const protocol::ModelInfo& model : entry.info.models) {
    ModelDigests& known = digests_[model.name];
    Digests& manifests = known.manifest[static_cast<size_t>(entry.info.kind) - 1];
    if (!model.vocabulary_digest.empty()) known.vocabulary[model.vocabulary_digest][entry.serial] = &entry;
    if (!model.manifest_digest.empty()) manifests[model.manifest_digest][entry.serial] = &entry;
  }
}

void ServiceTable::remove_digests(const ServiceEntry& entry) {
  const auto remove = [&](Digests& digests, const std::string& digest) {
    const auto found = digests.find(digest);
    if (found == digests.end()) return;
    found->second.erase(entry.serial);
    if (found->second.empty()) digests.erase(found);
  };
  for (const protocol::ModelInfo& model : entry.info.models) {
    const auto found = digests_.find(model.name);
    if (found == digests_.end()) continue;
    ModelDigests& known = found->second;
    remove(known.vocabulary, model.vocabulary_digest);
    for (Digests& manifests : known.manifest) remove(manifests, model.manifest_digest);
    const bool is_empty = known.vocabulary.empty() && std::all_of(std::begin(known.manifest), std::end(known.manifest),
                                                                  [](const Digests& d) { return d.empty(); });
    if (is_empty) digests_.erase(found);
  }
}

ServiceEntry& ServiceTable::add(const transport::Peer& peer, protocol::Register info, Instant now) {
  auto entry = std::make_unique<ServiceEntry>();
  ServiceEntry& added = *entry;
  added.info = std::move(info);
  added.peer = peer;
  added.heard = added.progressed = now;
  added.serial = next_serial_++;
  by_peer_[peer] = &added;
  auto& of_kind = by_kind_[static_cast<size_t>(added.info.kind) - 1];
  added.place = of_kind.size();
  of_kind.push_back(&added);
  add_digests(added);
  check_at(added, now);
  entries_[added.info.instance] = std::move(entry);
  return added;
}

void ServiceTable::move(ServiceEntry& entry, const transport::Peer& peer) {
  by_peer_.erase(entry.peer);
  entry.peer = peer;
  by_peer_[peer] = &entry;
}

void ServiceTable::remove(ServiceEntry& entry) {
  by_peer_.erase(entry.peer);
  auto& of_kind = by_kind_[static_cast<size_t>(entry.info.kind) - 1];
  of_kind.back()->place = entry.place;
  std::swap(of_kind[entry.place], of_kind.back());
  of_kind.pop_back();
  remove_digests(entry);
  checks_.erase({entry.next_check, entry.serial});
  entries_.erase(InstanceId(entry.info.instance));
}

std::vector<ServiceEntry*> ServiceTable::all() const {
  std::vector<ServiceEntry*> found;
  for (const auto& entries : by_kind_) found.insert(found.end(), entries.begin(), entries.end());
  return found;
}

void ServiceTable::replace_info(ServiceEntry& entry, protocol::Register info) {
  remove_digests(entry);
  entry.info = std::move(info);
  add_digests(entry);
}

ServiceEntry* ServiceTable::due(Instant now) const {
  return checks_.empty() || checks_.begin()->first.first > now ? nullptr : checks_.begin()->second;
}

void ServiceTable::check_at(ServiceEntry& entry, Instant when) {
  checks_.erase({entry.next_check, entry.serial});
  entry.next_check = when;
  checks_[{when, entry.serial}] = &entry;
}

const protocol::ModelInfo* ServiceTable::model(const std::string& name) const {
  const auto found = models_.find(name);
  return found == models_.end() ? nullptr : &found->second;
}

bool ServiceTable::has_text(const std::string& name) const {
  const protocol::ModelInfo* known = model(name);
  return known == nullptr || known->vocabulary_digest != protocol::kNoVocabulary;
}

void ServiceTable::learn(const protocol::Register& info) {
  for (const protocol::ModelInfo& model : info.models) {
    if (models_.size() >= kModelsKnownMax && !models_.contains(model.name)) continue;
    protocol::ModelInfo& known = models_[model.name];
    const int32_t context = model.context > 0 ? model.context : known.context;
    const int32_t vocab = model.vocab > 0 ? model.vocab : known.vocab;
    known = model;
    known.context = context;
    known.vocab = vocab;
  }
}

Status ServiceTable::check_length(const std::string& name, size_t prompt_tokens, int32_t max_new_tokens) const {
  const protocol::ModelInfo* info = model(name);
  const size_t context =
      info != nullptr && info->context > 0 ? static_cast<size_t>(info->context) : limits::kContextTokensMax;
  if (prompt_tokens + static_cast<size_t>(max_new_tokens) <= context) return ok_status();
  return refuse(ErrorCode::kPromptTooLong, "prompt of " + std::to_string(prompt_tokens) +
                                               " tokens (with the leading </s>) and max_new_tokens " +
                                               std::to_string(max_new_tokens) + " exceed the context of " +
                                               std::to_string(context) + " tokens of model " + name);
}

std::vector<std::string> ServiceTable::model_names() const {
  std::vector<std::string> names;
  for (const auto& [name, info] : models_) names.push_back(name);
  return names;
}

}  // namespace optserve::scheduler
