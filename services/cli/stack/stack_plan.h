// What `optserve up` starts: which programs with which arguments, and in which order.
#pragma once

#include <string>
#include <vector>

#include "base/config.h"
#include "base/error.h"

namespace optserve::cli {

struct StackOptions {
  std::string folder = "optserve-run";  // logs, journal and state
  std::string model;                    // folder of a sharded checkpoint
  std::string name;                     // clients' name for it; empty: the one in the manifest
  int world = 1;                        // ranks of one worker group
  int workers = 1;                      // worker groups
  int tokenizers = 1;
  std::string device = "cpu";
  std::string converter_root;   // folder that a converter service may read and write; empty: no converter
  std::string ports = "fixed";  // fixed or auto
  bool is_volatile = false;     // no journal
  bool foreground = false;
  std::string log_level = "info";
  int ready_seconds = 300;                  // until every process must be ready
  int drain_seconds = 30;                   // for running jobs when the stack stops
  std::vector<std::string> worker_options;  // passed on: "max-sequences=8"
};

void add_options(ConfigParser& parser, StackOptions& options);
// Refuses what cannot work before anything starts: counts out of range, a folder that is no sharded checkpoint, a group
// size that its shards do not allow. Fills in `name` and makes paths absolute.
Status check_options(StackOptions& options);

struct PlannedProcess {
  std::string name;  // "scheduler", "worker-0"; also of its log
  std::string program;
  std::vector<std::string> arguments;
  int http_port = 0;
};

struct StackPlan {
  std::string client_endpoint;
  std::string service_endpoint;
  std::vector<int> ports;                 // every port that will be listened on
  std::vector<PlannedProcess> processes;  // the scheduler first: the others start when it is ready
};

struct StackPorts {
  int clients = 5555;
  int services = 5556;
  int first_http = 9400;  // of http_ports_needed() in a row: one per process, and one per rank behind its worker's
};
int http_ports_needed(const StackOptions& options);
StackPlan plan_stack(const StackOptions& options, const StackPorts& ports);

}  // namespace optserve::cli
