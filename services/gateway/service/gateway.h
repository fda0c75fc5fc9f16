// The gateway: a client of the schedulers with HTTP in front. It keeps nothing that another gateway would need.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>

#include "base/clock.h"
#include "client/async_client.h"
#include "gateway/access/access.h"
#include "gateway/access/key_store.h"
#include "gateway/batches/batch_routes.h"
#include "gateway/service/gateway_parts.h"
#include "gateway/service/open_calls.h"
#include "gateway/service/options.h"
#include "gateway/service/scheduler_watch.h"
#include "gateway/service/system_metrics.h"
#include "http/server.h"
#include "http_api/openai/models.h"
#include "metrics/health.h"
#include "metrics/metrics.h"

namespace optserve::gateway {

class Gateway {
 public:
  // Listens and answers. Throws Error if it cannot. The references outlive the gateway.
  // `batch_models`: the same models once more, for the thread of the batches; used with GatewayOptions::files.
  Gateway(const GatewayOptions& options, std::unique_ptr<http_api::Models> models,
          std::unique_ptr<http_api::Models> batch_models, metrics::Registry& registry, metrics::Health& health,
          const Clock& clock);
  // Without drain(): whatever is open ends now.
  ~Gateway();
  Gateway(const Gateway&) = delete;
  Gateway& operator=(const Gateway&) = delete;

  int port() const { return server_.port(); }
  // Accepts no connections any more, and returns when every answer is complete, after `limit`, or when `is_forced`
  // says so. What is still open is told that the service is not available, and its jobs are cancelled.
  void drain(milliseconds limit, const std::function<bool()>& is_forced);

 private:
  void add_routes(const metrics::Registry& registry);
  void tick();
  void on_status(const client::Answers<protocol::SystemStatus>& answers);

  metrics::Health& health_;
  const Clock& clock_;
  SystemMetrics system_;
  SchedulerWatch watch_;
  std::unique_ptr<http_api::Models> models_;
  std::optional<http_api::ChatTemplate> chat_template_;
  OpenCalls calls_;
  KeyStore key_store_;
  Access access_;
  std::atomic<int> open_cancels_{0};
  std::atomic<bool> is_draining_{false};
  bool is_status_asked_ = false;
  std::unique_ptr<BatchService> batch_service_;  // null: without a folder
  http::Server server_;
  std::unique_ptr<client::AsyncClient> client_;  // ends after the server's thread and before the server
};

}  // namespace optserve::gateway
