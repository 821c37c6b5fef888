// Names of a shelf, a page at a time: constant memory however many there are.

#ifndef TENSORSHELF_TOOLS_CLI_LISTING_H_
#define TENSORSHELF_TOOLS_CLI_LISTING_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "store/store.h"

namespace tensorshelf::cli {

struct NameFilter {
  std::string prefix;
  std::string pattern;  // tools/cli/glob.h; empty: everything under `prefix`
};
// What a person typed: a pattern when it holds pattern characters and `literal` is not set, else a prefix.
NameFilter FilterOf(const std::string& text, bool literal);

// In byte order, until `visit` returns false. `visit` must not call the store.
absl::Status VisitNames(Store& store, const NameFilter& filter,
                        const std::function<bool(const std::string& name)>& visit);

// The same with records; names that a writer deletes meanwhile are left out. `visit` may call the store; its error ends
// the visit and is returned.
absl::Status VisitObjects(Store& store, const NameFilter& filter,
                          const std::function<absl::StatusOr<bool>(const Object& object)>& visit);

// The same, all of one commit and at the speed of the index; also names whose record is damaged, with its status.
struct ListedRecord {
  const std::string& name;
  const absl::Status& status;
  const ObjectRecord& record;  // when status is OK
};
absl::Status VisitRecords(Store& store, const NameFilter& filter,
                          const std::function<bool(const ListedRecord& listed)>& visit);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_LISTING_H_
