#include "scheduler/access/rights.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <type_traits>

#include "base/limits.h"

namespace optserve::scheduler {
namespace {

template <class T, class... Kinds>
constexpr bool kIsOneOf = (std::is_same_v<T, Kinds> || ...);

template <class T>
constexpr Need need_of_kind() {
  using namespace protocol;
  if (kIsOneOf<T, Ping, Pong, Refused>) return Need::kNothing;
  if (kIsOneOf<T, Submit>) return Need::kTenant;
  if (kIsOneOf<T, Attach, Cancel, GetJob, Credit, GetStatus, ListJobs, GetGroup>) return Need::kSight;
  if (kIsOneOf<T, Control, Requeue, Purge, Backup>) return Need::kOperator;
  if (kIsOneOf<T, Register, Heartbeat, Goodbye>) return Need::kService;
  if (kIsOneOf<T, Encoded, Decoded>) return Need::kTokenizer;
  if (kIsOneOf<T, Tokens, PromptLogprobs, Hypotheses>) return Need::kWorker;
  if (kIsOneOf<T, ConvertProgress>) return Need::kConverter;
  if (kIsOneOf<T, LeaseFailed>) return Need::kLeases;
  return Need::kNobody;
}

Refusal not_allowed(const keys::AllowedKey& key, const std::string& what) {
  return refuse(ErrorCode::kBadRequest, "not allowed: the key '" + key.name + "' may not " + what);
}

std::string shown(std::string_view name) {
  return name.empty() ? "the tenant without a name"
                      : "tenant '" + std::string(name.substr(0, limits::kTenantBytesMax)) + "'";
}

// The tenant that is meant where none is named.
Status complete(const keys::AllowedKey& key, std::string& tenant) {
  if (!tenant.empty() || key.tenants.contains("") || key.is_operator) return ok_status();
  if (key.tenants.names().size() != 1) {
    return refuse(ErrorCode::kBadRequest, "not allowed: the key '" + key.name + "' is for several tenants; name one");
  }
  tenant = key.tenants.names().front();
  return ok_status();
}

Status check_message(const keys::AllowedKey& key, protocol::Submit& message) {
  for (protocol::JobSpec& job : message.jobs) {
    if (Status status = complete(key, job.tenant); !status.ok()) return status;
    if (!key.tenants.contains(job.tenant)) return not_allowed(key, "submit jobs of " + shown(job.tenant));
    if (job.kind == protocol::JobKind::kConvert && !key.is_operator) {
      return not_allowed(key, "convert checkpoints, which needs the right operator");
    }
  }
  return ok_status();
}

Status check_message(const keys::AllowedKey& key, protocol::ListJobs& message) {
  std::optional<std::string>& tenant = message.filter.tenant;
  if (key.is_operator || (!tenant && key.tenants.is_all())) return ok_status();
  if (!tenant) tenant.emplace();
  if (Status status = complete(key, *tenant); !status.ok()) return status;
  return sees(key, *tenant) ? ok_status() : Status(not_allowed(key, "list jobs of " + shown(*tenant)));
}

Status check_message(const keys::AllowedKey& key, protocol::GetGroup& message) {
  if (Status status = complete(key, message.tenant); !status.ok()) return status;
  return sees(key, message.tenant) ? ok_status() : Status(not_allowed(key, "see groups of " + shown(message.tenant)));
}

Status check_models(const keys::AllowedKey& key, const keys::NameSet& allowed, const protocol::Register& message) {
  for (const protocol::ModelInfo& model : message.models) {
    if (allowed.contains(model.name)) continue;
    return not_allowed(key, "be a " + std::string(protocol::service_kind_name(message.kind)) + " of model '" +
                                model.name.substr(0, limits::kModelNameBytesMax) + "'");
  }
  return ok_status();
}

Status check_message(const keys::AllowedKey& key, const protocol::Register& message) {
  const std::string kind(protocol::service_kind_name(message.kind));
  switch (message.kind) {
    case protocol::ServiceKind::kTokenizer:
      if (key.tokenizer_models.empty()) return not_allowed(key, "be a " + kind);
      return check_models(key, key.tokenizer_models, message);
    case protocol::ServiceKind::kWorker:
      if (key.worker_models.empty()) return not_allowed(key, "be a " + kind);
      return check_models(key, key.worker_models, message);
    case protocol::ServiceKind::kConverter:
      break;
  }
  return key.converter_folders.empty() ? Status(not_allowed(key, "be a " + kind)) : ok_status();
}

Status check_message(const keys::AllowedKey&, const auto&) { return ok_status(); }

}  // namespace

Need need_of(const protocol::Message& message) {
  return std::visit([](const auto& body) { return need_of_kind<std::decay_t<decltype(body)>>(); }, message);
}

bool has(const keys::AllowedKey& key, Need need) {
  const bool is_tokenizer = !key.tokenizer_models.empty(), is_worker = !key.worker_models.empty();
  const bool is_converter = !key.converter_folders.empty();
  switch (need) {
    case Need::kNothing:
      return true;
    case Need::kTenant:
      return !key.tenants.empty();
    case Need::kSight:
      return !key.tenants.empty() || key.is_operator;
    case Need::kOperator:
      return key.is_operator;
    case Need::kService:
      return is_tokenizer || is_worker || is_converter;
    case Need::kTokenizer:
      return is_tokenizer;
    case Need::kWorker:
      return is_worker;
    case Need::kConverter:
      return is_converter;
    case Need::kLeases:
      return is_worker || is_converter;
    case Need::kNobody:
      break;
  }
  return false;
}

bool sees(const keys::AllowedKey& key, std::string_view tenant) {
  return key.is_operator || key.tenants.contains(tenant);
}

Status check_rights(const keys::AllowedKey& key, protocol::Message& message) {
  if (!has(key, need_of(message))) return not_allowed(key, "send " + std::string(protocol::message_name(message)));
  return std::visit([&](auto& body) { return check_message(key, body); }, message);
}

bool covers(const std::vector<std::string>& folders, const protocol::ConvertSpec& spec) {
  const auto is_inside = [&](const std::string& path) {
    const std::filesystem::path given(path);
    if (std::ranges::find(given, "..") != given.end()) return false;
    if (given.is_relative()) return true;
    const std::string normal = given.lexically_normal().string();
    return std::ranges::any_of(folders, [&](const std::string& folder) { return keys::lies_in(normal, folder); });
  };
  return is_inside(spec.source) && is_inside(spec.destination);
}

}  // namespace optserve::scheduler
