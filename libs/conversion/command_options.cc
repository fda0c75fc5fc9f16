#include "conversion/command_options.h"

#include "base/format_names.h"

namespace optserve::conversion {

void add_options(ConfigParser& parser, ReaderOptions& options) {
  parser
      .add("sandbox", options.sandbox,
           "Sandbox of the process that parses foreign files; try warns if the system has none")
      .choices({"require", "try", "off"});
  parser.add("reader-seconds", options.reader_seconds, "Time after which a reader that does not answer is ended")
      .range(1, 24 * 3600);
}

void add_pass_option(ConfigParser& parser, int64_t& pass_mib_max) {
  parser.add("pass-mib-max", pass_mib_max,
             "Most MiB of output that a crash may lose: shards are finished in passes of at most this size, at least "
             "one shard each, and every pass reads some matrices again; 0: 32 GiB or a quarter of the output, "
             "whichever is more");
}

ConfigParser& add_command(ConfigParser& parser, ConvertCommand& command, bool& selected) {
  ConfigParser& options = parser.add_command(
      "convert", "Convert a checkpoint of Metaseq, Hugging Face or FasterTransformer into a sharded one", selected);
  options.add_positional("source", command.input, "Folder, file or glob of the checkpoint", true);
  options.add_positional("destination", command.output, "Folder to create", true);
  options.add("name", command.name, "Name of the model; by default that of the destination");
  options.add("dtype", command.dtype, "Type of the weights").choices(with_words({"keep"}, kDtypeNames));
  options
      .add("quantize", command.quantize,
           "Store the large matrices in fewer bits; int8-mse chooses the scales of least squared error")
      .choices(with_words({"none"}, kQuantisationNames));
  options.add("smooth", command.smooth_ranges,
              "File written by 'optserve calibrate': before rounding, the input channels of the large matrices are "
              "scaled to similar ranges, which does not change what the model computes");
  options.add("smooth-alpha", command.smooth_alpha,
              "0 to 1: how much of the inputs' magnitude is moved into the weights");
  options.add("shards", command.shards,
              "Number of shards; 0: the largest of 8, 4, 2 and 1 that the model and the quantisation allow");
  options.add("heads", command.num_heads,
              "Number of attention heads, for files that do not say it; 0: that of the published model of this size");
  options
      .add("head", command.head_word,
           "Which matrix makes the logits where the files hold a head of their own although their configuration says "
           "that it is the token table: the table, as transformers has it, or their own; auto refuses such files")
      .choices({"auto", "table", "own"});
  options.add("vocab", command.vocab_file, "File gpt2-vocab.json; by default looked for beside the source");
  options.add("merges", command.merges_file, "File gpt2-merges.txt; by default looked for beside the source");
  options
      .add("tokenizer", command.tokenizer,
           "none: store no tokenizer, whatever is found; the model then serves token ids only")
      .choices({"auto", "none"});
  options
      .add(
          "prompt-tokens", command.prompt_tokens_word,
          "Which tokens are recognised where they stand in the text of prompts: those added to the vocabulary, but not "
          "<s>, <pad>, </s> and <unk>; none; or all")
      .choices({"added", "none", "all"});
  options.add("allow-nonfinite", command.allow_nonfinite, "Accept weights that are NaN or infinite");
  options.add("check-source", command.check_source, "Check the source's bytes against its checksums");
  options.add("restart", command.restart,
              "Delete what an earlier attempt has left beside the destination instead of continuing from it");
  add_pass_option(options, command.pass_mib_max);
  options.add("verify", command.verify,
              "Afterwards compare files, weights and the logits of a fixed prompt with the source; a destination that "
              "the same conversion has written before is only verified");
  options.add("progress", command.show_progress, "Show progress on standard error");
  add_options(options, command.reader);
  return options;
}

ConfigParser& add_command(ConfigParser& parser, ExportCommand& command, bool& selected) {
  ConfigParser& options =
      parser.add_command("export", "Write a converted checkpoint in the format of Hugging Face or Metaseq", selected);
  options.add_positional("checkpoint", command.input, "Folder of the converted checkpoint", true);
  options.add_positional("destination", command.output, "Folder to create", true);
  options.add("format", command.format, "Format to write").choices({"huggingface", "metaseq"});
  options.add("parts", command.parts, "Number of model-parallel parts (Metaseq)");
  options.add("file-mb-max", command.file_mb_max,
              "Largest file in megabytes (Hugging Face); larger models get several files and an index");
  options.add("check-source", command.check_source, "Check the checkpoint's files against its manifest first");
  options.add("progress", command.show_progress, "Show progress on standard error");
  return options;
}

ConfigParser& add_command(ConfigParser& parser, InspectCommand& command, bool& selected) {
  ConfigParser& options = parser.add_command("inspect", "Show what a checkpoint holds, foreign or converted", selected);
  options.add_positional("path", command.path, "Folder, file or glob", true);
  options.add("json", command.as_json, "Print a JSON object");
  options.add("tensors", command.with_tensors, "List every tensor");
  add_options(options, command.reader);
  return options;
}

ConfigParser& add_command(ConfigParser& parser, CalibrateCommand& command, bool& selected) {
  ConfigParser& options = parser.add_command(
      "calibrate", "Run a text through a model and record the ranges of its large matrices' inputs", selected);
  options.add_positional("checkpoint", command.checkpoint, "Folder of the converted checkpoint", true);
  options.add("text", command.text, "File of UTF-8 text like the text that the model will see");
  options.add("output", command.output, "File to create, for 'convert --smooth'");
  options.add("tokens", command.tokens, "Number of tokens of the text that are run, from its beginning");
  return options;
}

}  // namespace optserve::conversion
