#include "gateway/access/new_key.h"

#include <ostream>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/exit_status.h"
#include "base/program.h"
#include "gateway/access/api_key.h"

namespace optserve::gateway {

int run_new_key(int argc, const char* const* argv, std::ostream& out, std::ostream& err) {
  ApiKey key;
  std::string expires;
  key.may_submit = true;
  bool only_operates = false;
  ConfigParser parser("optserve-gateway new-key", "Makes an API key and the line for the file of keys.");
  parser.add_positional("id", key.id, "Name of the key in logs, [A-Za-z0-9._-]", true);
  parser.add("tenant", key.tenant, "Whose jobs the key submits and sees; the id if not given");
  parser.add("operate", key.may_operate, "The key may pause, drain, resume, requeue, convert, and see all tenants");
  parser.add("no-submit", only_operates, "The key may not submit");
  parser.add("requests-per-minute", key.requests_per_minute, "Most requests; 0: any number").range(0, 1'000'000);
  parser.add("jobs-max", key.jobs_max, "Most open jobs at a time in one gateway; 0: any number").range(0, 10'000'000);
  parser.add("expires", expires, "2027-01-31 or 2027-01-31T12:00:00Z, from when on it is refused");
  parser.add_example("optserve-gateway new-key web-1 --tenant web >> keys.jsonl", "show a key, and store its hash");
  if (const int status = parser.parse(argc, argv); status >= 0) return status;
  const auto fail = [](const std::string& message) {
    print_failure({"optserve-gateway", "bad_request", message, kExitUsage}, false);
    return kExitUsage;
  };
  key.may_submit = !only_operates;
  if (key.tenant.empty()) key.tenant = key.id;
  if (!expires.empty()) {
    const Result<int64_t> moment = parse_expiry(expires);
    if (!moment.ok()) return fail(moment.refusal().message);
    key.expires_ms = moment.value();
  }
  const std::string secret = random_api_key();
  if (const Status status = set_secret(key, secret); !status.ok()) return fail(status.refusal().message);
  const std::string line = api_key_line(key);
  if (const auto parsed = parse_api_keys(line); !parsed.ok()) return fail(parsed.refusal().message);
  err << "The key, which is shown this once: " << secret << "\n";
  out << line << std::endl;
  if (out.good()) return kExitOk;
  return fail("the line could not be written");
}

}  // namespace optserve::gateway
