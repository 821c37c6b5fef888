#include "tools/cli/listing.h"

#include "engine/foundation/status_macros.h"
#include "tools/cli/glob.h"

namespace tensorshelf::cli {
namespace {

constexpr size_t kPageNames = 1024;

}  // namespace

NameFilter FilterOf(const std::string& text, bool literal) {
  if (literal || !IsPattern(text)) return {text, ""};
  return {LiteralPrefix(text), text};
}

absl::Status VisitNames(Store& store, const NameFilter& filter,
                        const std::function<bool(const std::string& name)>& visit) {
  return store.Scan(filter.prefix, filter.prefix, [&](const std::string& name, uint64_t) {
    return (!filter.pattern.empty() && !MatchesPattern(filter.pattern, name)) || visit(name);
  });
}

absl::Status VisitObjects(Store& store, const NameFilter& filter,
                          const std::function<absl::StatusOr<bool>(const Object& object)>& visit) {
  std::string start = filter.prefix;
  bool more = true;
  while (more) {
    std::vector<std::string> page;
    size_t seen = 0;
    TS_RETURN_IF_ERROR(store.Scan(filter.prefix, start, [&](const std::string& name, uint64_t) {
      if (filter.pattern.empty() || MatchesPattern(filter.pattern, name)) page.push_back(name);
      start = name;
      return ++seen < kPageNames;
    }));
    start.push_back('\0');  // the first name behind the last one seen
    more = seen == kPageNames;
    for (const std::string& name : page) {
      const absl::StatusOr<Object> object = store.Find(name);
      if (absl::IsNotFound(object.status())) continue;
      TS_RETURN_IF_ERROR(object.status());
      TS_ASSIGN_OR_RETURN(const bool go_on, visit(*object));
      if (!go_on) return absl::OkStatus();
    }
  }
  return absl::OkStatus();
}

absl::Status VisitRecords(Store& store, const NameFilter& filter,
                          const std::function<bool(const ListedRecord& listed)>& visit) {
  TS_ASSIGN_OR_RETURN(const std::unique_ptr<ObjectCursor> cursor, store.NewCursor(filter.prefix, ""));
  while (true) {
    TS_ASSIGN_OR_RETURN(const bool there, cursor->Next());
    if (!there) return absl::OkStatus();
    if (!filter.pattern.empty() && !MatchesPattern(filter.pattern, cursor->name())) continue;
    if (!visit({cursor->name(), cursor->status(), cursor->record()})) return absl::OkStatus();
  }
}

}  // namespace tensorshelf::cli
