#include "base/error.h"
#include "comm/communicator.h"

namespace optserve::comm {

std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator>, const NcclOptions& options) {
  throw Error("this build has no NCCL; a group on device cuda:" + std::to_string(options.device) +
              " needs one configured with OPTSERVE_CUDA=ON");
}

}  // namespace optserve::comm
