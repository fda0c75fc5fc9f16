#include "tokenizer/options.h"

namespace optserve::tokenizer {

void add_options(ConfigParser& parser, TokenizerOptions& options) {
  add_common_options(parser, options.common);
  parser.add("scheduler", options.scheduler, "Address of the scheduler's service port");
  parser.add("model", options.models, "NAME=FOLDER: the name clients use and a sharded checkpoint; repeatable");
}

}  // namespace optserve::tokenizer
