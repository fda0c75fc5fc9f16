// Batches in a folder that all gateways share, each a folder of its own with its state, the answers so far, and a lock
// that the gateway holds which runs it. Functions throw Error when the folder fails.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_lock.h"
#include "gateway/batches/batch_state.h"

namespace optserve::gateway {

class BatchStore {
 public:
  // Creates the folder.
  explicit BatchStore(std::string folder);

  static bool is_id(std::string_view text);
  static std::string new_id();

  // Makes the batch one that some gateway will run.
  void create(const BatchState& state);
  std::optional<BatchState> find(std::string_view id) const;
  std::vector<std::string> ids() const;
  // Newest first.
  std::vector<BatchState> list() const;

  // Asks whoever runs the batch to cancel it; repeating that changes nothing.
  void ask_to_cancel(const std::string& id, int64_t now);
  // When cancellation was requested; nullopt: it was not.
  std::optional<int64_t> asked_to_cancel_at(std::string_view id) const;

  // For the gateway that runs it. nullopt: another one does.
  std::optional<FileLock> try_lock(std::string_view id) const;
  // Without `is_durable` a loss of power may take the change back.
  void save(const BatchState& state, bool is_durable) const;
  std::string answers_path(std::string_view id) const { return path(id, "answers.part"); }
  std::string errors_path(std::string_view id) const { return path(id, "errors.part"); }
  // The batch has ended: removes what is not needed any more.
  void tidy(std::string_view id) const;
  // Deletes a batch that has ended.
  void remove(std::string_view id) const;

 private:
  std::string path(std::string_view id, std::string_view name) const;

  std::string folder_;
};

}  // namespace optserve::gateway
