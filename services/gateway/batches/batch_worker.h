// Runs the batches of the shared folder on a thread of its own. Of several gateways over one folder each batch has one
// that runs it; when that one ends, however it ends, another goes on.
#pragma once

#include <atomic>
#include <list>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "batches/batch_run.h"
#include "batches/driver.h"
#include "client/async_client.h"
#include "gateway/batches/batch_store.h"
#include "gateway/batches/file_store.h"
#include "http_api/chat/chat_template.h"
#include "http_api/openai/models.h"

namespace optserve::gateway {

// What makes jobs of lines.
struct BatchTexts {
  std::unique_ptr<http_api::Models> models;      // for the batches alone
  const http_api::ChatTemplate* chat = nullptr;  // null: there are no chats
};

class BatchWorker {
 public:
  // The thread has its own connection to the schedulers and its own vocabularies. The references outlive the worker.
  // Batches are removed `keep_seconds` after their end; 0: never.
  BatchWorker(FileStore& files, BatchStore& batches, BatchTexts texts, int64_t keep_seconds,
              const client::ClientOptions& options, const Clock& clock);
  // Leaves its batches to others. Their jobs go on, and whoever takes a batch over finds them by their keys.
  ~BatchWorker();
  BatchWorker(const BatchWorker&) = delete;
  BatchWorker& operator=(const BatchWorker&) = delete;

 private:
  struct Active;

  void run();
  void look_for_batches();
  void sweep();
  void begin(const std::string& id);
  bool validate(BatchState& state) const;
  void fail(BatchState& state, std::string code, std::string message) const;
  void look_after(Active& active);
  void end(Active& active);
  void finish(BatchState& state) const;
  void adopt(const BatchState& state, const std::string& part, const std::string& id, const char* what) const;
  int64_t wall() const { return clock_.wall_ms() / 1'000; }

  FileStore& files_;
  BatchStore& batches_;
  const std::unique_ptr<http_api::Models> models_;
  const http_api::ChatTemplate* const chat_;
  const int64_t keep_seconds_;
  const Clock& clock_;
  client::AsyncClient client_;
  batches::Driver driver_;
  std::list<Active> active_;
  std::set<std::string> ended_;  // are not looked at again
  Instant swept_{};
  std::atomic<bool> is_stopping_{false};
  std::thread thread_;
};

}  // namespace optserve::gateway
