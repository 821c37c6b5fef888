#include "store/relocate.h"

#include <algorithm>

#include "engine/foundation/status_macros.h"
#include "engine/linux_disk.h"
#include "store/shelf_files.h"
#include "store/shelf_lock.h"
#include "store/store_core.h"

namespace tensorshelf {

absl::StatusOr<std::vector<RelocatedDevice>> RelocateShelf(const std::string& path,
                                                           const std::vector<std::string>& directories, bool dry_run,
                                                           Disk* disk) {
  std::unique_ptr<Disk> own_disk;
  if (disk == nullptr) {
    own_disk = NewLinuxDisk();
    disk = own_disk.get();
  }
  const std::string shelf = AbsolutePath(path);
  FindOptions options;
  for (const std::string& directory : directories) options.extra_directories.push_back(AbsolutePath(directory));
  TS_ASSIGN_OR_RETURN(const ShelfFiles found, FindShelfFiles(*disk, shelf, options));
  if (!found.damaged.empty()) return found.damaged.front().status;
  std::vector<std::unique_ptr<FileLock>> locks;
  if (!dry_run) {
    TS_ASSIGN_OR_RETURN(locks, LockShelf(*disk, shelf, directories));
  }
  StoreFile store_file = found.store_file;
  std::vector<RelocatedDevice> devices;
  for (const StoreFile::Device& device : store_file.devices) devices.push_back({device.uuid, device.path_hint, ""});
  for (const FoundFile& file : found.files) {
    auto device = std::ranges::find(devices, file.label.device_uuid, &RelocatedDevice::uuid);
    if (device == devices.end()) device = devices.insert(devices.end(), {file.label.device_uuid, "", ""});
    device->directory = file.file->directory;
  }
  store_file.devices.clear();
  for (const RelocatedDevice& device : devices) {
    store_file.devices.push_back(
        {device.uuid, device.directory.empty() ? device.old_hint : PathHint(shelf, device.directory)});
  }
  if (!dry_run && !(store_file == found.store_file)) {
    TS_RETURN_IF_ERROR(ReplaceFile(*disk, JoinPath(shelf, kStoreFileName), FormatStoreFile(store_file)));
  }
  return devices;
}

}  // namespace tensorshelf
