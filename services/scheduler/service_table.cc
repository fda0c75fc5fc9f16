#include "scheduler/service_table.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"

namespace optserve::scheduler {
namespace {

constexpr size_t kNameBytesMax = 256;
constexpr size_t kModelsMax = 64;
constexpr size_t kModelsKnownMax = 1'024;
constexpr int32_t kSequencesMax = 100'000;

Status check_digest(const protocol::ModelInfo& model, const char* what, const std::string& found,
                    const std::string& expected, const ServiceEntry& holder) {
  if (found == expected || found.empty() || expected.empty()) return ok_status();
  return refuse(ErrorCode::kBadRequest, "model " + model.name + ": " + what + " digest " + found + ", but " +
                                            std::string(protocol::service_kind_name(holder.info.kind)) + " " +
                                            holder.info.name + " registered " + expected);
}

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
  for (const auto& [instance, entry] : entries_) {
    if (instance == info.instance) continue;
    for (const protocol::ModelInfo& model : info.models) {
      for (const protocol::ModelInfo& other : entry->info.models) {
        if (other.name != model.name) continue;
        Status status = check_digest(model, "vocabulary", model.vocabulary_digest, other.vocabulary_digest, *entry);
        if (!status.ok()) return status;
        if (info.kind != entry->info.kind) continue;
        status = check_digest(model, "manifest", model.manifest_digest, other.manifest_digest, *entry);
        if (!status.ok()) return status;
      }
    }
  }
  return ok_status();
}

ServiceEntry& ServiceTable::add(const transport::Peer& peer, protocol::Register info, Instant now) {
  auto entry = std::make_unique<ServiceEntry>();
  ServiceEntry& added = *entry;
  added.info = std::move(info);
  added.peer = peer;
  added.heard = added.progressed = now;
  by_peer_[peer] = &added;
  by_kind_[static_cast<size_t>(added.info.kind) - 1].push_back(&added);
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
  std::erase(by_kind_[static_cast<size_t>(entry.info.kind) - 1], &entry);
  entries_.erase(InstanceId(entry.info.instance));
}

std::vector<ServiceEntry*> ServiceTable::all() const {
  std::vector<ServiceEntry*> found;
  for (const auto& entries : by_kind_) found.insert(found.end(), entries.begin(), entries.end());
  return found;
}

const protocol::ModelInfo* ServiceTable::model(const std::string& name) const {
  const auto found = models_.find(name);
  return found == models_.end() ? nullptr : &found->second;
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

std::vector<std::string> ServiceTable::model_names() const {
  std::vector<std::string> names;
  for (const auto& [name, info] : models_) names.push_back(name);
  return names;
}

}  // namespace optserve::scheduler
