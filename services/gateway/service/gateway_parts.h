// What the routes of the gateway share. All of it is used on the HTTP server's thread.
#pragma once

#include <atomic>

#include "base/clock.h"
#include "client/async_client.h"
#include "gateway/access/access.h"
#include "gateway/service/open_calls.h"
#include "http/server.h"
#include "http_api/chat/chat_template.h"
#include "http_api/openai/models.h"

namespace optserve::gateway {

// How long the schedulers have to report their state; after that, the answer says which of them did not.
inline constexpr std::chrono::milliseconds kStatusWithin{2'500};

struct GatewayParts {
  http::Server& server;
  client::AsyncClient& client;  // its callbacks run on its own thread, and hand their work to the server's
  http_api::Models& models;
  OpenCalls& calls;
  Access& access;
  const Clock& clock;
  std::atomic<int>& open_cancels;                         // requests to cancel a job that are not answered yet
  const http_api::ChatTemplate* chat_template = nullptr;  // null: there are no chats
};

}  // namespace optserve::gateway
