#include "client/client.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <csignal>
#include <future>
#include <mutex>
#include <random>
#include <thread>

#include "base/limits.h"
#include "base/log.h"
#include "client/scheduler_choice.h"
#include "client/scheduler_set.h"
#include "transport/service_loop.h"

namespace optserve::client {
namespace {

using protocol::JobResult;
using protocol::Message;

SessionOptions session_options(const ClientOptions& options) {
  SessionOptions session;
  session.retry_first = options.retry_first;
  session.retry_max = options.retry_max;
  session.window_bytes = options.window_bytes;
  session.seed = std::random_device{}();
  return session;
}

std::vector<std::string> endpoints_of(const ClientOptions& options) {
  auto endpoints = split_endpoints(options.endpoints);
  if (!endpoints.ok()) throw Error(endpoints.refusal().message);
  return std::move(endpoints).value();
}

transport::PortOptions port_options() {
  transport::PortOptions options;
  options.send_bytes_max = limits::kClientMessageBytesMax;
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

// The answers added up, or what the first scheduler without one said.
template <class T>
Result<T> sum(Answers<T> answers, const std::function<void(T& total, const T& part)>& add) {
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

struct Client::Impl {
  using Command = std::function<void(const Turn&)>;
  explicit Impl(const ClientOptions& client_options);
  ~Impl();

  void run();
  void run_commands(const Turn& turn);
  void wait_for_command() const;
  void clear_wake() const;
  void post(Command command);
  Instant deadline() const { return clock.now() + options.timeout; }

  // Runs `start(turn, give)` on the client's thread and waits until `give` was called with the answer, which the
  // schedulers' sessions do at the deadline at the latest.
  template <class T>
  T ask(std::function<void(const Turn&, std::function<void(T)>)> start);
  Result<JobResult> ask_job(const JobId& job, Message about_job, Instant until);
  Result<JobResult> ask_job(const JobId& job, Message about_job) {
    return ask_job(job, std::move(about_job), deadline());
  }
  Answers<Message> ask_all(SchedulerSet::MessageFor message_for, Instant until);
  template <class T>
  Answers<T> ask_all(Message message) {
    return expect_each<T>(ask_all([message](const std::string&) { return message; }, deadline()));
  }
  SchedulerSet::Submission submit(std::vector<protocol::JobSpec> jobs, JobStream stream);
  Result<SchedulerSet::FollowId> attach(const JobId& job, uint64_t text_offset, JobStream stream);
  // Once it returns, nothing is delivered to these streams any more.
  void unfollow(std::vector<SchedulerSet::FollowId> ids);

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

Client::Impl::Impl(const ClientOptions& client_options)
    : options(client_options),
      schedulers(endpoints_of(options), session_options(options)),
      loop(schedulers, clock, metrics),
      wake_fd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (wake_fd < 0) throw errno_error("eventfd");
  try {
    for (const std::string& endpoint : endpoints_of(options)) loop.connect(endpoint, port_options());
  } catch (...) {
    close(wake_fd);
    throw;
  }
  loop.watch(wake_fd, [this](Instant now, transport::Outbox& out) {
    clear_wake();
    run_commands({now, out});
  });
  sigset_t all, before;  // the thread inherits the mask: signals stay with the program's own threads
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Client::Impl::~Impl() {
  {
    const std::lock_guard lock(mutex);
    stopping = true;
  }
  post([](const Turn&) {});
  thread.join();
  close(wake_fd);
}

void Client::Impl::run() {
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
  // Commands still come in after a failure; each finds its answer at once.
  for (bool wait = false;;) {
    if (wait) wait_for_command();
    run_commands(last);
    schedulers.close(why, last);
    const std::lock_guard lock(mutex);
    if (stopping && commands.empty()) return;
    wait = !stopping;
  }
}

void Client::Impl::run_commands(const Turn& turn) {
  std::vector<Command> taken;
  {
    const std::lock_guard lock(mutex);
    taken = std::exchange(commands, {});
  }
  for (const Command& command : taken) command(turn);
}

void Client::Impl::clear_wake() const {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t ignored = read(wake_fd, &count, sizeof count);
}

void Client::Impl::wait_for_command() const {
  pollfd item{wake_fd, POLLIN, 0};
  poll(&item, 1, -1);
  clear_wake();
}

void Client::Impl::post(Command command) {
  {
    const std::lock_guard lock(mutex);
    commands.push_back(std::move(command));
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t ignored = write(wake_fd, &one, sizeof one);
}

template <class T>
T Client::Impl::ask(std::function<void(const Turn&, std::function<void(T)>)> start) {
  check(std::this_thread::get_id() != thread.get_id(), "a stream's callback called its Client");
  auto promise = std::make_shared<std::promise<T>>();
  auto future = promise->get_future();
  post([start = std::move(start), promise](const Turn& turn) mutable {
    start(turn, [promise](T answer) { promise->set_value(std::move(answer)); });
  });
  return future.get();
}

SchedulerSet::Submission Client::Impl::submit(std::vector<protocol::JobSpec> jobs, JobStream stream) {
  return ask<SchedulerSet::Submission>([this, jobs = std::move(jobs), stream = std::move(stream), until = deadline()](
                                           const Turn& turn, auto give) mutable {
    schedulers.submit(std::move(jobs), std::move(stream), until, turn, give);
  });
}

Result<SchedulerSet::FollowId> Client::Impl::attach(const JobId& job, uint64_t text_offset, JobStream stream) {
  return ask<Result<SchedulerSet::FollowId>>(
      [this, job, text_offset, stream = std::move(stream), until = deadline()](const Turn& turn, auto give) {
        schedulers.attach(job, text_offset, stream, until, turn,
                          [give](auto attached, const Turn&) { give(std::move(attached)); });
      });
}

void Client::Impl::unfollow(std::vector<SchedulerSet::FollowId> ids) {
  ask<bool>([this, ids = std::move(ids)](const Turn&, auto give) {
    for (const auto& id : ids) schedulers.unfollow(id);
    give(true);
  });
}

Result<JobResult> Client::Impl::ask_job(const JobId& job, Message about_job, Instant until) {
  return ask<Result<JobResult>>([this, job, about_job = std::move(about_job), until](const Turn& turn, auto give) {
    schedulers.ask_job(job, about_job, until, turn, [give](auto answer, const Turn&) { give(std::move(answer)); });
  });
}

Answers<Message> Client::Impl::ask_all(SchedulerSet::MessageFor message_for, Instant until) {
  return ask<Answers<Message>>([this, message_for = std::move(message_for), until](const Turn& turn, auto give) {
    schedulers.ask_all(message_for, until, turn, give);
  });
}

Client::Client(const ClientOptions& options) : impl_(std::make_unique<Impl>(options)) {}
Client::~Client() = default;

Result<std::vector<protocol::SubmitOutcome>> Client::submit(std::vector<protocol::JobSpec> jobs, JobStream stream) {
  return impl_->submit(std::move(jobs), std::move(stream)).outcomes;
}

Status Client::attach(const JobId& job, uint64_t text_offset, JobStream stream) {
  const auto attached = impl_->attach(job, text_offset, std::move(stream));
  return attached.ok() ? ok_status() : Status(attached.refusal());
}

Result<JobResult> Client::generate(protocol::JobSpec job, std::function<void(std::string_view piece)> on_text) {
  const auto ended = std::make_shared<std::promise<Result<JobResult>>>();
  auto future = ended->get_future();
  const milliseconds life(job.delay_ms + job.ttl_ms);
  JobStream stream;
  if (on_text) stream.on_text = [on_text](std::string_view piece, const protocol::JobEvent&) { on_text(piece); };
  stream.on_finished = [ended](const JobResult& result) { ended->set_value(result); };
  stream.on_lost = [ended](const Refusal& why) { ended->set_value(why); };
  const auto submission = impl_->submit({std::move(job)}, std::move(stream));
  if (!submission.outcomes.ok()) return submission.outcomes.refusal();
  const protocol::SubmitOutcome& outcome = submission.outcomes.value().at(0);
  if (!outcome.job) return refuse(outcome.error.value_or(ErrorCode::kInternal), outcome.message);
  if (future.wait_for(life + impl_->options.timeout) == std::future_status::ready) return future.get();
  impl_->unfollow(submission.follows);
  return refuse(ErrorCode::kUnavailable, "job " + outcome.job->hex() + ": no result within its time to live");
}

Result<JobResult> Client::cancel(const JobId& job) { return impl_->ask_job(job, protocol::Cancel{0, job}); }

Result<JobResult> Client::cancel(const JobId& job, std::chrono::milliseconds within) {
  return impl_->ask_job(job, protocol::Cancel{0, job}, impl_->clock.now() + within);
}

std::chrono::milliseconds Client::unreachable_for(const JobId& job) {
  return impl_->ask<std::chrono::milliseconds>([this, job](const Turn& turn, auto give) {
    give(std::chrono::duration_cast<milliseconds>(impl_->schedulers.unreachable_for(job, turn.now)));
  });
}

Result<JobResult> Client::get(const JobId& job) { return impl_->ask_job(job, protocol::GetJob{0, job}); }

Result<JobResult> Client::requeue(const JobId& job) { return impl_->ask_job(job, protocol::Requeue{0, job}); }

Result<JobResult> Client::wait(const JobId& job, std::chrono::milliseconds wait) {
  const Instant until = impl_->clock.now() + wait;
  auto state = get(job);
  if (!state.ok() || protocol::is_terminal(state.value().state)) return state;
  const auto ended = std::make_shared<std::promise<Result<JobResult>>>();
  auto future = ended->get_future();
  JobStream stream;
  stream.on_finished = [ended](const JobResult& result) { ended->set_value(result); };
  stream.on_lost = [ended](const Refusal& why) { ended->set_value(why); };
  const auto follow = impl_->attach(job, 0, std::move(stream));
  if (!follow.ok()) return follow.refusal();
  if (future.wait_until(until) == std::future_status::ready) return future.get();
  impl_->unfollow({follow.value()});
  return get(job);
}

Result<protocol::GroupStatus> Client::group(const std::string& tenant, const std::string& group) {
  return sum<protocol::GroupStatus>(impl_->ask_all<protocol::GroupStatus>(protocol::GetGroup{0, tenant, group, false}),
                                    add_group);
}

Result<protocol::GroupStatus> Client::cancel_group(const std::string& tenant, const std::string& group) {
  return sum<protocol::GroupStatus>(impl_->ask_all<protocol::GroupStatus>(protocol::GetGroup{0, tenant, group, true}),
                                    add_group);
}

Answers<protocol::SystemStatus> Client::status() {
  return impl_->ask_all<protocol::SystemStatus>(protocol::GetStatus{});
}

Answers<protocol::SystemStatus> Client::control(protocol::ControlAction action, protocol::ControlScope scope,
                                                const std::string& name) {
  return impl_->ask_all<protocol::SystemStatus>(protocol::Control{0, action, scope, name});
}

Answers<protocol::JobList> Client::list(const protocol::JobFilter& filter, uint32_t limit, const ListPosition& after) {
  const auto message_for = [=](const std::string& endpoint) -> std::optional<Message> {
    const auto found = after.find(endpoint);
    if (found == after.end() && !after.empty()) return std::nullopt;
    return protocol::ListJobs{0, filter, found == after.end() ? 0 : found->second, limit};
  };
  return expect_each<protocol::JobList>(impl_->ask_all(message_for, impl_->deadline()));
}

Result<int64_t> Client::purge(const protocol::JobFilter& filter) {
  auto purged = sum<protocol::Purged>(impl_->ask_all<protocol::Purged>(protocol::Purge{0, filter}),
                                      [](auto& total, const auto& part) { total.jobs += part.jobs; });
  if (!purged.ok()) return purged.refusal();
  return purged.value().jobs;
}

Answers<protocol::BackedUp> Client::backup(std::chrono::milliseconds wait) {
  const auto message_for = [](const std::string&) { return protocol::Backup{}; };
  return expect_each<protocol::BackedUp>(impl_->ask_all(message_for, impl_->clock.now() + wait));
}

}  // namespace optserve::client
