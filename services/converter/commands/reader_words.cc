#include "converter/commands/reader_words.h"

namespace optserve::converter {

void add_reader_options(ConfigParser& parser, ReaderWords& reader) {
  parser.add(
      "sandbox", reader.sandbox,
      "Cage of the process that parses foreign files: require, try (a warning where the system lacks it) or off");
  parser.add("reader-seconds", reader.settings.answer_seconds,
             "That process is ended when it has been silent for this many seconds");
}

Result<ReaderSettings> settings_of(const ReaderWords& reader) {
  const auto mode = parse_sandbox_mode(reader.sandbox);
  if (!mode) return refuse(ErrorCode::kBadRequest, "sandbox is '" + reader.sandbox + "', expected require, try or off");
  if (reader.settings.answer_seconds < 1)
    return refuse(ErrorCode::kBadRequest,
                  "reader-seconds is " + std::to_string(reader.settings.answer_seconds) + ", must be at least 1");
  ReaderSettings settings = reader.settings;
  settings.sandbox = *mode;
  return settings;
}

}  // namespace optserve::converter
