#include "gateway/batches/batch_routes.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "base/log.h"
#include "gateway/batches/file_upload.h"
#include "gateway/service/answers.h"
#include "http_api/openai/json_text.h"

namespace optserve::gateway {
namespace {

using ExchangePtr = std::shared_ptr<http::Exchange>;
using http_api::Caller;
using http_api::Parsed;

constexpr size_t kFormBytes = 64 << 10;  // of an upload, beside its file
constexpr milliseconds kUploadTime{900'000};
constexpr size_t kPieceBytes = 256 << 10;
constexpr size_t kFilesPerPage = 10'000, kBatchesPerPage = 100, kBatchesByDefault = 20;

http_api::ApiError unknown(std::string_view what, std::string_view id) {
  return http_api::error_of(
      refuse(ErrorCode::kNotFound, "there is no " + std::string(what) + " '" + std::string(id) + "'"));
}

// Which page of a list the query asks for: limit, after, order.
struct Page {
  size_t limit = 0;
  std::string after;
  bool is_ascending = false;
};

Parsed<Page> parse_page(const http::Request& request, size_t by_default, size_t most) {
  Page page{.limit = by_default, .after = {}};
  if (const std::string* limit = request.query("limit")) {
    const bool is_number = !limit->empty() && limit->find_first_not_of("0123456789") == std::string::npos;
    page.limit = is_number && limit->size() < 7 ? std::stoul(*limit) : 0;
    if (page.limit < 1 || page.limit > most) {
      return http_api::invalid_value("limit", "limit is not 1 to " + std::to_string(most));
    }
  }
  if (const std::string* after = request.query("after")) page.after = *after;
  if (const std::string* order = request.query("order")) {
    if (*order != "asc" && *order != "desc") return http_api::invalid_value("order", "order is not asc or desc");
    page.is_ascending = *order == "asc";
  }
  return page;
}

// {"object": "list", "data": […], "first_id", "last_id", "has_more"} of what is newest first.
template <class T, class Body>
http::Answer page_answer(std::vector<T> all, const Page& page, Body body) {
  if (page.is_ascending) std::ranges::reverse(all);
  auto begin = all.begin();
  if (!page.after.empty()) {
    begin = std::ranges::find(all, page.after, &T::id);
    if (begin == all.end()) return error_answer(http_api::invalid_value("after", "after is the id of none of them"));
    ++begin;
  }
  const auto count = std::min(page.limit, static_cast<size_t>(all.end() - begin));
  std::string data, first = "null", last = "null";
  for (auto one = begin; one != begin + static_cast<std::ptrdiff_t>(count); ++one) {
    data += (data.empty() ? "" : ",") + body(*one);
    last = http_api::json_string(one->id);
    if (first == "null") first = last;
  }
  const bool has_more = begin + static_cast<std::ptrdiff_t>(count) != all.end();
  return json_answer("{\"object\":\"list\",\"data\":[" + data + "],\"first_id\":" + first + ",\"last_id\":" + last +
                     ",\"has_more\":" + (has_more ? "true" : "false") + "}");
}

// Sends a file piece by piece, as fast as its reader takes it.
class FileContent final : public std::enable_shared_from_this<FileContent> {
 public:
  FileContent(ExchangePtr exchange, int fd) : exchange_(std::move(exchange)), fd_(fd) {}
  ~FileContent() { close(fd_); }
  FileContent(const FileContent&) = delete;
  FileContent& operator=(const FileContent&) = delete;

  void start() {
    exchange_->on_drained([self = shared_from_this()] { self->send(); });
    exchange_->on_closed([self = shared_from_this()] { self->exchange_.reset(); });
    exchange_->begin_stream(200, {{"Content-Type", "application/binary"}});
    if (exchange_->request().method == "HEAD") {
      const ExchangePtr exchange = std::move(exchange_);
      return exchange->end();
    }
    send();
  }

 private:
  void send() {
    if (!exchange_) return;
    std::string piece(kPieceBytes, '\0');
    ssize_t got = 0;
    do {
      got = read(fd_, piece.data(), piece.size());
    } while (got < 0 && errno == EINTR);
    if (got > 0) return exchange_->write(std::string_view(piece).substr(0, static_cast<size_t>(got)));
    const ExchangePtr exchange = std::move(exchange_);
    if (got == 0) return exchange->end();
    exchange->abort();  // the reader sees that something is missing
  }

  ExchangePtr exchange_;
  int fd_;
};

// What the handlers of one service share.
struct Routes {
  GatewayParts parts;
  FileStore& files;
  BatchStore& batches;
  StoreThread& thread;
  int64_t keep_seconds;

  int64_t now() const { return parts.clock.wall_ms() / 1'000; }

  // Runs `make` on the thread of the store, and answers what it returns.
  template <class Make>
  void answer_from_store(const ExchangePtr& exchange, Make make) const {
    thread.post([&server = parts.server, exchange, make = std::move(make)]() mutable {
      http::Answer answer = server_error_answer(&exchange->request(), 500, "the folder of files fails");
      try {
        answer = make();
      } catch (const std::exception& error) {
        log_error("files_failed", {{"cause", error.what()}});
      }
      server.post([exchange, answer = std::move(answer)] { exchange->answer(answer); });
    });
  }

  std::optional<StoredFile> file_of(const Caller& caller, std::string_view id) const {
    std::optional<StoredFile> file = files.find(id, now());
    return file && caller.may_see(file->tenant) ? file : std::nullopt;
  }
  std::optional<BatchState> batch_of(const Caller& caller, std::string_view id) const {
    std::optional<BatchState> batch = batches.find(id);
    return batch && caller.may_see(batch->tenant) ? batch : std::nullopt;
  }

  void create_file(const ExchangePtr& exchange) const;
  void list_files(const ExchangePtr& exchange) const;
  void send_content(const ExchangePtr& exchange) const;
  void delete_file(const ExchangePtr& exchange) const;
  void create_batch(const ExchangePtr& exchange) const;
  void list_batches(const ExchangePtr& exchange) const;
  void cancel_batch(const ExchangePtr& exchange) const;
};

void Routes::create_file(const ExchangePtr& exchange) const {
  const auto upload = std::static_pointer_cast<FileUpload>(exchange->request().sink);
  Parsed<StoredFile> facts = upload->facts();
  if (!facts.ok()) return exchange->answer(error_answer(facts.error()));
  StoredFile file = std::move(facts).value();
  file.id = FileStore::new_id();
  file.tenant = caller_of(exchange->request()).tenant;
  file.created_at = now();
  if (file.expires_at != 0) file.expires_at += file.created_at;
  if (file.expires_at == 0 && keep_seconds > 0) file.expires_at = file.created_at + keep_seconds;
  answer_from_store(exchange, [&store = files, upload, file] {
    if (!upload->is_written()) return error_answer(http_api::unavailable("The file cannot be written."));
    if (Status room = store.check_room(file.bytes); !room.ok()) {
      return error_answer(http_api::invalid_value("file", room.refusal().message));
    }
    store.adopt(upload->partial(), file);
    upload->keep();
    return json_answer(file_body(file));
  });
}

void Routes::list_files(const ExchangePtr& exchange) const {
  Parsed<Page> page = parse_page(exchange->request(), kFilesPerPage, kFilesPerPage);
  if (!page.ok()) return exchange->answer(error_answer(page.error()));
  const std::string* purpose = exchange->request().query("purpose");
  answer_from_store(exchange, [self = *this, caller = caller_of(exchange->request()), page = page.value(),
                               purpose = purpose == nullptr ? "" : *purpose] {
    std::vector<StoredFile> all = self.files.list(self.now());
    std::erase_if(all, [&](const StoredFile& file) {
      return !caller.may_see(file.tenant) || (!purpose.empty() && file.purpose != purpose);
    });
    return page_answer(std::move(all), page, file_body);
  });
}

void Routes::send_content(const ExchangePtr& exchange) const {
  const std::string id(exchange->request().parameter("id"));
  thread.post([self = *this, exchange, id, caller = caller_of(exchange->request())] {
    const bool is_there = self.file_of(caller, id).has_value();
    const int fd = is_there ? open(self.files.content_path(id).c_str(), O_RDONLY | O_CLOEXEC) : -1;
    const auto content = fd >= 0 ? std::make_shared<FileContent>(exchange, fd) : nullptr;
    self.parts.server.post([exchange, content, id] {
      if (content) return content->start();
      exchange->answer(error_answer(unknown("file", id)));
    });
  });
}

void Routes::delete_file(const ExchangePtr& exchange) const {
  const std::string id(exchange->request().parameter("id"));
  answer_from_store(exchange, [self = *this, id, caller = caller_of(exchange->request())] {
    if (!self.file_of(caller, id) || !self.files.remove(id)) return error_answer(unknown("file", id));
    return json_answer("{\"id\":" + http_api::json_string(id) + ",\"object\":\"file\",\"deleted\":true}");
  });
}

void Routes::create_batch(const ExchangePtr& exchange) const {
  Parsed<BatchState> parsed = parse_batch(exchange->request().body);
  if (!parsed.ok()) return exchange->answer(error_answer(parsed.error()));
  BatchState state = std::move(parsed).value();
  state.id = BatchStore::new_id();
  state.tenant = caller_of(exchange->request()).tenant;
  state.created_at = now();
  state.expires_at = state.created_at + window_seconds(state.completion_window).value();
  exchange->request().note("batch", state.id);
  answer_from_store(exchange, [self = *this, state, caller = caller_of(exchange->request())] {
    const auto input = self.file_of(caller, state.input_file_id);
    if (!input || input->purpose != "batch") {
      return error_answer(http_api::invalid_value(
          "input_file_id", "input_file_id is the id of no file that was uploaded with the purpose 'batch'"));
    }
    self.batches.create(state);
    return json_answer(batch_body(state));
  });
}

void Routes::list_batches(const ExchangePtr& exchange) const {
  Parsed<Page> page = parse_page(exchange->request(), kBatchesByDefault, kBatchesPerPage);
  if (!page.ok()) return exchange->answer(error_answer(page.error()));
  answer_from_store(exchange, [self = *this, caller = caller_of(exchange->request()), page = page.value()] {
    std::vector<BatchState> states = self.batches.list();
    std::erase_if(states, [&](const BatchState& state) { return !caller.may_see(state.tenant); });
    return page_answer(std::move(states), page, batch_body);
  });
}

void Routes::cancel_batch(const ExchangePtr& exchange) const {
  const std::string id(exchange->request().parameter("id"));
  answer_from_store(exchange, [self = *this, id, caller = caller_of(exchange->request())] {
    const auto state = self.batch_of(caller, id);
    if (!state) return error_answer(unknown("batch", id));
    if (is_ended(state->status)) {
      http_api::ApiError error = http_api::invalid_value(
          "", "The batch has ended as " + std::string(batch_status_name(state->status)) + " and cannot be cancelled.");
      error.status = 409;
      error.should_retry = false;
      return error_answer(error);
    }
    self.batches.ask_to_cancel(id, self.now());
    return json_answer(batch_body(self.batches.find(id).value()));
  });
}

}  // namespace

BatchService::BatchService(const Options& options, BatchTexts texts, const Clock& clock)
    : files_(options.folder + "/files", options.bytes_max),
      batches_(options.folder + "/batches"),
      keep_seconds_(options.keep_seconds),
      worker_(files_, batches_, std::move(texts), options.keep_seconds, options.client, clock) {}

BatchService::~BatchService() { thread_->stop(); }

void BatchService::add_routes(const GatewayParts& parts) {
  http::Server& server = parts.server;
  const auto routes = std::make_shared<Routes>(Routes{parts, files_, batches_, *thread_, keep_seconds_});
  const auto to = [&](const char* method, const char* path, void (Routes::*handler)(const ExchangePtr&) const,
                      http::RouteLimits limits = {}) {
    server.route(
        method, path, [routes, handler](const ExchangePtr& exchange) { ((*routes).*handler)(exchange); },
        std::move(limits));
  };
  to("POST", "/v1/files", &Routes::create_file,
     {.body_bytes_max = kUploadBytesMax + kFormBytes,
      .body_sink =
          [this](const http::Request& request, std::function<void()> on_room) {
            return std::make_shared<FileUpload>(request.headers.get("Content-Type"), files_.new_partial(), thread_,
                                                std::move(on_room));
          },
      .request_timeout = kUploadTime});
  to("GET", "/v1/files", &Routes::list_files);
  to("GET", "/v1/files/{id}/content", &Routes::send_content);
  to("DELETE", "/v1/files/{id}", &Routes::delete_file);
  server.route("GET", "/v1/files/{id}", [routes](const ExchangePtr& exchange) {
    const std::string id(exchange->request().parameter("id"));
    routes->answer_from_store(exchange, [routes, id, caller = caller_of(exchange->request())] {
      const auto file = routes->file_of(caller, id);
      return file ? json_answer(file_body(*file)) : error_answer(unknown("file", id));
    });
  });
  to("POST", "/v1/batches", &Routes::create_batch);
  to("GET", "/v1/batches", &Routes::list_batches);
  to("POST", "/v1/batches/{id}/cancel", &Routes::cancel_batch);
  server.route("GET", "/v1/batches/{id}", [routes](const ExchangePtr& exchange) {
    const std::string id(exchange->request().parameter("id"));
    routes->answer_from_store(exchange, [routes, id, caller = caller_of(exchange->request())] {
      const auto batch = routes->batch_of(caller, id);
      return batch ? json_answer(batch_body(*batch)) : error_answer(unknown("batch", id));
    });
  });
}

void add_routes_without_batches(const GatewayParts& parts) {
  constexpr std::array<std::pair<const char*, const char*>, 9> kRoutes = {{{"POST", "/v1/files"},
                                                                           {"GET", "/v1/files"},
                                                                           {"GET", "/v1/files/{id}"},
                                                                           {"GET", "/v1/files/{id}/content"},
                                                                           {"DELETE", "/v1/files/{id}"},
                                                                           {"POST", "/v1/batches"},
                                                                           {"GET", "/v1/batches"},
                                                                           {"GET", "/v1/batches/{id}"},
                                                                           {"POST", "/v1/batches/{id}/cancel"}}};
  for (const auto& [method, path] : kRoutes) {
    parts.server.route(method, path, [](const ExchangePtr& exchange) {
      exchange->answer(error_answer({.status = 404,
                                     .message = "This gateway keeps no files and no batches: it was started without "
                                                "--files FOLDER.",
                                     .code = "files_not_kept"}));
    });
  }
}

}  // namespace optserve::gateway
