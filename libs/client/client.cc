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
#include "client/client_session.h"
#include "transport/service_loop.h"

namespace optserve {
namespace {

using client::ClientSession;
using client::Turn;
using protocol::JobResult;
using protocol::Message;

client::SessionOptions session_options(const ClientOptions& options) {
  client::SessionOptions session;
  session.endpoint = options.endpoint;
  session.retry_first = options.retry_first;
  session.retry_max = options.retry_max;
  session.seed = std::random_device{}();
  return session;
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

Result<JobResult> job_result(Result<Message> answer) {
  auto status = expect<protocol::JobStatus>(std::move(answer));
  if (!status.ok()) return status.refusal();
  return std::move(status.value().result);
}

}  // namespace

struct Client::Impl {
  using Command = std::function<void(const Turn&)>;
  struct Submission {
    Result<std::vector<protocol::SubmitOutcome>> outcomes;
    std::vector<ClientSession::FollowId> follows;
  };

  explicit Impl(const ClientOptions& client_options);
  ~Impl();

  void run();
  void run_commands(const Turn& turn);
  void wait_for_command() const;
  void clear_wake() const;
  void post(Command command);
  Instant deadline() const { return clock.now() + options.timeout; }

  // Runs `start(turn, give)` on the client's thread and waits until `give` was called with the answer, which the
  // session does at the deadline at the latest.
  template <class T>
  T ask(std::function<void(const Turn&, std::function<void(T)>)> start);
  Result<Message> request(Message message);
  Submission submit(std::vector<protocol::JobSpec> jobs, JobStream stream);
  // Once it returns, nothing is delivered to these streams any more.
  void unfollow(std::vector<ClientSession::FollowId> ids);

  ClientOptions options;
  SystemClock clock;
  Registry metrics;
  ClientSession session;
  transport::ServiceLoop loop;
  int wake_fd;
  std::mutex mutex;
  std::vector<Command> commands;  // guarded by mutex
  bool stopping = false;          // guarded by mutex
  std::thread thread;
};

Client::Impl::Impl(const ClientOptions& client_options)
    : options(client_options),
      session(session_options(options)),
      loop(session, clock, metrics),
      wake_fd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (wake_fd < 0) throw errno_error("eventfd");
  try {
    loop.connect(options.endpoint, port_options());
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
    log_error("client_failed", {{"endpoint", options.endpoint}, {"why", error.what()}});
    why = refuse(ErrorCode::kInternal, error.what());
  }
  transport::Outbox nowhere;
  const Turn last{clock.now(), nowhere};
  // Commands still come in after a failure; each finds its answer at once.
  for (bool wait = false;;) {
    if (wait) wait_for_command();
    run_commands(last);
    session.close(why, last);
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

Client::Impl::Submission Client::Impl::submit(std::vector<protocol::JobSpec> jobs, JobStream stream) {
  return ask<Submission>([this, jobs = std::move(jobs), stream = std::move(stream), until = deadline()](
                             const Turn& turn, auto give) mutable {
    session.submit(std::move(jobs), std::move(stream), until, turn, [give](auto outcomes, auto follows) {
      give({std::move(outcomes), std::move(follows)});
    });
  });
}

void Client::Impl::unfollow(std::vector<ClientSession::FollowId> ids) {
  ask<bool>([this, ids = std::move(ids)](const Turn&, auto give) {
    for (const auto id : ids) session.unfollow(id);
    give(true);
  });
}

Result<Message> Client::Impl::request(Message message) {
  return ask<Result<Message>>([this, message = std::move(message), until = deadline()](const Turn& turn, auto give) {
    session.call(message, until, turn, [give](Result<Message> answer, const Turn&) { give(std::move(answer)); });
  });
}

Client::Client(const ClientOptions& options) : impl_(std::make_unique<Impl>(options)) {}
Client::~Client() = default;

Result<std::vector<protocol::SubmitOutcome>> Client::submit(std::vector<protocol::JobSpec> jobs, JobStream stream) {
  return impl_->submit(std::move(jobs), std::move(stream)).outcomes;
}

Status Client::attach(const JobId& job, uint64_t text_offset, JobStream stream) {
  auto& impl = *impl_;
  return impl.ask<Status>(
      [&impl, job, text_offset, stream = std::move(stream), until = impl.deadline()](const Turn& turn, auto give) {
        // Attach itself is not answered while the job runs; this tells whether the job is known.
        impl.session.call(protocol::GetJob{0, job}, until, turn, [=, &impl](Result<Message> answer, const Turn& then) {
          auto known = job_result(std::move(answer));
          if (known.ok()) impl.session.follow(job, text_offset, stream, then);
          give(known.ok() ? ok_status() : Status(known.refusal()));
        });
      });
}

Result<JobResult> Client::generate(protocol::JobSpec job, std::function<void(std::string_view piece)> on_text) {
  const auto ended = std::make_shared<std::promise<Result<JobResult>>>();
  auto future = ended->get_future();
  const milliseconds ttl(job.ttl_ms);
  JobStream stream;
  if (on_text) stream.on_text = [on_text](std::string_view piece, const protocol::JobEvent&) { on_text(piece); };
  stream.on_finished = [ended](const JobResult& result) { ended->set_value(result); };
  stream.on_lost = [ended](const Refusal& why) { ended->set_value(why); };
  const auto submission = impl_->submit({std::move(job)}, std::move(stream));
  if (!submission.outcomes.ok()) return submission.outcomes.refusal();
  const protocol::SubmitOutcome& outcome = submission.outcomes.value().at(0);
  if (!outcome.job) return refuse(outcome.error.value_or(ErrorCode::kInternal), outcome.message);
  if (future.wait_for(ttl + impl_->options.timeout) == std::future_status::ready) return future.get();
  impl_->unfollow(submission.follows);
  return refuse(ErrorCode::kUnavailable, "job " + outcome.job->hex() + ": no result within its time to live");
}

Result<JobResult> Client::cancel(const JobId& job) { return job_result(impl_->request(protocol::Cancel{0, job})); }

Result<JobResult> Client::get(const JobId& job) { return job_result(impl_->request(protocol::GetJob{0, job})); }

Result<JobResult> Client::wait(const JobId& job, std::chrono::milliseconds wait) {
  const Instant until = impl_->clock.now() + wait;
  auto state = get(job);
  if (!state.ok() || protocol::is_terminal(state.value().state)) return state;
  auto& impl = *impl_;
  const auto ended = std::make_shared<std::promise<Result<JobResult>>>();
  auto future = ended->get_future();
  const auto id = impl.ask<ClientSession::FollowId>([&impl, job, ended](const Turn& turn, auto give) {
    JobStream stream;
    stream.on_finished = [ended](const JobResult& result) { ended->set_value(result); };
    stream.on_lost = [ended](const Refusal& why) { ended->set_value(why); };
    give(impl.session.follow(job, 0, std::move(stream), turn));
  });
  if (future.wait_until(until) == std::future_status::ready) return future.get();
  impl.unfollow({id});
  return get(job);
}

Result<protocol::SystemStatus> Client::status() {
  return expect<protocol::SystemStatus>(impl_->request(protocol::GetStatus{}));
}

}  // namespace optserve
