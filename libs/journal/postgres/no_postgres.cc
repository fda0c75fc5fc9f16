// Stands in for the journal in PostgreSQL in a build without libpq.
#include "base/program.h"
#include "journal/journal_storage.h"

namespace optserve::journal {
namespace {

[[noreturn]] void fail() {
  throw ConfigurationError("this program was built without libpq: it keeps its journal in a file only");
}

}  // namespace

std::unique_ptr<JournalStorage> open_postgres_storage(const JournalOptions&, const Clock&, Recovery&) { fail(); }
void check_journal_url(const std::string&) { fail(); }
void init_queue(const std::string&, const std::string&, const std::vector<std::string>&) { fail(); }
bool upgrade_queue(const std::string&, const std::string&) { fail(); }
JournalSummary inspect_queue(const std::string&, const std::string&) { fail(); }
bool hand_over_queue(const std::string&, const std::string&, Duration) { fail(); }

}  // namespace optserve::journal
