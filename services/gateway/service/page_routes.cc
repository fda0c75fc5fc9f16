#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/hex.h"
#include "base/sha256.h"
#include "gateway/service/answers.h"
#include "gateway/service/page_files.h"
#include "gateway/service/routes.h"

namespace optserve::gateway {
namespace {

using ExchangePtr = std::shared_ptr<http::Exchange>;

// Allows only the page's own files and the API at the same address, no code in markup, and no markup made from text.
constexpr std::string_view kContentSecurityPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

std::string content_type_of(std::string_view name) {
  static const std::map<std::string_view, std::string> kTypes = {{".html", "text/html; charset=utf-8"},
                                                                 {".css", "text/css; charset=utf-8"},
                                                                 {".js", "text/javascript; charset=utf-8"},
                                                                 {".svg", "image/svg+xml"}};
  const auto found = kTypes.find(name.substr(name.rfind('.')));
  check(found != kTypes.end(), "the type of a file of the page is known: " + std::string(name));
  return found->second;
}

struct ServedFile {
  std::string_view text;
  std::string content_type;
  std::string etag;
};

// By their names.
std::map<std::string_view, ServedFile> served_files() {
  std::map<std::string_view, ServedFile> files;
  for (const PageFile& file : page_files()) {
    files[file.name] = {file.text, content_type_of(file.name), '"' + to_hex(sha256(file.text)) + '"'};
  }
  return files;
}

http::Answer file_answer(const http::Request& request, const ServedFile& file) {
  http::Answer answer;
  // Browsers check each time whether their copy is current, so that all files come from the same version of the
  // program.
  answer.headers = {{"Cache-Control", "no-cache"},
                    {"ETag", file.etag},
                    {"Content-Security-Policy", std::string(kContentSecurityPolicy)},
                    {"X-Content-Type-Options", "nosniff"},
                    {"Referrer-Policy", "no-referrer"},
                    {"Cross-Origin-Opener-Policy", "same-origin"},
                    {"Cross-Origin-Resource-Policy", "same-origin"}};
  // The tag may also be in a list, and be marked as weak by a proxy that compresses.
  if (request.headers.get("If-None-Match").find(file.etag) != std::string_view::npos) {
    answer.status = 304;
    answer.content_type = "";
    return answer;
  }
  answer.content_type = file.content_type;
  answer.body = file.text;
  return answer;
}

}  // namespace

void add_page_routes(http::Server& server) {
  server.route("GET", "/ui/{file...}", [files = served_files()](const ExchangePtr& exchange) {
    const http::Request& request = exchange->request();
    // Addresses within the page are relative, so that it also works under a path of a proxy; they need the slash.
    if (request.target.path == "/ui") {
      return exchange->answer({.status = 308, .content_type = "", .body = "", .headers = {{"Location", "ui/"}}});
    }
    const std::string_view name = request.parameter("file");
    const auto found = files.find(name.empty() ? "index.html" : name);
    if (found == files.end()) return exchange->answer(server_error_answer(&request, 404, ""));
    exchange->answer(file_answer(request, found->second));
  });
}

}  // namespace optserve::gateway
