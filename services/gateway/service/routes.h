// The routes of the gateway, by subject. Those of completions, models and vocabularies are in gateway.cc.
#pragma once

#include "gateway/service/gateway_parts.h"
#include "http/server.h"

namespace optserve::gateway {

// `POST /v1/chat/completions`.
void add_chat_routes(const GatewayParts& parts);

// `POST /v1/responses`, and what is done with a response later: retrieve, follow, cancel, delete.
void add_response_routes(const GatewayParts& parts);

// Ollama's routes: /api/version, /api/tags, /api/ps, /api/generate and /api/chat.
void add_ollama_routes(const GatewayParts& parts);

// The jobs API: submit, look, cancel, requeue, follow, list, groups, and the state of the queue.
void add_job_routes(const GatewayParts& parts);

// `GET /v1/jobs/{id}/record`: everything that is known about one job, for people who look at it.
void add_record_route(const GatewayParts& parts);

// `/ui`: the page on which people try prompts and look at the queue. It uses the API as every other client does.
void add_page_routes(http::Server& server);

}  // namespace optserve::gateway
