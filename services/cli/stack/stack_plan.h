// Plans what `optserve up` starts: which programs, with which arguments, in which order.
#pragma once

#include <string>
#include <vector>

#include "base/config.h"
#include "base/error.h"
#include "checkpoint/manifest/layout.h"

namespace optserve::cli {

struct StackOptions {
  std::string folder = "optserve-run";  // logs, journal and state
  std::string model;                    // folder of a sharded checkpoint
  std::string name;                     // that clients use for the model; empty: the name in the manifest
  int world = 1;                        // ranks of one worker group
  int workers = 1;                      // worker groups
  int tokenizers = 1;
  std::string device = "cpu";
  std::string dtype = "auto";   // of the workers' activations
  std::string converter_root;   // folder that a converter service may read and write; empty: no such service
  std::string ports = "fixed";  // fixed or auto
  int api_port = 8000;          // of the gateway, unless ports are auto
  bool no_gateway = false;
  bool no_keys = false;         // connections within the stack have none
  std::string chat_template;    // of the gateway: "plain" or a file; empty: it refuses chats
  bool is_volatile = false;     // no journal
  std::string backup_folder;    // for copies of the journal; empty: none are made
  std::string journal_replica;  // folder for a copy of each commit; empty: none is made
  int backup_seconds = 3'600;
  int backups_kept = 24;
  bool foreground = false;
  std::string log_level = "info";
  std::string log_format = "text";
  int ready_seconds = 300;  // until every process must be ready
  int drain_seconds = 30;   // for running jobs when the stack stops
  // Options that are passed on to the programs, as NAME=VALUE: "max-sequences=8".
  std::vector<std::string> worker_options, scheduler_options, gateway_options;
};

// The parser refuses counts out of range and unknown words.
void add_options(ConfigParser& parser, StackOptions& options);
// Refuses what cannot work before anything starts: a folder that is not a sharded checkpoint, a group size that its
// shards do not allow, options for programs that have the wrong form or that the stack sets itself. Fills in `name` and
// makes paths absolute.
Status check_options(StackOptions& options);

// Refuses a number of ranks that does not divide the number of shards in `folder`, and says what would.
Status check_shards(const std::string& folder, const checkpoint::ShardPlan& plan, int world);
// Refuses options that are not NAME=VALUE. `option` is the one that they were given with.
Status check_passed_options(const std::string& option, const std::vector<std::string>& passed);

struct PlannedProcess {
  std::string name;  // "scheduler", "worker-0"; its log has the same name
  std::string program;
  std::vector<std::string> arguments;
  int http_port = 0;
};

struct StackPlan {
  std::string client_endpoint;
  std::string service_endpoint;
  std::string api_url;                        // of the gateway; empty: there is none
  std::string client_secret_key, server_key;  // files; empty: there are no keys
  std::vector<int> ports;                     // every port that will be listened on
  std::vector<PlannedProcess> processes;      // the scheduler first: the others start when it is ready
};

struct StackPorts {
  int clients = 5555;
  int services = 5556;
  // The first of http_ports_needed() ports in a row: one for each process, and after a worker's one for each of its
  // ranks.
  int first_http = 9400;
  int api = 8000;
};
int http_ports_needed(const StackOptions& options);
StackPlan plan_stack(const StackOptions& options, const StackPorts& ports);

}  // namespace optserve::cli
