// What a layer needs to run, handed to every call: there is nothing global.
#pragma once

#include "backend/backend.h"
#include "comm/communicator.h"

namespace optserve::engine {

struct Workspace;

struct Exec {
  backend::Backend& backend;
  comm::Communicator& communicator;
  Workspace& workspace;
};

}  // namespace optserve::engine
