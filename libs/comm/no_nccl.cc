#include "base/error.h"
#include "comm/communicator.h"

namespace optserve::comm {

std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator>, const NcclOptions& options,
                                                     const Clock&) {
  throw Error("this build has no NCCL: a group on device cuda:" + std::to_string(options.device) +
              " needs a build with OPTSERVE_CUDA=ON");
}

}  // namespace optserve::comm
