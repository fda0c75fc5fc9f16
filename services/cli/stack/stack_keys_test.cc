#include "cli/stack/stack_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "keys/allow_file.h"
#include "keys/key_files.h"

namespace optserve::cli {
namespace stack_keys_test {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

struct Folder {
  Folder() {
    std::string name = testing::TempDir() + "stack-keys-XXXXXX";
    path = mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string path;
};

StackOptions options_of(const Folder& folder) {
  StackOptions options;
  options.folder = folder.path;
  options.name = "opt";
  return options;
}

TEST(StackKeys, AreMadeOnceForTheirOwnerAlone) {
  const Folder folder;
  const StackKeys keys(folder.path);
  const StackOptions options = options_of(folder);
  ASSERT_TRUE(keys.prepare(options).ok());
  for (const char* name : {"scheduler", "tokenizer", "worker", "gateway", "client"}) {
    struct stat about {};
    ASSERT_EQ(stat(keys.secret(name).c_str(), &about), 0) << name;
    EXPECT_EQ(about.st_mode & 0777, 0600u);
  }
  struct stat about {};
  ASSERT_EQ(stat(keys.folder().c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0700u);
  const auto list = keys::read_allow_file(keys.allowed());
  ASSERT_TRUE(list.ok());
  EXPECT_THAT(list.value().keys(), SizeIs(4));
  const auto before = keys::read_key_file(keys.allowed(), keys::Privacy::kTrusted).value();
  ASSERT_TRUE(keys.prepare(options).ok());
  EXPECT_EQ(keys::read_key_file(keys.allowed(), keys::Privacy::kTrusted).value(), before);
}

TEST(StackKeys, WhatOthersAllowedStays) {
  const Folder folder;
  const StackKeys keys(folder.path);
  StackOptions options = options_of(folder);
  ASSERT_TRUE(keys.prepare(options).ok());
  const auto extra = keys::parse_allowed_key(keys::PublicKey{}.text() + " name=mine client=a").value();
  ASSERT_TRUE(keys::allow_in_file(keys.allowed(), extra).ok());
  options.name = "other";
  options.converter_root = "/models";
  ASSERT_TRUE(keys.prepare(options).ok());
  const auto list = keys::read_allow_file(keys.allowed()).value();
  EXPECT_NE(list.find(extra.key), nullptr);
  const auto worker = keys::read_public_key_file(keys.public_file("worker")).value().front();
  EXPECT_TRUE(list.find(worker)->worker_models.contains("other"));
  const auto converter = keys::read_public_key_file(keys.public_file("converter")).value().front();
  EXPECT_EQ(list.find(converter)->converter_folders, std::vector<std::string>{"/models"});
}

TEST(StackKeys, ASecretThatOthersMayReadIsRefused) {
  const Folder folder;
  const StackKeys keys(folder.path);
  ASSERT_TRUE(keys.prepare(options_of(folder)).ok());
  chmod(keys.secret("worker").c_str(), 0644);
  EXPECT_THAT(keys.prepare(options_of(folder)).refusal().message, HasSubstr("chmod 600"));
}

TEST(KeyPairFiles, AreNotOverwritten) {
  const Folder folder;
  const auto first = write_key_pair(folder.path, "a");
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(keys::read_public_key_file(folder.path + "/a.public").value().front().text(), first.value());
  EXPECT_EQ(keys::read_secret_key_file(folder.path + "/a.secret").value().public_key().text(), first.value());
  EXPECT_THAT(write_key_pair(folder.path, "a").refusal().message, HasSubstr("not overwritten"));
  std::filesystem::remove(folder.path + "/a.public");
  EXPECT_THAT(write_key_pair(folder.path, "a").refusal().message, HasSubstr("not overwritten"));
}

}  // namespace
}  // namespace stack_keys_test
}  // namespace optserve::cli
