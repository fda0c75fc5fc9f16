#include "tokenizer/options.h"

namespace optserve::tokenizer {

void add_options(ConfigParser& parser, TokenizerOptions& options) {
  add_common_options(parser, options.common);
  parser.add("scheduler", options.schedulers,
             "Service endpoint of a scheduler; repeatable: the service registers with all of them");
  parser.add("model", options.models, "NAME=FOLDER: the name clients use and a sharded checkpoint; repeatable");
}

}  // namespace optserve::tokenizer
