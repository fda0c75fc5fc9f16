// `GET /openapi.json`: the routes of a server as a document of OpenAPI 3.1. Bodies are described by the tables of
// fields that check them.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace optserve::http_api {

// Method and pattern, as http::Router has them.
using RouteName = std::pair<std::string, std::string>;

std::string openapi_document(std::span<const RouteName> routes, std::string_view version);
// Whether the document says what the route does; other routes are only listed.
bool is_described(const RouteName& route);

}  // namespace optserve::http_api
