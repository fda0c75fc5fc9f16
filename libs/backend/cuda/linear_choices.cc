#include "backend/cuda/linear_choices.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <sstream>

namespace optserve::backend::cuda {
namespace {

using Way = LinearChoice::Way;

// Reads the algorithm's words in hexadecimal; `word` is the first of them.
bool read_algorithm(std::istringstream& fields, std::string word, cublasLtMatmulAlgo_t& algorithm) {
  for (uint64_t& value : algorithm.data) {
    if (word.size() != 16 || word.find_first_not_of("0123456789abcdef") != std::string::npos) return false;
    value = std::stoull(word, nullptr, 16);
    word.clear();
    fields >> word;
  }
  return true;
}

std::optional<LinearChoice> read_choice(std::istringstream& fields) {
  LinearChoice choice;
  std::string word;
  if (!(fields >> word)) return std::nullopt;
  if (word == "skinny") {
    choice.way = Way::kSkinny;
  } else if (word == "quantised") {
    choice.way = Way::kQuantised;
  } else if (word == "dequantised") {
    choice.way = Way::kDequantised;
  } else if (word == "wgmma") {
    choice.way = Way::kWgmma;
    if (!(fields >> choice.wgmma.outputs >> choice.wgmma.split)) return std::nullopt;
  } else {
    if (word == "bytes") {
      choice.way = Way::kBytes;
      fields >> word;
    }
    if (!read_algorithm(fields, word, choice.algorithm)) return std::nullopt;
  }
  return choice;
}

void write_choice(std::ostringstream& line, const LinearChoice& choice) {
  switch (choice.way) {
    case Way::kSkinny:
      line << " skinny";
      return;
    case Way::kQuantised:
      line << " quantised";
      return;
    case Way::kDequantised:
      line << " dequantised";
      return;
    case Way::kWgmma:
      line << " wgmma " << choice.wgmma.outputs << ' ' << choice.wgmma.split;
      return;
    case Way::kBytes:
      line << " bytes";
      break;
    case Way::kCublas:
      break;
  }
  char word[24];
  for (uint64_t value : choice.algorithm.data) {
    std::snprintf(word, sizeof word, " %016llx", static_cast<unsigned long long>(value));
    line << word;
  }
}

}  // namespace

// A line has flags, alignment, rows, in, out, and then the way.
LinearChoices::LinearChoices(std::string path) : path_(std::move(path)) {
  std::ifstream file(path_);
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    LinearKey key;
    if (!(fields >> key.flags >> key.alignment >> key.rows >> key.in >> key.out)) continue;
    if (const auto choice = read_choice(fields)) choices_[key] = *choice;
  }
}

const LinearChoice* LinearChoices::find(const LinearKey& key) const {
  const auto found = choices_.find(key);
  return found == choices_.end() ? nullptr : &found->second;
}

const LinearChoice& LinearChoices::keep(const LinearKey& key, const LinearChoice& choice) {
  const LinearChoice& kept = choices_[key] = choice;
  if (path_.empty()) return kept;
  std::ostringstream line;
  line << key.flags << ' ' << key.alignment << ' ' << key.rows << ' ' << key.in << ' ' << key.out;
  write_choice(line, choice);
  line << '\n';
  // One write to a file opened for appending, so that lines of several processes do not mix.
  const int fd = open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return kept;
  const std::string text = line.str();
  [[maybe_unused]] const ssize_t written = write(fd, text.data(), text.size());
  close(fd);
  return kept;
}

}  // namespace optserve::backend::cuda
