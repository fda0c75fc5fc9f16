// A fresh journal to measure: in a folder of its own, which goes with it, or in a queue of its own of a PostgreSQL
// database, which stays until the database is dropped.
#pragma once

#include <unistd.h>

#include <memory>
#include <string>

#include "bench/bench_loop.h"
#include "journal/journal.h"

namespace optserve::bench {

class BenchJournal {
 public:
  // `where`: a folder on a local disk, or the URL of a database.
  explicit BenchJournal(const std::string& where) {
    if (!journal::is_postgres_url(where)) {
      folder_ = std::make_unique<BenchFolder>(where);
      options.path = folder_->journal();
      return;
    }
    static int number = 0;
    options.path = where;
    options.queue = "bench_" + std::to_string(::getpid()) + "_" + std::to_string(++number);
    journal::init_queue(where, options.queue, {});
  }

  journal::JournalOptions options;

 private:
  std::unique_ptr<BenchFolder> folder_;
};

}  // namespace optserve::bench
