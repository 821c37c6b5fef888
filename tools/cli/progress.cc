#include "tools/cli/progress.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tools/cli/text.h"

namespace tensorshelf::cli {

std::string RenderProgress(uint64_t bytes_done, uint64_t bytes_total, double seconds) {
  std::string text = FormatBytes(bytes_done);
  if (bytes_total > 0) {
    const double share = static_cast<double>(bytes_done) / static_cast<double>(bytes_total);
    absl::StrAppend(&text, " of ", FormatBytes(bytes_total), " (", static_cast<int>(share * 100), " %)");
  }
  if (seconds <= 0 || bytes_done == 0) return text;
  const double rate = static_cast<double>(bytes_done) / seconds;
  absl::StrAppend(&text, ", ", FormatBytes(static_cast<uint64_t>(rate)), "/s");
  if (bytes_total > bytes_done) {
    absl::StrAppend(&text, ", ", FormatDuration(static_cast<double>(bytes_total - bytes_done) / rate), " left");
  }
  return text;
}

ProgressLine::ProgressLine(Console& console, std::string what)
    : console_(console), what_(std::move(what)), started_(absl::Now()) {}

ProgressLine::~ProgressLine() { Clear(); }

void ProgressLine::Update(uint64_t bytes_done, uint64_t bytes_total) {
  const absl::Time now = absl::Now();
  if (!console_.progress || now - drawn_at_ < absl::Milliseconds(100)) return;
  drawn_at_ = now;
  drawn_ = true;
  console_.err << "\r\x1b[K" << what_ << " "
               << RenderProgress(bytes_done, bytes_total, absl::ToDoubleSeconds(now - started_)) << std::flush;
}

void ProgressLine::Clear() {
  if (drawn_) console_.err << "\r\x1b[K" << std::flush;
  drawn_ = false;
}

}  // namespace tensorshelf::cli
