#include "converter/commands/command_line.h"

namespace optserve::converter {
namespace {

constexpr const char* kPassHelp =
    "MiB of output that a crash may lose: shards are finished in passes of this size, of at least one shard, and each "
    "pass reads some matrices again; 0: 32 GiB or a quarter of the output, whichever is more";

void add_serve(ConfigParser& parser, CommandLine& line) {
  ConfigParser& command =
      parser.add_command("serve", "Take conversion jobs from the scheduler until SIGTERM", line.is_serve);
  add_common_options(command, line.serve.common);
  command.add("scheduler", line.serve.schedulers,
              "Service endpoint of a scheduler; repeatable: the service registers with all of them");
  command.add("root", line.serve.roots,
              "Folder that jobs may read and write, repeatable; without one every job is refused");
  command.add("drain-seconds", line.serve.drain_seconds, "How long a running conversion may go on after SIGTERM");
  command.add("pass-mib-max", line.serve.pass_mib_max, kPassHelp);
  add_reader_options(command, line.serve.reader);
  line.serve_parser = &command;
}

void add_convert(ConfigParser& parser, CommandLine& line) {
  ConfigParser& command = parser.add_command("convert",
                                             "Convert a checkpoint of Metaseq, Hugging Face or FasterTransformer (with "
                                             "'optserve convert --remote': in a converter service)",
                                             line.is_convert);
  ConvertCommand& convert = line.convert;
  ConvertOptions& options = convert.options;
  command.add_positional("source", options.input, "Folder, file or glob of the checkpoint", true);
  command.add_positional("destination", options.output, "Folder to create", true);
  command.add("name", options.name, "The model's name; by default that of the destination");
  command.add("dtype", convert.dtype, "keep, fp32, fp16 or bf16");
  command.add(
      "quantize", convert.quantize,
      "Store the large matrices in fewer bits: none, int8, int8-mse (scales of least squared error), fp8 or int4");
  command.add(
      "smooth", options.smooth_ranges,
      "File of 'optserve calibrate': input channels of the large matrices are made alike before rounding, and the "
      "model computes the same");
  command.add("smooth-alpha", options.smooth_alpha, "0 to 1: how much of the inputs' magnitude goes into the weights");
  command.add("shards", options.shards,
              "Number of shards; 0: the largest of 8, 4, 2, 1 that the model and the quantisation allow");
  command.add("heads", options.num_heads, "Attention heads, where the files do not say; 0: as the published model");
  command.add("vocab", options.vocab_file, "gpt2-vocab.json; by default searched beside the source");
  command.add("merges", options.merges_file, "gpt2-merges.txt; by default searched beside the source");
  command.add("allow-nonfinite", options.allow_nonfinite, "Accept weights that are NaN or infinite");
  command.add("check-source", options.check_source, "Compare the source's bytes with its checksums");
  command.add("restart", options.restart,
              "Remove what an earlier attempt has left beside the destination instead of going on from it");
  command.add("pass-mib-max", options.pass_mib_max, kPassHelp);
  command.add(
      "verify", convert.verify,
      "Compare files, weights and the logits of a fixed prompt with the source afterwards; a destination that the "
      "same conversion has written is only verified");
  command.add("progress", convert.show_progress, "Show progress on standard error");
  add_reader_options(command, convert.reader);
}

void add_export(ConfigParser& parser, CommandLine& line) {
  ConfigParser& command =
      parser.add_command("export", "Write a converted checkpoint as one of Hugging Face or Metaseq", line.is_export);
  ExportCommand& exported = line.exported;
  ExportOptions& options = exported.options;
  command.add_positional("checkpoint", options.input, "Folder of the converted checkpoint", true);
  command.add_positional("destination", options.output, "Folder to create", true);
  command.add("format", exported.format, "huggingface or metaseq");
  command.add("parts", options.parts, "Model-parallel parts of Metaseq");
  command.add("file-mb-max", exported.file_mb_max,
              "Megabytes of one Hugging Face file; larger models get several and an index");
  command.add("check-source", options.check_source, "First compare the checkpoint's files with its manifest");
  command.add("progress", exported.show_progress, "Show progress on standard error");
}

void add_inspect(ConfigParser& parser, CommandLine& line) {
  ConfigParser& command =
      parser.add_command("inspect", "Show what is in a checkpoint, foreign or converted", line.is_inspect);
  command.add_positional("path", line.inspect.path, "Folder, file or glob", true);
  command.add("json", line.inspect.as_json, "Print a JSON object");
  command.add("tensors", line.inspect.with_tensors, "List every tensor");
  add_reader_options(command, line.inspect.reader);
}

void add_calibrate(ConfigParser& parser, CommandLine& line) {
  ConfigParser& command = parser.add_command(
      "calibrate", "Measure on a text how large the inputs of a model's large matrices get", line.is_calibrate);
  CalibrateCommand& calibrate = line.calibrate;
  command.add_positional("checkpoint", calibrate.checkpoint, "Folder of the converted checkpoint", true);
  command.add("text", calibrate.text, "File of UTF-8 text like that which the model is going to see");
  command.add("output", calibrate.output, "File to create, for 'convert --smooth'");
  command.add("tokens", calibrate.tokens, "How many tokens of the text are run, counted from its beginning");
}

}  // namespace

void add_options(ConfigParser& parser, CommandLine& line) {
  add_serve(parser, line);
  add_convert(parser, line);
  add_export(parser, line);
  add_inspect(parser, line);
  add_calibrate(parser, line);
}

}  // namespace optserve::converter
