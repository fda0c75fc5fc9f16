// `/v1/files` and `/v1/batches`.
#pragma once

#include <memory>
#include <string>

#include "client/client_types.h"
#include "gateway/batches/batch_store.h"
#include "gateway/batches/batch_worker.h"
#include "gateway/batches/file_store.h"
#include "gateway/batches/store_thread.h"
#include "gateway/service/gateway_parts.h"

namespace optserve::gateway {

// The folder of files and batches, and the threads that work in it.
class BatchService {
 public:
  struct Options {
    std::string folder;
    uint64_t bytes_max = 0;    // of all files together
    int64_t keep_seconds = 0;  // files that say no other time, and batches that have ended; 0: for ever
    client::ClientOptions client;
  };
  // What `texts` and `clock` refer to outlives the service.
  BatchService(const Options& options, BatchTexts texts, const Clock& clock);
  ~BatchService();
  BatchService(const BatchService&) = delete;
  BatchService& operator=(const BatchService&) = delete;

  // The service outlives the server.
  void add_routes(const GatewayParts& parts);

 private:
  FileStore files_;
  BatchStore batches_;
  const int64_t keep_seconds_;
  BatchWorker worker_;
  std::shared_ptr<StoreThread> thread_ = std::make_shared<StoreThread>();
};

// The same routes of a gateway without a folder: each says how to give it one.
void add_routes_without_batches(const GatewayParts& parts);

}  // namespace optserve::gateway
