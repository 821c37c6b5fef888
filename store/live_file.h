// The file in which the writer of a shelf shows its counters to other processes: `<shelf>/counters`, one LivePage.
//
// The counters themselves are the process's own memory. A thread copies them into the file four times a second, when
// they have changed. A shared mapping would need no thread, but then whoever truncates the file kills the writer
// (SIGBUS), a put may wait for a page fault behind the file system's journal, and a forked child counts for its parent.
//
// The file says who wrote it in the words of LOCK. A reader believes a page only while that lock is held with the very
// same words, so what a killed writer left is never taken for a live one's, also where its pid was given anew.

#ifndef TENSORSHELF_STORE_LIVE_FILE_H_
#define TENSORSHELF_STORE_LIVE_FILE_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/disk.h"
#include "store/live_page.h"
#include "store/store_file.h"

namespace tensorshelf {

// How often a writer looks whether its counters have changed.
inline constexpr absl::Duration kLiveEvery = absl::Milliseconds(250);

// Thread-safe. For the process that holds the shelf's LOCK.
class LiveFile {
 public:
  struct Options {
    Disk* disk = nullptr;  // must outlive the LiveFile
    std::string path;      // of the file; what stands there is replaced
    // The page but for sequence and updated_ns. Called from the thread of the LiveFile, until its destruction.
    std::function<LivePage()> sample;
    absl::Duration every = kLiveEvery;
  };

  // Writes the first page. Where the file cannot be made or written (a full disk), nothing is left of it, nothing is
  // tried again, and status() says why: the counters are for this process alone then.
  explicit LiveFile(Options options);
  // Removes the file.
  ~LiveFile();
  LiveFile(const LiveFile&) = delete;
  LiveFile& operator=(const LiveFile&) = delete;

  absl::Status status() const;

 private:
  absl::Status Make();
  absl::Status Write();
  void GiveUp(const absl::Status& status);
  void Loop();

  const Options options_;
  std::unique_ptr<File> file_;  // the constructor's, then the thread's
  LivePage written_;            // the same
  mutable absl::Mutex mutex_;   // a leaf
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;  // last: starts when all else is there
};

struct LiveReading {
  std::string shelf;  // its path, absolute
  StoreFile store_file;
  std::string writer;  // the holder of LOCK
  LivePage page;
};

// What the writer of a shelf counts now. Reads STORE, LOCK and the page, and nothing else. NotFound: no store there.
// FailedPrecondition: nobody writes to it, or the writer shows no counters; the message says what is there instead.
absl::StatusOr<LiveReading> ReadLive(Disk& disk, const std::string& shelf);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_LIVE_FILE_H_
