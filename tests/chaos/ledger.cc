#include "ledger.h"

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <sstream>

#include "base/error.h"

namespace optserve::chaos {
namespace {

// Text as one word: hex digits after a dash, so that empty text is a word as well.
std::string pack(std::string_view text) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string packed = "-";
  for (const char c : text) {
    packed += kDigits[static_cast<uint8_t>(c) >> 4];
    packed += kDigits[static_cast<uint8_t>(c) & 15];
  }
  return packed;
}

std::string unpack(const std::string& packed) {
  std::string text;
  for (size_t i = 1; i + 1 < packed.size(); i += 2) {
    text += static_cast<char>(std::stoi(packed.substr(i, 2), nullptr, 16));
  }
  return text;
}

Follow& current_follow(JobStory& job) {
  if (job.follows.empty()) job.follows.emplace_back();
  return job.follows.back();
}

void read_piece(JobStory& job, int64_t at_ms, std::istream& words) {
  Piece piece{at_ms, 0, {}};
  std::string packed;
  words >> piece.offset >> packed;
  piece.text = unpack(packed);
  Follow& follow = current_follow(job);
  follow.piece_after_final |= !follow.finals.empty();
  follow.pieces.push_back(std::move(piece));
}

void read_final(JobStory& job, int64_t at_ms, std::istream& words) {
  Final final{at_ms, {}, 0, 0, {}, {}};
  std::string text, message;
  words >> final.state >> final.attempts >> final.losses >> text >> message;
  final.text = unpack(text);
  final.message = unpack(message);
  current_follow(job).finals.push_back(std::move(final));
}

void read_entry(char kind, JobStory& job, int64_t at_ms, std::istream& words) {
  if (kind == 'E') return read_piece(job, at_ms, words);
  if (kind == 'F') return read_final(job, at_ms, words);
  std::string word;
  words >> word;
  switch (kind) {
    case 'I':
      if (job.intended_ms == 0) job.intended_ms = at_ms;
      break;
    case 'A':
      if (job.ids.empty()) job.accepted_ms = at_ms;
      job.ids.push_back(word);
      break;
    case 'R':
      job.codes.push_back(word);
      break;
    case 'U':
      ++job.no_answers;
      break;
    case 'K':
      job.conflicts.push_back(word);
      break;
    case 'T':
      job.follows.emplace_back().from = std::stoull(word);
      break;
    case 'L':
      current_follow(job).lost = unpack(word);
      break;
    case 'C':
      job.cancel_asked = true;
      break;
    case 'c':
      job.cancel_states.push_back(word);
      break;
    default:
      throw Error("no such entry");
  }
}

}  // namespace

int64_t now_ms() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

LedgerWriter::LedgerWriter(const std::string& path)
    : fd_(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) {
  if (fd_ < 0) throw errno_error("open " + path);
}

LedgerWriter::~LedgerWriter() { close(fd_); }

void LedgerWriter::line(char kind, uint64_t job, std::string_view rest) {
  std::string text(1, kind);
  text += ' ' + std::to_string(now_ms()) + ' ' + std::to_string(job) + ' ';
  text += rest;
  text += '\n';
  if (write(fd_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) throw errno_error("write the ledger");
}

void LedgerWriter::piece(uint64_t job, uint64_t offset, std::string_view text) {
  line('E', job, std::to_string(offset) + ' ' + pack(text));
}

void LedgerWriter::finish(uint64_t job, const protocol::JobResult& result) {
  std::string rest(protocol::job_state_name(result.state));
  rest += ' ' + std::to_string(result.attempts) + ' ' + std::to_string(result.losses.size());
  line('F', job, rest + ' ' + pack(result.text) + ' ' + pack(result.message));
}

void LedgerWriter::lose(uint64_t job, const Refusal& why) {
  line('L', job, pack(std::string(error_code_name(why.code)) + ": " + why.message));
}

const Final* JobStory::final() const {
  for (const Follow& follow : follows) {
    if (!follow.finals.empty()) return &follow.finals.front();
  }
  return nullptr;
}

uint64_t JobStory::received() const {
  uint64_t end = 0;
  for (const Follow& follow : follows) {
    for (const Piece& piece : follow.pieces) {
      if (piece.offset <= end) end = std::max<uint64_t>(end, piece.offset + piece.text.size());
    }
  }
  return end;
}

Ledger read_ledger(const std::string& path) {
  Ledger ledger;
  std::ifstream file(path, std::ios::binary);
  std::string text;
  for (size_t number = 1; std::getline(file, text); ++number) {
    std::istringstream words(text);
    char kind = 0;
    int64_t at_ms = 0;
    uint64_t job = 0;
    try {
      if (!(words >> kind >> at_ms >> job)) throw Error("not an entry");
      read_entry(kind, ledger[job], at_ms, words);
    } catch (const std::exception& error) {
      throw Error(path + ":" + std::to_string(number) + ": " + error.what());
    }
  }
  return ledger;
}

}  // namespace optserve::chaos
