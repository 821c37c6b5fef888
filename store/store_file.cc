#include "store/store_file.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/name.h"
#include "store/uuid.h"

namespace tensorshelf {
namespace {

// Hints are paths, and a path may hold any byte but NUL; a line of this file must not hold a line end.
std::string EscapeHint(const std::string& hint) {
  std::string out;
  for (const char c : hint) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else {
      out += c;
    }
  }
  return out;
}

std::optional<std::string> UnescapeHint(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out += text[i];
      continue;
    }
    if (++i == text.size()) return std::nullopt;
    if (text[i] == '\\') {
      out += '\\';
    } else if (text[i] == 'n') {
      out += '\n';
    } else if (text[i] == 'r') {
      out += '\r';
    } else {
      return std::nullopt;
    }
  }
  return out;
}

absl::StatusOr<StoreFile::Device> ParseDevice(const std::string& value) {
  const size_t space = value.find(' ');
  if (space == std::string::npos) return absl::DataLossError("device without a path hint");
  StoreFile::Device device;
  const absl::StatusOr<Uuid> uuid = ParseUuid(value.substr(0, space));
  if (!uuid.ok()) return absl::DataLossError(std::string(uuid.status().message()));
  device.uuid = *uuid;
  const std::optional<std::string> hint = UnescapeHint(value.substr(space + 1));
  if (!hint) return absl::DataLossError("path hint with a backslash that escapes nothing");
  if (hint->empty()) return absl::DataLossError("device with an empty path hint");
  device.path_hint = *hint;
  return device;
}

// The state of one parse: what has been seen, beside the result.
struct Parser {
  StoreFile file;
  bool format_seen = false;
  bool uuid_seen = false;

  absl::Status Take(const std::string& key, const std::string& value) {
    if (key == "format") return TakeFormat(value);
    if (!format_seen) return absl::DataLossError("the first key must be format");
    if (key == "store_uuid") return TakeUuid(value);
    if (key == "device") {
      TS_ASSIGN_OR_RETURN(StoreFile::Device device, ParseDevice(value));
      for (const StoreFile::Device& other : file.devices) {
        if (other.uuid == device.uuid) {
          return absl::DataLossError(absl::StrCat("device ", UuidText(device.uuid), " for the second time"));
        }
      }
      file.devices.push_back(std::move(device));
      return absl::OkStatus();
    }
    file.unknown.emplace_back(key, value);
    return absl::OkStatus();
  }

  absl::Status TakeFormat(const std::string& value) {
    if (format_seen) return absl::DataLossError("format for the second time");
    if (value != absl::StrCat(kStoreFileFormat)) {
      return absl::FailedPreconditionError(
          absl::StrCat("format is \"", EscapeForTerminal(value), "\", this build reads ", kStoreFileFormat));
    }
    format_seen = true;
    return absl::OkStatus();
  }

  absl::Status TakeUuid(const std::string& value) {
    if (uuid_seen) return absl::DataLossError("store_uuid for the second time");
    const absl::StatusOr<Uuid> uuid = ParseUuid(value);
    if (!uuid.ok()) return absl::DataLossError(std::string(uuid.status().message()));
    file.store_uuid = *uuid;
    uuid_seen = true;
    return absl::OkStatus();
  }
};

}  // namespace

std::string FormatStoreFile(const StoreFile& store_file) {
  std::string text = absl::StrCat("format=", kStoreFileFormat, "\nstore_uuid=", UuidText(store_file.store_uuid), "\n");
  for (const StoreFile::Device& device : store_file.devices) {
    absl::StrAppend(&text, "device=", UuidText(device.uuid), " ", EscapeHint(device.path_hint), "\n");
  }
  for (const auto& [key, value] : store_file.unknown) absl::StrAppend(&text, key, "=", value, "\n");
  return text;
}

absl::StatusOr<StoreFile> ParseStoreFile(const std::string& text) {
  Parser parser;
  size_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    const std::string where = absl::StrCat("STORE line ", ++number);
    if (line.empty() || line[0] == '#') continue;
    const size_t equals = line.find('=');
    if (equals == std::string::npos || equals == 0) {
      return absl::DataLossError(
          absl::StrCat(where, ": not key=value: \"", EscapeForTerminal(line.substr(0, 64)), "\""));
    }
    TS_RETURN_IF_ERROR(Annotate(parser.Take(line.substr(0, equals), line.substr(equals + 1)), where));
  }
  if (!parser.format_seen) return absl::DataLossError("STORE has no format line");
  if (!parser.uuid_seen) return absl::DataLossError("STORE has no store_uuid line");
  return std::move(parser.file);
}

std::string PathHint(const std::string& shelf, const std::string& device) {
  if (device == shelf) return ".";
  const std::string inside = shelf == "/" ? "/" : shelf + "/";
  return device.starts_with(inside) ? device.substr(inside.size()) : device;
}

std::string ResolveHint(const std::string& shelf, const std::string& hint) {
  if (hint == ".") return shelf;
  if (hint.starts_with("/")) return hint;
  return shelf == "/" ? "/" + hint : shelf + "/" + hint;
}

}  // namespace tensorshelf
