#include "client/async_client.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <csignal>
#include <mutex>
#include <random>
#include <thread>

#include "base/comma_list.h"
#include "base/limits.h"
#include "base/log.h"
#include "client/scheduler_choice.h"
#include "client/scheduler_set.h"
#include "keys/process_keys.h"
#include "transport/service_loop.h"

namespace optserve::client {
namespace {

using protocol::JobResult;
using protocol::Message;

SessionOptions session_options(const ClientOptions& options) {
  SessionOptions session;
  session.retry_first = options.retry_first;
  session.retry_max = options.retry_max;
  session.waits_while_busy = options.waits_while_busy;
  session.window_bytes = options.window_bytes;
  session.seed = std::random_device{}();
  return session;
}

std::vector<std::string> endpoints_of(const ClientOptions& options) {
  auto endpoints = split_endpoints(options.endpoints);
  if (!endpoints.ok()) throw Error(endpoints.refusal().message);
  return std::move(endpoints).value();
}

transport::PortOptions port_options(const ClientOptions& given) {
  transport::PortOptions options;
  options.send_bytes_max = limits::kClientMessageBytesMax;
  options.is_insecure = given.insecure;
  auto keys = keys::ClientKeys::load_or_variables(given.secret_key, split_at_commas(given.server_keys));
  if (!keys.ok()) throw Error(keys.refusal().message);
  options.client_keys = std::move(keys).value();
  return options;
}

template <class T>
Result<T> expect(Result<Message> answer) {
  if (!answer.ok()) return answer.refusal();
  if (auto* body = std::get_if<T>(&answer.value())) return std::move(*body);
  return refuse(ErrorCode::kDataCorrupt,
                "the scheduler answered with " + std::string(protocol::message_name(answer.value())));
}

template <class T>
Answers<T> expect_each(Answers<Message> answers) {
  Answers<T> typed;
  for (auto& [endpoint, answer] : answers) typed.push_back({endpoint, expect<T>(std::move(answer))});
  return typed;
}

// The sum of the answers, or the refusal of the first scheduler that did not answer.
template <class T, class Add>
Result<T> sum(Answers<T> answers, Add add) {
  T total;
  for (const auto& [endpoint, answer] : answers) {
    if (!answer.ok()) return refuse(answer.refusal().code, endpoint + ": " + answer.refusal().message);
    add(total, answer.value());
  }
  return total;
}

void add_group(protocol::GroupStatus& total, const protocol::GroupStatus& part) {
  total.open += part.open;
  total.succeeded += part.succeeded;
  total.failed += part.failed;
  total.cancelled += part.cancelled;
  total.expired += part.expired;
  total.dead += part.dead;
}

}  // namespace

struct [[gnu::visibility("hidden")]] AsyncClient::Impl {
  using Command = std::function<void(const Turn&)>;
  explicit Impl(const ClientOptions& client_options);
  ~Impl();

  void run();
  void run_commands(const Turn& turn);
  void wait_for_command() const;
  void clear_wake() const;
  void post(Command command);
  Instant deadline() const { return clock.now() + options.timeout; }

  void ask_job(const JobId& job, Message about_job, Instant until, Done<Result<JobResult>> done);
  template <class T>
  void ask_all(SchedulerSet::MessageFor message_for, Instant until, Done<Answers<T>> done);
  template <class T>
  void ask_all(Message message, Done<Answers<T>> done) {
    ask_all<T>([message = std::move(message)](const std::string&) { return message; }, deadline(), std::move(done));
  }

  ClientOptions options;
  SystemClock clock;
  metrics::Registry metrics;
  SchedulerSet schedulers;
  transport::ServiceLoop loop;
  int wake_fd;
  std::mutex mutex;
  std::vector<Command> commands;  // guarded by mutex
  bool stopping = false;          // guarded by mutex
  std::thread thread;
};

AsyncClient::Impl::Impl(const ClientOptions& client_options)
    : options(client_options),
      schedulers(endpoints_of(options), session_options(options)),
      loop(schedulers, clock, metrics),
      wake_fd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (wake_fd < 0) throw errno_error("eventfd");
  try {
    const transport::PortOptions port = port_options(options);
    for (const std::string& endpoint : endpoints_of(options)) loop.connect(endpoint, port);
  } catch (...) {
    close(wake_fd);
    throw;
  }
  loop.watch(wake_fd, [this](Instant now, transport::Outbox& out) {
    clear_wake();
    run_commands({now, out});
  });
  sigset_t all, before;  // the thread inherits the mask, so signals go to the program's own threads
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

AsyncClient::Impl::~Impl() {
  {
    const std::lock_guard lock(mutex);
    stopping = true;
  }
  post([](const Turn&) {});
  thread.join();
  close(wake_fd);
}

void AsyncClient::Impl::run() {
  Refusal why = refuse(ErrorCode::kCancelled, "the client was closed");
  try {
    while (true) {
      loop.turn(seconds(1));
      const std::lock_guard lock(mutex);
      if (stopping) break;
    }
  } catch (const Error& error) {
    log_error("client_failed", {{"endpoints", options.endpoints}, {"why", error.what()}});
    why = refuse(ErrorCode::kInternal, error.what());
  }
  transport::Outbox nowhere;
  const Turn last{clock.now(), nowhere};
  // Commands that come in after a failure are answered at once.
  for (bool wait = false;;) {
    if (wait) wait_for_command();
    run_commands(last);
    schedulers.close(why, last);
    const std::lock_guard lock(mutex);
    if (stopping && commands.empty()) return;
    wait = !stopping;
  }
}

void AsyncClient::Impl::run_commands(const Turn& turn) {
  std::vector<Command> taken;
  {
    const std::lock_guard lock(mutex);
    taken = std::exchange(commands, {});
  }
  for (const Command& command : taken) command(turn);
}

void AsyncClient::Impl::clear_wake() const {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t ignored = read(wake_fd, &count, sizeof count);
}

void AsyncClient::Impl::wait_for_command() const {
  pollfd item{wake_fd, POLLIN, 0};
  poll(&item, 1, -1);
  clear_wake();
}

void AsyncClient::Impl::post(Command command) {
  {
    const std::lock_guard lock(mutex);
    commands.push_back(std::move(command));
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t ignored = write(wake_fd, &one, sizeof one);
}

// Commands that come in after a failure of the loop are answered by the closed sessions.
void AsyncClient::Impl::ask_job(const JobId& job, Message about_job, Instant until, Done<Result<JobResult>> done) {
  post([this, job, about_job = std::move(about_job), until, done = std::move(done)](const Turn& turn) {
    schedulers.ask_job(job, about_job, until, turn, [done](auto answer, const Turn&) { done(std::move(answer)); });
  });
}

template <class T>
void AsyncClient::Impl::ask_all(SchedulerSet::MessageFor message_for, Instant until, Done<Answers<T>> done) {
  post([this, message_for = std::move(message_for), until, done = std::move(done)](const Turn& turn) {
    schedulers.ask_all(message_for, until, turn,
                       [done](Answers<Message> answers) { done(expect_each<T>(std::move(answers))); });
  });
}

AsyncClient::AsyncClient(const ClientOptions& options) : impl_(std::make_unique<Impl>(options)) {}
AsyncClient::~AsyncClient() = default;

const ClientOptions& AsyncClient::options() const { return impl_->options; }

const Clock& AsyncClient::clock() const { return impl_->clock; }

bool AsyncClient::is_own_thread() const { return std::this_thread::get_id() == impl_->thread.get_id(); }

void AsyncClient::submit(std::vector<protocol::JobSpec> jobs, JobStream stream, Done<Submission> done) {
  impl_->post([impl = impl_.get(), jobs = std::move(jobs), stream = std::move(stream), until = impl_->deadline(),
               done = std::move(done)](const Turn& turn) mutable {
    impl->schedulers.submit(std::move(jobs), std::move(stream), until, turn, std::move(done));
  });
}

void AsyncClient::attach(const JobId& job, uint64_t text_offset, JobStream stream, Done<Result<Follow>> done) {
  impl_->post([impl = impl_.get(), job, text_offset, stream = std::move(stream), until = impl_->deadline(),
               done = std::move(done)](const Turn& turn) {
    impl->schedulers.attach(job, text_offset, stream, until, turn,
                            [done](auto attached, const Turn&) { done(std::move(attached)); });
  });
}

void AsyncClient::unfollow(std::vector<Follow> follows, std::function<void()> done) {
  impl_->post([impl = impl_.get(), follows = std::move(follows), done = std::move(done)](const Turn&) {
    for (const Follow& follow : follows) impl->schedulers.unfollow(follow);
    if (done) done();
  });
}

void AsyncClient::cancel(const JobId& job, Done<Result<JobResult>> done,
                         std::optional<std::chrono::milliseconds> within) {
  const Instant until = impl_->clock.now() + within.value_or(impl_->options.timeout);
  impl_->ask_job(job, protocol::Cancel{0, job}, until, std::move(done));
}

void AsyncClient::get(const JobId& job, Done<Result<JobResult>> done) {
  impl_->ask_job(job, protocol::GetJob{0, job}, impl_->deadline(), std::move(done));
}

void AsyncClient::requeue(const JobId& job, Done<Result<JobResult>> done) {
  impl_->ask_job(job, protocol::Requeue{0, job}, impl_->deadline(), std::move(done));
}

void AsyncClient::group(const std::string& tenant, const std::string& group, bool cancel,
                        Done<Result<protocol::GroupStatus>> done) {
  impl_->ask_all<protocol::GroupStatus>(
      protocol::GetGroup{0, tenant, group, cancel},
      [done = std::move(done)](Answers<protocol::GroupStatus> parts) { done(sum(std::move(parts), add_group)); });
}

void AsyncClient::unreachable_for(const JobId& job, Done<std::chrono::milliseconds> done) {
  impl_->post([impl = impl_.get(), job, done = std::move(done)](const Turn& turn) {
    done(std::chrono::duration_cast<milliseconds>(impl->schedulers.unreachable_for(job, turn.now)));
  });
}

void AsyncClient::status(Done<Answers<protocol::SystemStatus>> done, std::optional<std::chrono::milliseconds> within) {
  const Instant until = impl_->clock.now() + within.value_or(impl_->options.timeout);
  const auto message_for = [](const std::string&) { return protocol::GetStatus{}; };
  impl_->ask_all<protocol::SystemStatus>(message_for, until, std::move(done));
}

void AsyncClient::control(protocol::ControlAction action, protocol::ControlScope scope, const std::string& name,
                          Done<Answers<protocol::SystemStatus>> done) {
  impl_->ask_all<protocol::SystemStatus>(protocol::Control{0, action, scope, name}, std::move(done));
}

void AsyncClient::list(const protocol::JobFilter& filter, uint32_t limit, const ListPosition& after,
                       Done<Answers<protocol::JobList>> done, ListOrder order) {
  const auto message_for = [=](const std::string& endpoint) -> std::optional<Message> {
    const auto found = after.find(endpoint);
    if (found == after.end() && !after.empty()) return std::nullopt;
    return protocol::ListJobs{0, filter, found == after.end() ? 0 : found->second, limit,
                              order == ListOrder::kNewestFirst};
  };
  impl_->ask_all<protocol::JobList>(message_for, impl_->deadline(), std::move(done));
}

void AsyncClient::purge(const protocol::JobFilter& filter, Done<Result<int64_t>> done) {
  impl_->ask_all<protocol::Purged>(
      protocol::Purge{0, filter}, [done = std::move(done)](Answers<protocol::Purged> parts) {
        const auto purged = sum(std::move(parts),
                                [](protocol::Purged& total, const protocol::Purged& part) { total.jobs += part.jobs; });
        done(purged.ok() ? Result<int64_t>(purged.value().jobs) : Result<int64_t>(purged.refusal()));
      });
}

void AsyncClient::backup(std::chrono::milliseconds wait, Done<Answers<protocol::BackedUp>> done) {
  const auto message_for = [](const std::string&) { return protocol::Backup{}; };
  impl_->ask_all<protocol::BackedUp>(message_for, impl_->clock.now() + wait, std::move(done));
}

}  // namespace optserve::client
