#include "store/live_page.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/foundation/hash.h"
#include "engine/foundation/little_endian.h"

namespace tensorshelf {
namespace {

constexpr std::array<char, 8> kMagic = {'T', 'S', 'H', 'L', 'I', 'V', 'E', 'C'};
constexpr size_t kHashAt = offsetof(LivePage, hash);

}  // namespace

void InitialiseLivePage(LivePage& page) {
  page.header.magic = kMagic;
  page.header.version = kLivePageVersion;
  page.header.size = kLivePageBytes;
  page.header.operation_count = kOperationCount;
  page.header.bucket_count = kLatencyBuckets;
}

std::string EncodeLivePage(const LivePage& page) {
  std::string bytes(reinterpret_cast<const char*>(&page), sizeof page);
  const uint64_t hash = Hash64(BytesOf(bytes).first(kHashAt));
  std::memcpy(bytes.data() + kHashAt, &hash, sizeof hash);
  return bytes;
}

absl::StatusOr<LivePage> DecodeLivePage(std::span<const std::byte> bytes) {
  if (bytes.size() < sizeof(LiveHeader)) {
    return absl::DataLossError(absl::StrCat("it has ", bytes.size(), " bytes, no page of counters"));
  }
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    return absl::DataLossError("it does not begin as a page of counters does");
  }
  // Before all else: another version may have another size.
  const auto version = LoadLittle<uint32_t>(bytes.data() + offsetof(LiveHeader, version));
  if (version != kLivePageVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("its version is ", version, ", this build reads version ", kLivePageVersion));
  }
  if (bytes.size() != kLivePageBytes) {
    return absl::DataLossError(absl::StrCat("it has ", bytes.size(), " bytes, not ", kLivePageBytes));
  }
  LivePage page;
  std::memcpy(&page, bytes.data(), sizeof page);
  if (page.hash != Hash64(bytes.first(kHashAt))) return absl::DataLossError("its hash does not match");
  const LiveHeader& header = page.header;
  if (header.size != kLivePageBytes || header.bucket_count != kLatencyBuckets ||
      header.operation_count > kLiveOperationsMax || header.device_count > kLiveDevicesMax) {
    return absl::DataLossError(absl::StrCat("its counts are impossible: size ", header.size, ", ", header.bucket_count,
                                            " buckets, ", header.operation_count, " operations, ", header.device_count,
                                            " devices"));
  }
  return page;
}

}  // namespace tensorshelf
