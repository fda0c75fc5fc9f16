#include "http/message/multipart.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace optserve::http {
namespace multipart_test {

struct Collected final : FormParts {
  bool on_part(std::string_view name, std::string_view file) override {
    parts.push_back({std::string(name), std::string(file), ""});
    return parts.size() <= parts_max;
  }
  bool on_content(std::string_view bytes) override {
    parts.back().content += bytes;
    return true;
  }
  struct Part {
    std::string name, file, content;
    bool operator==(const Part&) const = default;
  };
  std::vector<Part> parts;
  size_t parts_max = 100;
};

std::string part(const std::string& disposition, const std::string& content) {
  return "--XYZ\r\nContent-Disposition: form-data; " + disposition + "\r\nContent-Type: text/plain\r\n\r\n" + content +
         "\r\n";
}

// Reads the form in pieces of `size`. Returns the message, which is empty if all went well.
std::string read(const std::string& form, size_t size, Collected& parts) {
  MultipartReader reader("XYZ", parts);
  for (size_t at = 0; at < form.size(); at += size) {
    if (!reader.feed(std::string_view(form).substr(at, size))) return "failed: " + reader.message();
  }
  return reader.is_complete() ? "" : "incomplete";
}

TEST(Multipart, ReadsPartsInPiecesOfAnySize) {
  std::string tricky = "a\r\n--XY\r\n--XYY\r\r\n\n-";
  tricky += std::string("\0\xff", 2);
  const std::string form = part("name=\"purpose\"", "batch") + part("name=empty", "") +
                           part("name=\"file\"; filename=\"my \\\"in\\\"; x.jsonl\"", tricky) + "--XYZ--\r\nignored";
  const std::vector<Collected::Part> expected = {
      {"purpose", "", "batch"}, {"empty", "", ""}, {"file", "my \"in\"; x.jsonl", tricky}};
  for (size_t size = 1; size <= form.size(); ++size) {
    Collected parts;
    ASSERT_EQ(read(form, size, parts), "") << size;
    ASSERT_EQ(parts.parts, expected) << size;
  }
}

TEST(Multipart, RefusesWhatIsNoForm) {
  const auto message_of = [](const std::string& form) {
    Collected parts;
    return read(form, 7, parts);
  };
  EXPECT_EQ(message_of("{\"purpose\":\"batch\"}"),
            "failed: the form does not begin with the boundary that Content-Type names");
  EXPECT_EQ(message_of("--XYZ\r\nContent-Type: text/plain\r\n\r\nx\r\n--XYZ--"),
            "failed: a part of the form has no name");
  EXPECT_EQ(message_of("--XYZ\r\nX: " + std::string(20'000, 'x')),
            "failed: the header of a part of the form is too large");
  EXPECT_EQ(message_of("--XYZfoo"), "failed: a boundary of the form is followed by something else");
  EXPECT_EQ(message_of(part("name=a", "x")), "incomplete");
  std::string many;
  for (int i = 0; i < 40; ++i) many += part("name=a", "x");
  EXPECT_EQ(message_of(many), "failed: the form has more than 32 parts");
}

TEST(Multipart, TheOwnerCanEndTheReading) {
  Collected parts;
  parts.parts_max = 1;
  EXPECT_EQ(read(part("name=a", "x") + part("name=b", "y") + "--XYZ--", 5, parts), "failed: ");
  EXPECT_EQ(parts.parts.front().content, "x");
}

TEST(Multipart, TheBoundaryComesFromContentType) {
  EXPECT_EQ(multipart_boundary("multipart/form-data; boundary=abc"), "abc");
  EXPECT_EQ(multipart_boundary("Multipart/Form-Data;charset=utf-8; Boundary=\"a b\""), "a b");
  for (const char* wrong : {"", "application/json", "multipart/form-data", "multipart/form-data; boundary=",
                            "multipart/form-data; boundary=\"open", "multipart/mixed; boundary=abc"}) {
    EXPECT_FALSE(multipart_boundary(wrong)) << wrong;
  }
  EXPECT_FALSE(multipart_boundary("multipart/form-data; boundary=" + std::string(71, 'x')));
}

}  // namespace multipart_test
}  // namespace optserve::http
