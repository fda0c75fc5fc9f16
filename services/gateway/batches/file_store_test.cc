#include "gateway/batches/file_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>

#include "gateway/batches/batch_store.h"
#include "gateway/batches/file_upload.h"
#include "support/temporary_folder.h"

namespace optserve::gateway {
namespace file_store_test {

using ::testing::HasSubstr;

class FileStoreTest : public ::testing::Test {
 protected:
  std::string add(const std::string& text, int64_t created_at = 10, int64_t expires_at = 0) {
    const std::string partial = store.new_partial();
    std::ofstream(partial) << text;
    StoredFile file{.id = FileStore::new_id(), .filename = "a \"b\".jsonl", .purpose = "batch", .tenant = "web"};
    file.created_at = created_at;
    file.expires_at = expires_at;
    store.adopt(partial, file);
    return file.id;
  }
  // Keeps the thread of the store from its work until the promise is kept.
  std::promise<void> hold() {
    std::promise<void> goes_on;
    thread->post([held = std::make_shared<std::future<void>>(goes_on.get_future())] { held->wait(); });
    return goes_on;
  }
  // Until the thread of the store has done all that was given to it.
  void settle() {
    std::promise<void> done;
    thread->post([&done] { done.set_value(); });
    done.get_future().get();
  }
  // Uploads as a client does; returns the answer's error, or an empty text.
  static std::string upload(FileUpload& file, const std::string& form, size_t piece = 11) {
    http::BodySink::Refused why;
    for (size_t at = 0; at < form.size(); at += piece) {
      if (!file.take(std::string_view(form).substr(at, piece), why)) return std::to_string(why.status) + why.message;
    }
    const auto facts = file.facts();
    return facts.ok() ? "" : facts.error().message;
  }
  static std::string part(const std::string& disposition, const std::string& content) {
    return "--B\r\nContent-Disposition: form-data; " + disposition + "\r\n\r\n" + content + "\r\n";
  }

  test_support::TemporaryFolder folder;
  FileStore store{folder / "files", 100};
  std::shared_ptr<StoreThread> thread = std::make_shared<StoreThread>();
  std::function<void()> nothing = [] {};
};

TEST_F(FileStoreTest, FilesAreFoundListedAndRemoved) {
  const std::string old = add("12345", 10), young = add("67", 20);
  const auto found = store.find(old, 100);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->bytes, 5u);
  EXPECT_EQ(found->filename, "a \"b\".jsonl");
  EXPECT_EQ(read_small_file(store.content_path(old)), "12345");
  const auto all = store.list(100);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].id, young) << "the newest is the first";
  EXPECT_TRUE(store.remove(old));
  EXPECT_FALSE(store.remove(old));
  EXPECT_FALSE(store.find(old, 100));
  EXPECT_FALSE(std::filesystem::exists(store.content_path(old)));
}

TEST_F(FileStoreTest, NamesThatAreNoIdsReachNoFile) {
  std::ofstream(folder / "secret.json") << "{}";
  for (const char* id :
       {"", "file-", "../secret", "file-../../../../../../../etc/passwd", "file-0123456789abcdef0123456789ABCDEF"}) {
    EXPECT_FALSE(FileStore::is_id(id)) << id;
    EXPECT_FALSE(store.find(id, 0)) << id;
    EXPECT_FALSE(store.remove(id)) << id;
  }
  EXPECT_TRUE(std::filesystem::exists(folder / "secret.json"));
}

TEST_F(FileStoreTest, WhatHasExpiredIsGone) {
  const std::string id = add("12345", 10, 50);
  EXPECT_TRUE(store.find(id, 49));
  EXPECT_FALSE(store.find(id, 50));
  store.sweep(49, {});
  EXPECT_TRUE(std::filesystem::exists(store.content_path(id)));
  store.sweep(50, {});
  EXPECT_FALSE(std::filesystem::exists(store.content_path(id)));
}

TEST_F(FileStoreTest, WhatAKilledProcessLeftIsRemovedAfterADay) {
  const std::string partial = store.new_partial();
  std::ofstream(partial) << "half";
  const std::string stored = add("whole");
  const int64_t now =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  store.sweep(now, {});
  EXPECT_TRUE(std::filesystem::exists(partial));
  store.sweep(now + 2 * 24 * 3'600, {});
  EXPECT_FALSE(std::filesystem::exists(partial));
  EXPECT_TRUE(store.find(stored, now));
}

TEST_F(FileStoreTest, AFullStoreTakesNoMore) {
  add(std::string(80, 'x'));
  EXPECT_TRUE(store.check_room(20).ok());
  EXPECT_THAT(store.check_room(21).refusal().message, HasSubstr("101 bytes"));
}

TEST_F(FileStoreTest, AKillBetweenContentAndFactsIsMendedByDoingItAgain) {
  const std::string partial = store.new_partial();
  StoredFile file{.id = FileStore::new_id(), .filename = "a", .purpose = "batch_output", .tenant = ""};
  std::ofstream(store.content_path(file.id)) << "content";  // the content is in its place, its facts are not
  EXPECT_FALSE(store.find(file.id, 0));
  store.adopt(partial, file);
  EXPECT_EQ(store.find(file.id, 0)->bytes, 7u);
}

TEST_F(FileStoreTest, AnUploadIsReadFromItsForm) {
  const std::string form = part("name=\"purpose\"", "batch") + part("name=\"expires_after[anchor]\"", "created_at") +
                           part("name=\"expires_after[seconds]\"", "3600") +
                           part("name=\"file\"; filename=\"x.jsonl\"", "{\"a\": 1}\r\n") + "--B--\r\n";
  const std::string partial = store.new_partial();
  {
    FileUpload file("multipart/form-data; boundary=B", partial, thread, nothing);
    EXPECT_EQ(upload(file, form), "");
    settle();
    EXPECT_TRUE(file.is_written());
    EXPECT_EQ(file.facts().value().filename, "x.jsonl");
    EXPECT_EQ(file.facts().value().bytes, 10u);
    EXPECT_EQ(file.facts().value().expires_at, 3'600);
    EXPECT_EQ(read_small_file(partial), "{\"a\": 1}\r\n");
  }
  settle();
  EXPECT_FALSE(std::filesystem::exists(partial)) << "what nobody keeps is removed";
}

TEST_F(FileStoreTest, AnUploadWaitsForTheFolderWithoutHoldingMoreThanALittle) {
  std::promise<void> goes_on;
  std::atomic<int> told{0};
  const std::string partial = store.new_partial();
  const std::string form = part("name=purpose", "batch") + part("name=file", std::string(1 << 20, 'x')) + "--B--\r\n";
  thread->post([&goes_on] { goes_on.get_future().get(); });  // a disk that hangs
  size_t sent = 0;
  {
    FileUpload file("multipart/form-data; boundary=B", partial, thread, [&told] { ++told; });
    http::BodySink::Refused why;
    constexpr size_t kPiece = 16 << 10;
    for (; sent < form.size() && !file.is_full(); sent += kPiece) {
      ASSERT_TRUE(file.take(std::string_view(form).substr(sent, kPiece), why)) << why.message;
    }
    EXPECT_LE(sent, UploadWriter::kWaitingMax + 2 * kPiece);
    EXPECT_EQ(told, 0);
    goes_on.set_value();
    settle();
    EXPECT_FALSE(file.is_full());
    EXPECT_GT(told, 0);
    while (sent < form.size()) {
      ASSERT_TRUE(file.take(std::string_view(form).substr(sent, kPiece), why)) << why.message;
      sent += kPiece;
    }
    settle();
    EXPECT_TRUE(file.facts().ok() && file.is_written());
    EXPECT_EQ(std::filesystem::file_size(partial), 1u << 20);
    thread->post([&file] { file.keep(); });
    settle();
  }
  settle();
  EXPECT_TRUE(std::filesystem::exists(partial));
}

TEST_F(FileStoreTest, AnUploadThatCannotBeWrittenIsRefused) {
  http::BodySink::Refused why;
  std::promise<void> goes_on = hold();
  FileUpload file("multipart/form-data; boundary=B", folder / "missing/partial", thread, nothing);
  EXPECT_EQ(upload(file, part("name=purpose", "batch") + part("name=file", "{}") + "--B--\r\n"), "");
  goes_on.set_value();
  settle();
  EXPECT_FALSE(file.is_written());
  goes_on = hold();
  FileUpload more("multipart/form-data; boundary=B", folder / "missing/partial", thread, nothing);
  const std::string form = part("name=file", std::string(1'000, 'x'));
  ASSERT_TRUE(more.take(form.substr(0, 100), why));
  goes_on.set_value();
  settle();
  EXPECT_FALSE(more.take(form.substr(100), why));
  EXPECT_EQ(why.status, 503);
}

TEST_F(FileStoreTest, WhatIsAnOpenBatchsInputOutlivesItsTime) {
  const std::string input = add("12345", 10, 50), other = add("67", 10, 50);
  store.sweep(60, {input});
  EXPECT_TRUE(std::filesystem::exists(store.content_path(input)));
  EXPECT_FALSE(std::filesystem::exists(store.content_path(other)));
  EXPECT_FALSE(store.find(input, 60)) << "for clients its time is over";
  store.sweep(60, {});
  EXPECT_FALSE(std::filesystem::exists(store.content_path(input)));
}

TEST_F(FileStoreTest, WrongUploadsAreRefusedByWhatIsWrong) {
  const std::string purpose = part("name=purpose", "batch"), content = part("name=file; filename=x", "{}"),
                    end = "--B--";
  const auto message = [this](const std::string& form, const char* type = "multipart/form-data; boundary=B") {
    FileUpload file(type, store.new_partial(), thread, nothing);
    return upload(file, form);
  };
  EXPECT_EQ(message(purpose + content + end), "");
  EXPECT_THAT(message("{}", "application/json"), HasSubstr("415"));
  EXPECT_THAT(message(purpose + end), HasSubstr("'file'"));
  EXPECT_THAT(message(content + end), HasSubstr("purpose"));
  EXPECT_THAT(message(part("name=purpose", "assistants") + content + end), HasSubstr("assistants"));
  EXPECT_THAT(message(purpose + content), HasSubstr("not complete"));
  EXPECT_THAT(message(purpose + content + content + end), HasSubstr("more than one file"));
  EXPECT_THAT(message(part("name=purpose", std::string(300, 'x')) + content + end), HasSubstr("too long"));
  EXPECT_THAT(message(part("name=\"expires_after[seconds]\"", "60") + purpose + content + end),
              HasSubstr("expires_after"));
  EXPECT_THAT(message(""), HasSubstr("not complete"));
}

TEST_F(FileStoreTest, BatchesAreKeptInFoldersOfTheirOwn) {
  BatchStore batches(folder / "batches");
  BatchState state =
      parse_batch(R"({"input_file_id":"f","endpoint":"/v1/completions","completion_window":"24h"})").value();
  state.id = BatchStore::new_id();
  state.created_at = 5;
  batches.create(state);
  ASSERT_TRUE(batches.find(state.id));
  EXPECT_FALSE(batches.find("batch_../../files"));
  EXPECT_EQ(batches.list().size(), 1u);
  auto lock = batches.try_lock(state.id);
  EXPECT_TRUE(lock);
  EXPECT_FALSE(batches.try_lock(state.id)) << "one gateway runs a batch";
  batches.ask_to_cancel(state.id, 7);
  batches.ask_to_cancel(state.id, 9);
  EXPECT_EQ(batches.find(state.id)->status, BatchStatus::kCancelling);
  EXPECT_EQ(batches.find(state.id)->cancelling_at, 7);
  state.status = BatchStatus::kCompleted;
  batches.save(state, true);
  EXPECT_EQ(batches.find(state.id)->status, BatchStatus::kCompleted) << "what has ended is not cancelled any more";
  state.completed_at = 11;
  EXPECT_EQ(ended_at(state), 11);
  std::ofstream(folder / "batches/" + state.id + "/batch.json") << "{";
  EXPECT_THROW(batches.find(state.id), Error);
  batches.remove(state.id);
  batches.remove(state.id);
  EXPECT_FALSE(batches.find(state.id));
  EXPECT_TRUE(batches.ids().empty());
}

}  // namespace file_store_test
}  // namespace optserve::gateway
