#include "transport/service.h"

namespace optserve::transport {

void Service::on_garbage(const Peer& from, const Refusal& why, Instant, Outbox& out) {
  if (!from.route.empty()) out.send(from, protocol::Refused{0, why.code, why.message});
}

}  // namespace optserve::transport
