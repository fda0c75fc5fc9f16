// Questions about ended jobs, on disk and in memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "journal/journal_test_contract.h"

namespace optserve::journal {
namespace journal_questions_test {

using namespace testing;  // NOLINT: the tests' own

std::vector<uint64_t> orders_of(const EndedListed& listed) {
  std::vector<uint64_t> orders;
  for (const auto& job : listed.jobs) orders.push_back(job.order);
  return orders;
}

Finished ended(uint64_t order, std::mt19937_64& random) {
  Finished record = finished(order, "text " + std::to_string(order));
  record.tenant = random() % 2 == 0 ? "red" : "blue";
  record.model = random() % 2 == 0 ? "small" : "large";
  record.result.tenant = record.tenant;
  record.result.group = random() % 3 == 0 ? "" : random() % 2 == 0 ? "a" : "b";
  record.result.state = static_cast<protocol::JobState>(3 + random() % 5);
  record.result.attempts = static_cast<int32_t>(random() % 3);
  record.result.message = "because";
  record.result.progress_done = static_cast<int64_t>(order);
  record.result.kind = static_cast<protocol::JobKind>(1 + random() % 2);
  return record;
}

protocol::JobFilter random_filter(std::mt19937_64& random) {
  protocol::JobFilter filter;
  if (random() % 8 == 0) filter.job = id_of(1 + random() % 1'500);
  if (random() % 3 == 0) filter.state = static_cast<protocol::JobState>(3 + random() % 5);
  if (random() % 2 == 0) filter.tenant = random() % 2 == 0 ? "red" : "blue";
  if (random() % 3 == 0) filter.model = random() % 2 == 0 ? "small" : "large";
  if (random() % 3 == 0) filter.group = random() % 2 == 0 ? "a" : "b";
  return filter;
}

class JournalQuestions : public JournalContract {};
OPTSERVE_JOURNAL_CONTRACT(JournalQuestions);

// The store in memory is a straightforward implementation of what a filter means.
TEST_P(JournalQuestions, ListsAndPurgesAsTheStoreInMemoryDoes) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  Recovery recovery;
  auto journal = open_journal(options, recovery);
  MemoryStore memory;
  const auto of_memory = [&memory](const Question& question) {
    memory.ask(1, question);
    return std::move(memory.poll_answers().at(0).body);
  };
  for (uint64_t order = 1; order <= 1'500; ++order) {
    const Finished record = ended(order, random);
    Accepted job = accepted(order);
    job.spec.tenant = record.tenant;
    journal->append(job);
    journal->append(record);
    memory.append(record);
  }
  for (int round = 0; round < 60; ++round) {
    ListEnded list{random_filter(random), random() % 3 == 0 ? random() % 1'500 : 0,
                   static_cast<uint32_t>(1 + random() % 400), random() % 2 == 0};
    const auto expected = std::get<EndedListed>(of_memory(list));
    const auto listed = ask_for<EndedListed>(*journal, list);
    ASSERT_EQ(orders_of(listed), orders_of(expected));
    EXPECT_EQ(listed.jobs, expected.jobs);
    EXPECT_EQ(listed.more, expected.more);
    if (round % 10 != 9) continue;
    const PurgeEnded purge{random_filter(random)};
    const auto gone = std::get<EndedPurged>(of_memory(purge));
    const auto purged = ask_for<EndedPurged>(*journal, purge);
    ASSERT_EQ(purged.forgotten.size(), gone.forgotten.size());
    for (size_t i = 0; i < gone.forgotten.size(); ++i) {
      EXPECT_EQ(purged.forgotten[i].job, gone.forgotten[i].job);
      EXPECT_EQ(purged.forgotten[i].key, gone.forgotten[i].key);
      EXPECT_EQ(purged.forgotten[i].tenant, gone.forgotten[i].tenant);
      EXPECT_EQ(purged.forgotten[i].group, gone.forgotten[i].group);
      EXPECT_EQ(purged.forgotten[i].state, gone.forgotten[i].state);
      EXPECT_FALSE(fetch(*journal, gone.forgotten[i].job).has_value());
    }
  }
}

TEST_P(JournalQuestions, WhatWasPurgedIsGoneAfterARestart) {
  std::mt19937_64 random(7);
  size_t left = 0;
  {
    Recovery recovery;
    auto journal = open_journal(options, recovery);
    for (uint64_t order = 1; order <= 600; ++order) {
      journal->append(accepted(order));
      journal->append(ended(order, random));
    }
    PurgeEnded purge;
    purge.filter.tenant = "red";
    const auto purged = ask_for<EndedPurged>(*journal, purge);
    EXPECT_GT(purged.forgotten.size(), 200u);
    left = 600 - purged.forgotten.size();
  }
  Recovery recovery;
  auto journal = open_journal(options, recovery);
  EXPECT_EQ(recovery.keys.size(), left);
  for (const KnownKey& key : recovery.keys) EXPECT_EQ(key.tenant, "blue");
}

// Commits go on while a long list is made.
TEST_P(JournalQuestions, AQuestionSeesWhatWasAppendedBeforeIt) {
  Recovery recovery;
  auto journal = open_journal(options, recovery);
  for (uint64_t order = 1; order <= 300; ++order) {
    journal->append(accepted(order));
    journal->append(finished(order, "text"));
    if (order % 50 != 0) continue;
    const auto listed = ask_for<EndedListed>(*journal, ListEnded{{}, 0, 1'000});
    EXPECT_EQ(listed.jobs.size(), order);
  }
}

TEST(JournalFileQuestions, ADamagedResultIsRefusedAndTheRestGoesOn) {
  TempFolder folder;
  const std::string path = folder.file("journal.db");
  Recovery recovery;
  auto journal = open_journal({.path = path}, recovery);
  for (uint64_t order = 1; order <= 200; ++order) {
    journal->append(accepted(order));
    ASSERT_TRUE(wait_durable(*journal, journal->append(finished(order, std::string(100'000, 'r')))));
  }
  // An idle moment has moved it to the database, and later writes have pushed it out of SQLite's cache.
  ASSERT_TRUE(wait_for([&] { return std::filesystem::file_size(path) > 20'000'000; }));
  std::string bytes = read_file(path);
  const size_t at = bytes.find(std::string(3'000, 'r'));
  ASSERT_NE(at, std::string::npos);
  {
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    for (size_t place = at; place != std::string::npos; place = bytes.find(std::string(3'000, 'r'), place + 100'000)) {
      file.seekp(static_cast<std::streamoff>(place + 1'000));
      file.put('R');
    }
  }
  size_t refused = 0, found = 0;
  for (uint64_t order = 1; order <= 200; ++order) {
    const auto answer = ask(*journal, FindResult{id_of(order)});
    if (const auto* refusal = std::get_if<Refusal>(&answer)) {
      EXPECT_EQ(refusal->code, ErrorCode::kDataCorrupt);
      ++refused;
    } else {
      EXPECT_EQ(std::get<ResultFound>(answer).result->text, std::string(100'000, 'r'));
      ++found;
    }
  }
  EXPECT_EQ(refused + found, 200u);
  journal->append(accepted(1'000));
  EXPECT_TRUE(wait_durable(*journal, 401));
}

TEST(MemoryStore, IsBounded) {
  MemoryStore store(2);
  for (uint64_t order = 1; order <= 3; ++order) store.append(finished(order, "text"));
  for (uint64_t order = 1; order <= 3; ++order) store.ask(order, FindResult{id_of(order)});
  const auto answers = store.poll_answers();
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_FALSE(std::get<ResultFound>(answers[0].body).result.has_value());
  EXPECT_TRUE(std::get<ResultFound>(answers[2].body).result.has_value());
  EXPECT_TRUE(store.poll_answers().empty());
}

}  // namespace journal_questions_test
}  // namespace optserve::journal
