// Types that the blocking client (client.h) and the one with callbacks (async_client.h) share.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "base/limits.h"
#include "protocol/client_answers.h"

namespace optserve::client {

// Types of the protocol and of sampling that users of this library need, so that one namespace is enough for them.
using protocol::BackedUp;
using protocol::ControlAction;
using protocol::ControlScope;
using protocol::ConvertSpec;
using protocol::GroupStatus;
using protocol::Hypothesis;
using protocol::JobAttempt;
using protocol::JobEvent;
using protocol::JobFilter;
using protocol::JobKind;
using protocol::JobList;
using protocol::JobResult;
using protocol::JobSpec;
using protocol::JobState;
using protocol::JobSummary;
using protocol::ModelStatus;
using protocol::OnDisconnect;
using protocol::QueueMode;
using protocol::ServiceStatus;
using protocol::SubmitOutcome;
using protocol::SystemStatus;
using sampling::FinishReason;
using sampling::SamplingParams;
using sampling::SamplingProfile;
using sampling::TokenRules;

struct ClientOptions {
  std::string endpoints = "tcp://127.0.0.1:5555";  // of all schedulers, separated by commas
  std::chrono::milliseconds timeout{10'000};       // of one call, retries included
  std::chrono::milliseconds retry_first{250};      // doubles up to retry_max, with full jitter
  std::chrono::milliseconds retry_max{8'000};
  // Whether calls ask again while the scheduler is busy or its disk is full. A program whose own callers can retry
  // later sets this to false; SubmitOutcome::retry_after_ms then says when to retry.
  bool waits_while_busy = true;
  // The maximum number of bytes of stream content that a scheduler sends ahead of the callbacks. The default is also
  // the maximum.
  uint64_t window_bytes = limits::kStreamWindowMax;
  // Keys (docs/security.md). The secret key of this program, or the name of its file, which is read again for each new
  // connection. Empty: the value of the variable OPTSERVE_SECRET_KEY, if it is set.
  std::string secret_key{};
  // Public keys of the schedulers, or names of files with them, separated by commas; each connection finds the right
  // one. Empty: the value of the variable OPTSERVE_SERVER_KEY.
  std::string server_keys{};
  bool insecure = false;  // allows connections to other machines without keys
};

// Receives a job's output while it runs. The callbacks run on the client's thread, possibly before submit() returns.
// They must not call the client, and must not block for long, because that delays all streams of this client. A
// JobStream without callbacks means that no stream is wanted.
struct JobStream {
  std::function<void(std::string_view piece, const protocol::JobEvent& event)> on_text{};  // `piece` is never empty
  // The state, position in the queue, expected wait, tokens or progress has changed. Called before on_text of the same
  // event.
  std::function<void(const protocol::JobEvent& event)> on_progress{};
  // The text delivered so far is no longer the job's text: after a restart of the scheduler it was computed again, on a
  // device whose numbers depend on what else it computes, and came out differently. on_text begins again with the first
  // byte.
  std::function<void(const JobId& job)> on_restarted{};
  std::function<void(const protocol::JobResult& result)> on_finished{};  // called once, last
  // Called once instead of on_finished if the job cannot be followed: the scheduler does not know it, the job has its
  // maximum number of followers, or the Client is destroyed.
  std::function<void(const JobId& job, const Refusal& why)> on_lost{};

  bool is_wanted() const { return on_text || on_progress || on_finished || on_lost; }
};

// The answer of each scheduler, in the order of ClientOptions::endpoints. An unreachable scheduler has kUnavailable;
// the call does not wait for it once another scheduler has answered.
template <class T>
struct SchedulerAnswer {
  std::string endpoint;
  Result<T> answer;
};
template <class T>
using Answers = std::vector<SchedulerAnswer<T>>;

// Where a list of jobs continues: for each endpoint, JobSummary::order of the last job that was received. Only these
// schedulers are asked. Empty: all schedulers are asked, from the start.
using ListPosition = std::map<std::string, uint64_t>;
enum class ListOrder : uint8_t { kOldestFirst, kNewestFirst };

// A stream of one job to this client, until the job ends or the stream is given up.
struct Follow {
  size_t scheduler = 0;  // index in ClientOptions::endpoints
  uint64_t id = 0;
};

// What became of a call to submit().
struct Submission {
  Result<std::vector<protocol::SubmitOutcome>> outcomes;  // one for each job; a refusal if no scheduler answered
  std::vector<Follow> follows;                            // the streams of the accepted jobs
};

}  // namespace optserve::client
