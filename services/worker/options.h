// The options of a worker group. The supervisor passes its own command line on to the ranks.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/exit_status.h"
#include "keys/key_options.h"

namespace optserve::worker {

struct WorkerOptions {
  CommonOptions common;
  std::string sandbox = "try";  // of each process: require, try or off
  int rank_http_port = -1;      // of rank 0, the next ranks follow; 0: free ports; -1: http-port + 1
  std::vector<std::string> schedulers = {"tcp://127.0.0.1:5556"};
  std::string model;  // NAME=FOLDER of a sharded checkpoint
  keys::ClientKeyOptions keys;
  std::string name;               // of the group for operators; empty: host and process id of rank 0
  int world = 1;                  // tensor-parallel size: one process per rank
  std::string device = "cpu";     // cpu or cuda
  std::string dtype = "auto";     // of activations: fp32, fp16, bf16; auto: fp32 on the CPU, else the weights'
  std::string kv_dtype = "auto";  // of the KV cache: int8; auto: as dtype
  int threads = 0;                // per rank, CPU only; 0: cores / world
  int max_sequences = 64;         // generations at a time
  // Generations leased beyond max_sequences, which take a free slot at once; -1: a quarter of max_sequences.
  int lease_ahead = -1;
  int64_t kv_tokens = 0;  // size of the KV cache in tokens; 0: what the device has room for, or kv-memory-mb on the CPU
  int64_t kv_memory_mb = 1024;         // per rank, CPU only, when kv-tokens is 0
  double memory_fraction = 0.92;       // of a GPU's memory that may be in use
  bool deterministic = false;          // the same tokens whatever else is in the batch, on GPUs too
  std::string relu_skip = "off";       // do not read weights that meet zeros of a ReLU: off, auto or always
  std::string collectives = "auto";    // how GPUs add over a group: peer memory, nccl, or what works (auto)
  bool fp8_activations = false;        // round the inputs of fp8 weights to fp8 too, for speed in large batches
  std::string tuning_cache;            // folder that keeps which GPU algorithms were fastest; empty: nowhere
  bool random_weights = false;         // weights at random: the model's shape is all that is read, or a published name
  std::string random_format = "none";  // of their large matrices: int8, fp8, int4, or none
  double random_up_bias = 0;           // mean of the biases in front of the ReLU of random weights
  int max_step_tokens = 512;           // rows of one engine step
  bool prefix_cache = true;
  int draft_tokens = 7;           // most tokens guessed at a time where a text repeats itself; 0: none
  std::string draft_model;        // folder of a small model's checkpoint, which guesses elsewhere; empty: none
  int draft_model_tokens = 4;     // most tokens that the draft model guesses at a time
  int step_deadline_ms = 30'000;  // a step that takes longer ends the group
  int load_deadline_ms = 1'800'000;
  int drain_ms = 60'000;  // after SIGTERM, for the running jobs
  bool verify_checksums = true;
  std::string bench;  // a workload::BenchSpec (JSON, or a file with it) to run instead of serving

  // A group that spans hosts has one supervisor on each, with world / nodes ranks.
  int nodes = 1;           // hosts of the group
  int node_rank = -1;      // this one: 0 has rank 0 and is the one that the scheduler knows; -1: from the environment
  std::string rendezvous;  // HOST:PORT on which rank 0 listens for the others; empty: from the environment
  std::string group_key;   // file of the key that all ranks have in common; from a variable, also the key itself

  // Set by the supervisor on the ranks' command lines; -1 in the supervisor itself.
  int rank = -1;
  int group_fd = -1;  // shared memory of the communicator
  int64_t group_bytes = 0;
  int status_fd = -1;    // shared memory of GroupStatus
  int lifeline_fd = -1;  // read end of a pipe that the supervisor holds open

  // Generations that the scheduler may lease to the group.
  int leases_max() const { return max_sequences + (lease_ahead >= 0 ? lease_ahead : max_sequences / 4); }

  std::string model_name() const;    // before the '='
  std::string model_folder() const;  // after it
  int local_world() const { return world / nodes; }
  int first_rank() const { return node_rank * local_world(); }  // of this host
  int local_rank() const { return rank - first_rank(); }        // which is the index of its device
  std::string rendezvous_host() const;
  int rendezvous_port() const;  // 0: there is none
};

void add_options(ConfigParser& parser, WorkerOptions& options);
// Fills in what was not given of node_rank and rendezvous, as torchrun (MASTER_ADDR, MASTER_PORT, GROUP_RANK),
// LeaderWorkerSet (LWS_LEADER_ADDRESS, LWS_WORKER_INDEX) and indexed Jobs (JOB_COMPLETION_INDEX) of Kubernetes set
// them. A group on one host looks at none of them.
void complete_from_environment(WorkerOptions& options,
                               const std::function<std::string(const std::string& name)>& variable);
// A command line of optserve-worker that gives exactly these options.
std::vector<std::string> command_line(WorkerOptions options);
// Throws ConfigurationError naming the first option that makes no sense.
void check_options(const WorkerOptions& options);

}  // namespace optserve::worker
