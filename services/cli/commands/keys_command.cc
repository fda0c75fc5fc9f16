// Manages files and lists of the keys of connections between processes. It asks no scheduler, since schedulers notice a
// changed list by themselves.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/input_check.h"
#include "base/limits.h"
#include "cli/commands/command.h"
#include "cli/commands/connection.h"
#include "cli/stack/stack_keys.h"
#include "cli/text/operator_text.h"
#include "cli/text/text_table.h"
#include "keys/allow_file.h"
#include "keys/key_files.h"

namespace optserve::cli {
namespace {

constexpr const char* kListHelp = "File of the allowed keys, as optserve-scheduler --allowed-keys has it";

// A key as text, or the only one in a file.
keys::PublicKey public_key_of(const std::string& text) {
  if (text.starts_with(keys::kPublicPrefix) || text.starts_with(keys::kSecretPrefix)) {
    return value_or_fail(keys::parse_public_key(text));
  }
  const std::vector<keys::PublicKey> found = value_or_fail(keys::read_public_key_file(text));
  if (found.size() != 1) fail(refuse(ErrorCode::kBadRequest, text + ": expected one key"));
  return found.front();
}

std::string rights_text(const keys::AllowedKey& key) {
  const std::string line = keys::allow_line(key);
  const std::string before = key.key.text() + " name=" + key.name + " ";
  return line.substr(before.size());
}

class KeysCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command = parser.add_command(
        "keys", "Make keys for the connections between processes, and say what each may do", selected);
    declare_new(command);
    declare_show(command);
    declare_allow(command);
    declare_revoke(command);
  }

  int run(const Clock&) override {
    if (new_) return run_new();
    if (show_) return run_show();
    if (allow_) return run_allow();
    return run_revoke();
  }

 private:
  void declare_new(ConfigParser& command) {
    ConfigParser& made = command.add_command("new", "Make a pair of keys: NAME.secret and NAME.public", new_);
    made.add_positional("name", name_, "Name of the files, [A-Za-z0-9._-]", true);
    made.add("folder", folder_, "Folder of the files; created, for its owner alone, if missing");
    made.add_example("optserve keys new scheduler", "the key of a scheduler");
    made.add_example("optserve keys new worker-0 --folder /etc/optserve/keys", "in another folder");
    made.add_example("optserve keys new web-2027", "the next key of a client; both are valid while both are allowed");
  }
  void declare_show(ConfigParser& command) {
    ConfigParser& show = command.add_command("show", "Show the public key of a file, or a list of allowed keys", show_);
    show.add_positional("file", file_, "A file of a secret or public key, or of allowed keys", true);
    show.add("json", json_, "Print a JSON object");
    show.add_example("optserve keys show keys/scheduler.secret", "the public key that belongs to a secret one");
    show.add_example("optserve keys show allowed_keys", "who may connect, and what each may do");
    show.add_example("optserve keys show allowed_keys --json", "for a program");
  }
  void declare_allow(ConfigParser& command) {
    ConfigParser& allow = command.add_command("allow", "Allow a public key, or change what it may do", allow_);
    allow.add_positional("key", key_, "Public key, or the file with it", true);
    allow.add_positional(
        "rights", rights_,
        "client=TENANTS (* for all; client alone: the tenant without a name), operator, worker=MODELS, "
        "tokenizer=MODELS, converter=FOLDER",
        true);
    allow.add("name", name_, "Name of the key in logs; by default that of its file");
    allow.add("file", list_, kListHelp);
    allow.add_example("optserve keys allow web.public client=shop", "a client that submits jobs of one tenant");
    allow.add_example("optserve keys allow keys/gateway.public client=* operator --file /etc/optserve/allowed_keys",
                      "a gateway, whose own keys know the tenants");
    allow.add_example("optserve keys allow worker-0.public worker=opt-125m,opt-30b", "a worker of two models");
  }
  void declare_revoke(ConfigParser& command) {
    ConfigParser& revoke = command.add_command(
        "revoke", "Take a key off the list: its connections end within a second, and it does not come in again",
        revoke_);
    revoke.add_positional("key", key_, "Public key, the file with it, or the name of all keys to be removed", true);
    revoke.add("file", list_, kListHelp);
    revoke.add_example("optserve keys revoke web-2026.public", "the old key of a client");
    revoke.add_example("optserve keys revoke worker-0", "every key of this name");
    revoke.add_example("optserve keys revoke web.public --file /etc/optserve/allowed_keys", "in another list");
  }

  int run_new() const {
    throw_if_usage(check_name("name", name_, 1, limits::kTenantBytesMax));
    const std::string key = value_or_fail(write_key_pair(folder_, name_));
    std::printf("%s\n", key.c_str());
    std::fprintf(stderr,
                 "%s/%s.secret is for the process itself (--secret-key); %s/%s.public is for those who allow it or "
                 "connect to it\n",
                 folder_.c_str(), name_.c_str(), folder_.c_str(), name_.c_str());
    return kExitOk;
  }

  int run_show() const {
    Result<std::string> text = keys::read_key_file(file_, keys::Privacy::kTrusted);
    if (!text.ok()) fail(text.refusal());
    const bool is_secret = text.value().find(keys::kSecretPrefix) != std::string::npos;
    keys::wipe(text.value());
    if (is_secret) return show_keys({value_or_fail(keys::read_secret_key_file(file_)).public_key()});
    if (const auto found = keys::read_public_key_file(file_); found.ok()) return show_keys(found.value());
    return show_list(value_or_fail(keys::read_allow_file(file_)));
  }

  int show_keys(const std::vector<keys::PublicKey>& found) const {
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (const keys::PublicKey& key : found) {
      if (!json_) std::printf("%s\n", key.text().c_str());
      all.push_back({{"key", key.text()}});
    }
    if (json_) std::fputs(json_line({{"keys", std::move(all)}}).c_str(), stdout);
    return kExitOk;
  }

  int show_list(const keys::AllowList& list) const {
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (const keys::AllowedKey& key : list.keys()) {
      if (!json_) std::printf("%s  %-20s  %s\n", key.key.text().c_str(), key.name.c_str(), rights_text(key).c_str());
      all.push_back({{"key", key.key.text()}, {"name", key.name}, {"rights", rights_text(key)}});
    }
    if (json_) std::fputs(json_line({{"keys", std::move(all)}}).c_str(), stdout);
    return kExitOk;
  }

  int run_allow() {
    keys::AllowedKey key;
    key.key = public_key_of(key_);
    key.name = name_.empty() ? name_of_file(key_) : name_;
    throw_if_usage(check_name("name", key.name, 1, limits::kTenantBytesMax));
    throw_if_usage(keys::set_rights(key, rights_));
    const Status status = keys::allow_in_file(list_, key);
    if (!status.ok()) fail(status.refusal());
    std::printf("%s  %s  %s\n", key.key.short_text().c_str(), key.name.c_str(), rights_text(key).c_str());
    std::fprintf(stderr, "allowed in %s; a running scheduler sees it within a second\n", list_.c_str());
    return kExitOk;
  }

  int run_revoke() const {
    const bool is_file = keys::read_public_key_file(key_).ok();
    const std::string which = is_file || key_.starts_with(keys::kPublicPrefix) ? public_key_of(key_).text() : key_;
    const std::vector<keys::AllowedKey> removed = value_or_fail(keys::revoke_in_file(list_, which));
    for (const keys::AllowedKey& key : removed) {
      std::printf("%s  %s\n", key.key.text().c_str(), key.name.c_str());
    }
    std::fprintf(stderr, "revoked in %s; a running scheduler ends their connections within a second\n", list_.c_str());
    return kExitOk;
  }

  // "web" of "keys/web.public"; nothing of a key that was given as text.
  static std::string name_of_file(const std::string& path) {
    if (path.starts_with(keys::kPublicPrefix)) {
      throw CommandFailure{kExitUsage, "name: expected one, since the key comes without a file", "bad_request"};
    }
    const std::string file = path.substr(path.rfind('/') + 1);
    return file.ends_with(".public") ? file.substr(0, file.size() - std::string_view(".public").size()) : file;
  }
  static void throw_if_usage(const Status& status) {
    if (!status.ok()) throw CommandFailure{kExitUsage, status.refusal().message, "bad_request"};
  }

  bool new_ = false, show_ = false, allow_ = false, revoke_ = false, json_ = false;
  std::string name_, key_, file_, folder_ = ".", list_ = "allowed_keys";
  std::vector<std::string> rights_;
};

}  // namespace

std::unique_ptr<Command> make_keys_command() { return std::make_unique<KeysCommand>(); }

}  // namespace optserve::cli
