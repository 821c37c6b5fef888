#include "tools/cli/opening.h"

#include "absl/strings/str_cat.h"
#include "store/name.h"
#include "tools/cli/text.h"

namespace tensorshelf::cli {
namespace {

StoreOptions Options(StoreOptions::Mode mode, Console& console) {
  StoreOptions options;
  options.mode = mode;
  // One command's memory is short-lived: locking it and keeping it would only cost time.
  options.page_locked = false;
  options.result_pool_bytes = uint64_t{1} << 30;
  options.background_fill = false;
  options.notice = [&console](const std::string& message) {
    console.err << "tensorshelf: note: " << PrintableMessage(message) << "\n";
  };
  return options;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> OpenForLooking(const std::string& path, Console& console) {
  StoreOptions options = Options(StoreOptions::Mode::kReadOnly, console);
  options.degraded = true;
  options.staging_bytes = 2 * options.io.io_size;  // the least there can be
  options.io.queue_depth = 2;
  return Store::Open(path, options);
}

absl::StatusOr<std::unique_ptr<Store>> OpenForReading(const std::string& path, Console& console) {
  StoreOptions options = Options(StoreOptions::Mode::kReadOnly, console);
  options.degraded = true;
  return Store::Open(path, options);
}

absl::StatusOr<std::unique_ptr<Store>> OpenForWriting(const std::string& path, Console& console) {
  return Store::Open(path, Options(StoreOptions::Mode::kReadWrite, console));
}

std::string StandingText(const StoreInfo& info) {
  std::string text = absl::StrCat("at commit ", info.commit);
  if (info.mode == "beside-writer")
    absl::StrAppend(&text, ", beside a live writer (", EscapeForTerminal(info.writer), ")");
  return text;
}

}  // namespace tensorshelf::cli
