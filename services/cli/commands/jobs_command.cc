#include <algorithm>
#include <cstdio>

#include "cli/commands/command.h"
#include "cli/commands/connection.h"
#include "cli/text/operator_text.h"
#include "cli/text/result_text.h"

namespace optserve::cli {
namespace {

constexpr int kListedByDefault = 100;
constexpr int kListedMax = 1'000'000;

// Which jobs an operator means.
struct FilterOptions {
  std::string state;
  std::string tenant;
  std::string model;
  std::string group;
};

void add_owner_options(ConfigParser& parser, FilterOptions& options) {
  parser.add("tenant", options.tenant, "Only jobs of this tenant");
  parser.add("model", options.model, "Only jobs of this model");
  parser.add("group", options.group, "Only jobs of this group");
}

void add_options(ConfigParser& parser, FilterOptions& options) {
  std::vector<std::string_view> states;
  for (const protocol::JobState state : kJobStates) states.push_back(protocol::job_state_name(state));
  parser.add("state", options.state, "Only jobs in this state").choices(states);
  add_owner_options(parser, options);
}

protocol::JobFilter make_filter(const FilterOptions& options) {
  protocol::JobFilter filter;
  if (!options.state.empty()) filter.state = parse_job_state(options.state);
  if (!options.tenant.empty()) filter.tenant = options.tenant;
  filter.model = options.model;
  filter.group = options.group;
  return filter;
}

// The options that `list` and `dead` share.
struct ListOptions {
  FilterOptions filter;
  int limit = kListedByDefault;
};

class JobsCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command =
        parser.add_command("jobs", "List and show jobs, requeue dead ones, delete ended ones", selected);
    ConfigParser& list = declare_part(command, "list", "List jobs in the order in which they were accepted", list_);
    add_options(list, list_options_.filter);
    list.add("limit", list_options_.limit, "Most jobs in the list").range(1, kListedMax);
    list.add("newest", newest_, "The jobs that were accepted last, newest first");
    list.add_example("optserve jobs list --state running", "what runs now");
    list.add_example("optserve jobs list --newest --limit 10", "the last ten jobs");
    list.add_example("optserve jobs list --tenant web --json", "those of a tenant, for a program");
    ConfigParser& show = declare_part(command, "show", "Show everything that is known about a job", show_);
    show.add_positional("job", job_, "Id of the job, or its first digits", true);
    show.add_example("optserve jobs show 4f2a", "the first digits are enough");
    show.add_example("optserve jobs show 4f2a --json", "for a program");
    show.add_example("optserve jobs show 4f2a --scheduler tcp://scheduler:5555", "at another host");
    ConfigParser& dead = declare_part(
        command, "dead", "List dead jobs, whose worker was lost in every attempt, with the reasons", dead_);
    add_owner_options(dead, dead_options_.filter);
    dead.add("limit", dead_options_.limit, "Most jobs in the list").range(1, kListedMax);
    dead.add_example("optserve jobs dead", "with the reasons");
    dead.add_example("optserve jobs dead --model opt-125m", "of one model");
    dead.add_example("optserve jobs dead --json", "for a program");
    ConfigParser& requeue = declare_part(
        command, "requeue", "Queue dead jobs again, with the same ids and a full number of attempts", requeue_);
    requeue.add_positional("jobs", jobs_, "Ids of the jobs, or their first digits", true);
    requeue.add_example("optserve jobs requeue 4f2a", "one job");
    requeue.add_example("optserve jobs requeue 4f2a 77b0", "two of them");
    requeue.add_example("optserve jobs requeue 4f2a --json", "its new state, for a program");
    ConfigParser& purge = declare_part(
        command, "purge", "Delete ended jobs with their results and keys; needs at least one condition", purge_);
    purge.add_positional("job", job_, "Id of one job", false);
    add_options(purge, purge_options_);
    purge.add_example("optserve jobs purge --state succeeded", "all that succeeded");
    purge.add_example("optserve jobs purge --group nightly", "the ended jobs of a group");
    purge.add_example("optserve jobs purge 4f2a", "one job");
    ConfigParser& group = declare_part(command, "group", "Show or cancel a group of jobs", group_);
    group.add_positional("name", group_name_, "Name of the group", true);
    group.add("tenant", tenant_, "Tenant that the group belongs to");
    group.add("cancel", cancel_, "Cancel the jobs that have not ended");
    group.add_example("optserve jobs group nightly", "how many are in which state");
    group.add_example("optserve jobs group nightly --cancel", "end those that are open");
    group.add_example("optserve jobs group nightly --tenant web --json", "of a tenant, for a program");
  }

  int run(const Clock&) override {
    if (list_) return run_list(list_options_, false);
    if (show_) return run_show();
    if (dead_) return run_list(dead_options_, true);
    if (requeue_) return run_requeue();
    if (purge_) return run_purge();
    return run_group();
  }

 private:
  ConfigParser& declare_part(ConfigParser& command, const char* name, const char* help, bool& part) {
    ConfigParser& parser = command.add_command(name, help, part);
    add_options(parser, connection_options_);
    parser.add("json", json_, "Print a JSON object");
    return parser;
  }

  int run_list(ListOptions& options, bool is_dead_list) {
    if (is_dead_list) options.filter.state = "dead";
    const protocol::JobFilter filter = make_filter(options.filter);
    Connection connection = Connection::open(connection_options_);
    const auto limit = static_cast<size_t>(options.limit);
    const auto order = newest_ ? client::ListOrder::kNewestFirst : client::ListOrder::kOldestFirst;
    const JobListing listing = list_jobs(connection.client(), filter, limit, order);
    const std::string text = json_          ? listing_json(listing)
                             : is_dead_list ? reasons_table(listing)
                                            : listing_table(listing);
    std::fputs(text.c_str(), stdout);
    if (listing.more && !json_) std::fprintf(stderr, "optserve: there are more jobs; see --limit\n");
    return report_refusals(listing.unanswered);
  }

  int run_show() {
    check_job(job_);
    Connection connection = Connection::open(connection_options_);
    protocol::JobFilter filter;
    filter.job = find_job(connection.client(), job_);
    const protocol::JobResult result = value_or_fail(connection.client().get(*filter.job));
    std::optional<protocol::JobSummary> summary;
    const JobListing listing = list_jobs(connection.client(), filter, 1);
    if (!listing.jobs.empty()) summary = listing.jobs.front();
    std::fputs((json_ ? job_json(result, summary) : job_text(result, summary)).c_str(), stdout);
    return kExitOk;
  }

  int run_requeue() {
    for (const std::string& text : jobs_) check_job(text);
    Connection connection = Connection::open(connection_options_);
    std::vector<JobId> ids;
    for (const std::string& text : jobs_) ids.push_back(find_job(connection.client(), text));
    int exit_status = kExitOk;
    for (const JobId& job : ids) {
      const Result<protocol::JobResult> requeued = connection.client().requeue(job);
      if (!requeued.ok()) {
        std::fprintf(stderr, "optserve: %s: %s: %s\n", job.hex().c_str(),
                     std::string(error_code_name(requeued.refusal().code)).c_str(), requeued.refusal().message.c_str());
        exit_status = kExitFailed;
      } else {
        std::fputs(json_ ? result_json(requeued.value()).c_str() : result_summary(requeued.value()).c_str(), stdout);
      }
    }
    return exit_status;
  }

  int run_purge() {
    protocol::JobFilter filter = make_filter(purge_options_);
    if (!job_.empty()) check_job(job_);
    if (job_.empty() && filter == protocol::JobFilter{}) {
      throw CommandFailure{kExitUsage, "purge: expected a job or one of --state, --tenant, --model and --group"};
    }
    Connection connection = Connection::open(connection_options_);
    if (!job_.empty()) filter.job = find_job(connection.client(), job_);
    const auto jobs = static_cast<long long>(value_or_fail(connection.client().purge(filter)));
    std::printf(json_ ? "{\"purged\":%lld}\n" : "%lld jobs deleted\n", jobs);
    return kExitOk;
  }

  int run_group() {
    Connection connection = Connection::open(connection_options_);
    Client& client = connection.client();
    const protocol::GroupStatus status =
        value_or_fail(cancel_ ? client.cancel_group(tenant_, group_name_) : client.group(tenant_, group_name_));
    const std::string text = json_ ? group_json(tenant_, group_name_, status) : group_text(group_name_, status);
    std::fputs(text.c_str(), stdout);
    return kExitOk;
  }

  ConnectionOptions connection_options_;
  bool json_ = false;
  bool list_ = false, show_ = false, dead_ = false, requeue_ = false, purge_ = false, group_ = false;
  ListOptions list_options_, dead_options_;
  FilterOptions purge_options_;
  std::string job_;
  std::vector<std::string> jobs_;
  std::string group_name_, tenant_;
  bool cancel_ = false;
  bool newest_ = false;
};

}  // namespace

std::unique_ptr<Command> make_jobs_command() { return std::make_unique<JobsCommand>(); }

}  // namespace optserve::cli
