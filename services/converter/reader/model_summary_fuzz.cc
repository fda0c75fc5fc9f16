// Any bytes as a reader's summary: what the converter accepts is a model whose tensors can be walked.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "converter/reader/model_summary.h"
#include "model_spec/opt_tensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve;
  using namespace optserve::converter;
  const Result<ModelSummary> summary = decode_summary(std::as_bytes(std::span(data, size)));
  if (!summary.ok()) return 0;
  const ModelSummary& found = summary.value();
  check(found.config.has_value() || !found.problem.empty(), "a model or a problem");
  if (!found.problem.empty()) return 0;
  check(model_spec::validate(*found.config).ok(), "a valid model");
  check_eq(found.dtypes.size(), model_spec::opt_tensors(*found.config).size(), "types of all tensors");
  const Result<std::string> bytes = encode_summary(found, size + 1);
  check(bytes.ok(), "what was read can be written");
  check(decode_summary(std::as_bytes(std::span(bytes.value()))).ok(), "round trip");
  return 0;
}
