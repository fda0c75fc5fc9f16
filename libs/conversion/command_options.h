// The options of `optserve convert`, `export`, `inspect` and `calibrate`. `optserve` declares them for its help and
// reads them from flags, environment and configuration file; `optserve-converter`, which does the work, declares the
// same ones.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/config.h"

namespace optserve::conversion {

// How foreign files are read.
struct ReaderOptions {
  std::string sandbox = "try";   // require, try or off
  int64_t reader_seconds = 600;  // a reader that says nothing for longer is ended
};

// Which matrix computes the logits if files contain an output head although they say that the token table is used.
enum class OutputHead : uint8_t { kAuto, kTable, kOwn };
inline constexpr std::array<std::string_view, 3> kOutputHeadNames = {"auto", "table", "own"};  // in this order

// Which tokens of a tokenizer are recognised in the text of prompts: those that were added to the vocabulary but not
// its first four (<s>, <pad>, </s>, <unk>), none, or all.
enum class PromptTokens : uint8_t { kAdded, kNone, kAll };
inline constexpr std::array<std::string_view, 3> kPromptTokensNames = {"added", "none", "all"};  // in this order

// What a conversion is asked to do, in values that mean the same everywhere. The converter's library uses this struct
// too.
struct ConvertRequest {
  std::string input;   // folder, file, glob, or Metaseq's virtual X.pt
  std::string output;  // folder to create; its name becomes the model's name unless `name` is set
  std::string name;
  std::string smooth_ranges;  // file that calibrate writes; empty: weights stay as they are
  double smooth_alpha = 0.5;  // how much of the inputs' magnitude goes into the weights
  int shards = 0;             // 0: the largest of 8, 4, 2, 1 that the model and the quantisation allow
  int64_t num_heads = 0;      // 0: as the files or the published model of this size have
  std::string vocab_file;     // both empty: found beside the input or in the folder above
  std::string merges_file;
  PromptTokens prompt_tokens = PromptTokens::kAdded;
  bool has_tokenizer = true;            // false: none is stored, even if there is one beside the input
  OutputHead head = OutputHead::kAuto;  // kAuto refuses heads that contradict their configuration
  bool allow_nonfinite = false;         // accept NaN and infinite weights where they can be stored
  bool check_source = true;             // compare the input's bytes with their CRC-32s
  bool restart = false;                 // remove what an earlier attempt has left instead of resuming it
  int64_t pass_mib_max = 0;             // MiB of output that a crash may lose; 0: chosen automatically
};

// The command adds options whose words the converter must parse, and options of the command alone.
struct ConvertCommand : ConvertRequest {
  std::string dtype = "keep";     // keep, fp32, fp16 or bf16
  std::string quantize = "none";  // none, int8, int8-mse, fp8 or int4
  std::string head_word = "auto";
  std::string tokenizer = "auto";  // or none
  std::string prompt_tokens_word = "added";
  ReaderOptions reader;
  bool verify = false;  // the output may already exist
  bool show_progress = true;
};

struct ExportRequest {
  std::string input;         // folder of a converted checkpoint
  std::string output;        // folder to create
  int parts = 1;             // of Metaseq
  bool check_source = true;  // first compare the checkpoint's files with the manifest
};

struct ExportCommand : ExportRequest {
  std::string format = "huggingface";  // or metaseq
  int64_t file_mb_max = 5000;
  bool show_progress = true;
};

struct InspectCommand {
  std::string path;  // folder, file or glob
  bool as_json = false;
  bool with_tensors = false;
  ReaderOptions reader;
};

struct CalibrateCommand {
  std::string checkpoint;  // folder of a converted checkpoint
  std::string text;        // file of UTF-8 text
  std::string output;      // file to create
  int64_t tokens = 8192;
};

// Each adds a subcommand with its options to `parser` and returns the subcommand's parser. `selected` says after
// parsing whether the subcommand was given.
ConfigParser& add_command(ConfigParser& parser, ConvertCommand& command, bool& selected);
ConfigParser& add_command(ConfigParser& parser, ExportCommand& command, bool& selected);
ConfigParser& add_command(ConfigParser& parser, InspectCommand& command, bool& selected);
ConfigParser& add_command(ConfigParser& parser, CalibrateCommand& command, bool& selected);

// Options that a converter service has too.
void add_options(ConfigParser& parser, ReaderOptions& options);
void add_pass_option(ConfigParser& parser, int64_t& pass_mib_max);

}  // namespace optserve::conversion
