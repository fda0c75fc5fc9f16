#include "http_api/openai/stream_form.h"

#include "http_api/openai/json_text.h"

namespace optserve::http_api {
namespace {

using nlohmann::ordered_json;

class CompletionForm final : public ChunkForm {
 public:
  explicit CompletionForm(const CompletionRequest& request) : ChunkForm(request, "text_completion") {}

  std::string text(int choice, std::string_view text) override {
    return chunk("{\"index\":" + std::to_string(choice) + ",\"text\":" + json_string(text) +
                     ",\"logprobs\":null,\"finish_reason\":null}",
                 false);
  }

  std::string last(const LastPiece& piece) override {
    ordered_json choice{{"index", piece.choice}, {"text", piece.text}};
    choice.update(choice_facts(request(), piece.prompt, piece.result, piece.output));
    return chunk(json_text(choice), true);
  }
};

}  // namespace

std::string error_frames(const ApiError& error) {
  return "event: error\ndata: " + error_body(error) + "\n\n" + std::string(kDoneFrame);
}

ChunkForm::ChunkForm(const CompletionRequest& request, std::string_view object) : request_(&request) {
  frame_begin_ = "data: {\"id\":" + json_string(request.id) + ",\"object\":" + json_string(object) +
                 ",\"created\":" + std::to_string(request.created) + ",\"model\":" + json_string(request.model.name) +
                 ",\"choices\":[";
}

std::string ChunkForm::fingerprint() const {
  const std::string& fingerprint = request_->model.fingerprint;
  return fingerprint.empty() ? "" : ",\"system_fingerprint\":" + json_string(fingerprint);
}

std::string ChunkForm::chunk(std::string_view choice, bool is_last) const {
  return frame_begin_ + std::string(choice) + "]" + (is_last ? fingerprint() : "") + "}\n\n";
}

std::string ChunkForm::end(const TokenUsage& usage, const protocol::JobResult& result) {
  std::string frames;
  if (request_->include_usage) {
    frames += frame_begin_ + "],\"usage\":" + json_text(usage_json(usage.prompt_tokens, usage.completion_tokens));
    if (request_->return_metrics && request_->num_jobs() == 1) {
      frames += ",\"metrics\":" + json_text(metrics_json(result));
    }
    frames += fingerprint() + "}\n\n";
  }
  return frames + std::string(kDoneFrame);
}

std::unique_ptr<StreamForm> completion_form(const CompletionRequest& request) {
  return std::make_unique<CompletionForm>(request);
}

}  // namespace optserve::http_api
