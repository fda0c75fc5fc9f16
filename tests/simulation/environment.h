// What all parts of a run share.
#pragma once

#include "metrics/metrics.h"
#include "simulation/dice.h"
#include "simulation/event_queue.h"
#include "simulation/model.h"
#include "simulation/settings.h"
#include "simulation/trace.h"

namespace optserve::simulation {

struct Environment {
  Environment(const WorldSettings& given, metrics::Registry& its_registry)
      : settings(given), model(Model::instance()), registry(its_registry), dice(given.seed) {}

  Instant now() const { return queue.now(); }
  void note(const char* what, int node, const char* detail = "", uint64_t about = 0) {
    trace.add(queue.now(), what, node, detail, about);
  }
  bool is_planted(Plant plant) const { return settings.plant == plant; }

  const WorldSettings settings;
  const Model& model;
  metrics::Registry& registry;
  EventQueue queue;
  Dice dice;
  Trace trace;
  bool faulty = true;  // false: everything has healed
};

}  // namespace optserve::simulation
