// A tokenizer process: the real service with the small vocabulary.
#pragma once

#include <memory>
#include <vector>

#include "simulation/nodes/process.h"
#include "tokenizer/tokenizer_service.h"

namespace optserve::simulation {

class TokenizerNode final : public Process {
 public:
  TokenizerNode(Environment& environment, Network& network) : Process(environment, network, 1) { kind_ = "tokenizer"; }

 private:
  std::unique_ptr<transport::Service> make_service() override {
    protocol::Register hello;
    hello.instance = env_.dice.id();
    hello.name = "tokenizer-" + std::to_string(number);
    hello.build = "simulation";
    transport::SchedulerLinkOptions link;
    link.seed = env_.dice.number();
    std::vector<std::unique_ptr<model_text::ServedModel>> models;
    models.push_back(env_.model.serve());
    return std::make_unique<tokenizer::TokenizerService>(tokenizer::TextServer(std::move(models)), std::move(hello),
                                                         link, env_.registry, health_);
  }

  const FakeClock clock_;  // of the health endpoints, which nobody asks here
  metrics::Health health_{clock_};
};

}  // namespace optserve::simulation
