// The ceiling that every figure is divided by: a bare libaio loop with O_DIRECT, touched huge-page buffers and a file
// that was written before. It shares no code with the engine on purpose: a ceiling that used it would rise and fall
// with it.
//
// raw_ceiling FILE BYTES makes and fills FILE, then answers each line of standard input with one line of JSON:
//   write BYTES                     sequential, 1 MiB x 32 in flight, then fdatasync
//   read BYTES                      the same, without the sync
//   random COUNT LENGTH DEPTH SEED  aligned reads of LENGTH at random places

#include <fcntl.h>
#include <libaio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <random>
#include <string>
#include <vector>

namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kBlock = kMiB;
constexpr int kDepth = 32;
constexpr uint64_t kBufferBytes = 64 * kMiB;

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::exit(1);
}

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

struct Transfer {
  uint64_t offset;
  uint64_t length;
};

// Keeps `depth` transfers in flight until all are done; each must be whole.
void Run(int fd, bool write, const std::vector<Transfer>& transfers, int depth, char* buffer) {
  io_context_t context = nullptr;
  if (const int error = io_setup(depth, &context); error != 0) {
    errno = -error;
    Die("io_setup");
  }
  std::vector<iocb> ops(depth);
  std::vector<iocb*> idle;
  for (iocb& op : ops) idle.push_back(&op);
  std::vector<io_event> events(depth);
  const uint64_t slot_bytes = kBufferBytes / depth;
  size_t next = 0;
  size_t done = 0;
  while (done < transfers.size()) {
    std::vector<iocb*> batch;
    while (next < transfers.size() && !idle.empty()) {
      iocb* op = idle.back();
      idle.pop_back();
      char* memory = buffer + static_cast<uint64_t>(op - ops.data()) * slot_bytes;
      const Transfer& transfer = transfers[next++];
      if (write) {
        io_prep_pwrite(op, fd, memory, transfer.length, static_cast<long long>(transfer.offset));
      } else {
        io_prep_pread(op, fd, memory, transfer.length, static_cast<long long>(transfer.offset));
      }
      batch.push_back(op);
    }
    for (size_t sent = 0; sent < batch.size();) {
      const int taken = io_submit(context, static_cast<long>(batch.size() - sent), batch.data() + sent);
      if (taken <= 0) {
        errno = -taken;
        Die("io_submit");
      }
      sent += static_cast<size_t>(taken);
    }
    const int count = io_getevents(context, 1, depth, events.data(), nullptr);
    if (count < 0) {
      errno = -count;
      Die("io_getevents");
    }
    for (int i = 0; i < count; ++i) {
      if (events[i].res != events[i].obj->u.c.nbytes) Die("short transfer");
      idle.push_back(events[i].obj);
      ++done;
    }
  }
  io_destroy(context);
}

std::vector<Transfer> Sequential(uint64_t bytes) {
  std::vector<Transfer> transfers;
  for (uint64_t at = 0; at < bytes; at += kBlock) transfers.push_back({at, std::min(kBlock, bytes - at)});
  return transfers;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: raw_ceiling FILE BYTES\n";
    return 2;
  }
  const uint64_t size = std::stoull(argv[2]);
  const int fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC | O_DIRECT | O_CLOEXEC, 0600);
  if (fd < 0) Die(argv[1]);
  if (posix_fallocate(fd, 0, static_cast<off_t>(size)) != 0) Die("posix_fallocate");
  char* buffer = static_cast<char*>(
      mmap(nullptr, kBufferBytes + 2 * kMiB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (buffer == MAP_FAILED) Die("mmap");
  buffer += 2 * kMiB - reinterpret_cast<uintptr_t>(buffer) % (2 * kMiB);
  madvise(buffer, kBufferBytes, MADV_HUGEPAGE);
  std::memset(buffer, 0x5a, kBufferBytes);
  Run(fd, true, Sequential(size), kDepth, buffer);
  if (fdatasync(fd) != 0) Die("fdatasync");
  std::cout << "{\"ready\": true}" << std::endl;

  std::string command;
  while (std::cin >> command) {
    std::vector<Transfer> transfers;
    int depth = kDepth;
    uint64_t bytes = 0;
    if (command == "random") {
      uint64_t count = 0, length = 0, seed = 0;
      std::cin >> count >> length >> depth >> seed;
      std::mt19937_64 random(seed);
      for (uint64_t i = 0; i < count; ++i) transfers.push_back({random() % (size / length) * length, length});
    } else {
      std::cin >> bytes;
      transfers = Sequential(bytes);
    }
    const auto begin = std::chrono::steady_clock::now();
    const double cpu = CpuSeconds();
    Run(fd, command == "write", transfers, depth, buffer);
    if (command == "write" && fdatasync(fd) != 0) Die("fdatasync");
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    std::printf("{\"seconds\": %.6f, \"cpu\": %.6f}\n", seconds.count(), CpuSeconds() - cpu);
    std::fflush(stdout);
  }
  close(fd);
  unlink(argv[1]);
  return 0;
}
