// The model of the demo: where its files are, and what an independent implementation computed on it (golden.json).
#pragma once

#include <string>
#include <vector>

#include "base/ids.h"
#include "tensor/dtype.h"

namespace optserve::test_support {

struct DemoCase {
  std::string prompt;
  std::vector<TokenId> prompt_ids;     // with the leading </s>
  std::vector<float> prompt_logprobs;  // of prompt_ids[1..]
  std::vector<TokenId> greedy_ids;     // the 64 ids that follow
  std::string greedy_text;
};

struct DemoHeldout {
  int64_t tokens = 0;  // of heldout.txt
  int64_t scored = 0;
  double perplexity = 0;
};

// What `generate` of transformers gives, without sampling.
struct DemoGenerate {
  std::vector<TokenId> prompt_ids;
  std::vector<TokenId> ids;
  float repetition_penalty = 1;
  int num_beams = 1;
  float length_penalty = 1;
  bool early_stopping = false;
  int no_repeat_ngram_size = 0;
};

struct DemoGoldens {
  std::vector<DemoCase> cases;
  DemoHeldout heldout;
  std::vector<DemoGenerate> generate;
};

// Throws Error if the file cannot be read.
const DemoGoldens& demo_goldens();
// "deploy/demo-model/<name>" in the source tree.
std::string demo_file(const std::string& name);
std::string read_file(const std::string& path);
// Converts the two Metaseq parts to a checkpoint of `shards` shards. `quantisation` is a word of the command line;
// `smooth_ranges`, if not empty, is a file of ranges to smooth with. Throws Error.
void convert_demo_model(const std::string& folder, int shards, const std::string& quantisation = "none",
                        DType dtype = DType::kF16, const std::string& smooth_ranges = {});

}  // namespace optserve::test_support
