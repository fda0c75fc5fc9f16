// The tables of docs/protocol.md, made from what docs/protocol.json says.
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "protocol/protocol_description.h"

namespace optserve::protocol {
namespace {

using Json = nlohmann::ordered_json;

bool is_for_clients(const Json& message) {
  return message["from"] == "client" || message["to"] == "client" || message["to"] == "anyone";
}

std::string text_of(const Json& value) {
  if (value.is_null()) return "nil";
  if (value.is_string()) return value.get<std::string>().empty() ? "\"\"" : "zeros";  // ids are the only ones
  return value.dump();
}

std::string bounds_text(const Json& field) {
  for (const std::string what : {"", "bytes_", "entries_"}) {
    if (!field.contains(what + "max")) continue;
    std::string text = field.value("min_excluded", false) ? "above " : "";
    text += text_of(field[what + "min"]) + " to " + text_of(field[what + "max"]);
    if (what == "bytes_") text += field.contains("pattern") ? " of `A-Za-z0-9._-`" : " bytes";
    if (what == "entries_") text += " entries";
    return text;
  }
  return "";
}

std::string fields_table(const Json& structure) {
  std::string text = "| field | type | unit | default | bounds | since | meaning |\n|---|---|---|---|---|---|---|\n";
  for (const Json& field : structure["fields"]) {
    text += "| `" + field["name"].get<std::string>() + "` | " + field["type"].get<std::string>() + " | " +
            field.value("unit", "") + " | " + text_of(field["default"]) + " | " + bounds_text(field) + " | " +
            field["since"].get<std::string>() + " | " + field.value("meaning", "") + " |\n";
  }
  return text;
}

// The messages that clients send and get, and the structs in them, or all others.
std::string field_tables(const Json& all, bool for_clients) {
  std::set<std::string> client_structs;
  const auto reach = [&](const auto& self, const std::string& name) -> void {
    for (const Json& structure : all["structs"]) {
      if (structure["name"] != name || !client_structs.insert(name).second) continue;
      for (const Json& field : structure["fields"]) {
        const std::string type = field["type"];
        self(self, type.substr(0, type.find_first_of("[?")));
      }
    }
  };
  std::map<std::string, int> kinds;
  for (const Json& message : all["messages"]) {
    const std::string name = message["name"];
    kinds[name] = message["kind"];
    if (is_for_clients(message)) reach(reach, name);
  }
  std::string text;
  for (const Json& structure : all["structs"]) {
    const std::string name = structure["name"];
    if (client_structs.contains(name) != for_clients) continue;
    const std::string kind = kinds.contains(name) ? "kind " + std::to_string(kinds[name]) + ", " : "";
    text +=
        "**" + name + "** (" + kind + structure["form"].get<std::string>() + ")\n\n" + fields_table(structure) + "\n";
  }
  return text;
}

}  // namespace

std::vector<MadePart> made_parts() {
  const Json all = Json::parse(describe_protocol());
  std::string kinds = "| kind | message | from | to | answered by |\n|---|---|---|---|---|\n";
  for (const Json& message : all["messages"]) {
    kinds += "| " + message["kind"].dump() + " | `" + message["name"].get<std::string>() + "` | " +
             message["from"].get<std::string>() + " | " + message["to"].get<std::string>() + " | " +
             (message.contains("answer") ? "`" + message["answer"].get<std::string>() + "`" : "") + " |\n";
  }
  std::string enumerations = "| enumeration | values |\n|---|---|\n";
  for (const Json& enumeration : all["enumerations"]) {
    std::string values;
    for (const Json& value : enumeration["values"]) {
      values += (values.empty() ? "" : ", ") + value["value"].dump() + " " + value["name"].get<std::string>();
    }
    enumerations += "| " + enumeration["name"].get<std::string>() + " | " + values + " |\n";
  }
  std::string codes = "| code | name | repeat? |\n|---|---|---|\n";
  for (const Json& error : all["errors"]) {
    codes += "| " + error["code"].dump() + " | `" + error["name"].get<std::string>() + "` | " +
             error["when"].get<std::string>() + " |\n";
  }
  std::string costs = "| part | bytes of the window |\n|---|---|\n";
  for (const auto& [part, cost] : all["stream_cost"].items()) costs += "| `" + part + "` | " + cost.dump() + " |\n";
  return {{"kinds", kinds},
          {"enumerations", enumerations},
          {"error codes", codes},
          {"stream costs", costs},
          {"fields of client messages", field_tables(all, true)},
          {"fields of service messages", field_tables(all, false)}};
}

std::string with_made_parts(std::string page) {
  for (const auto& [name, text] : made_parts()) {
    const std::string begin = "<!-- made from the code: " + name + " -->\n", end = "<!-- end of " + name + " -->";
    const size_t from = page.find(begin), to = page.find(end);
    if (from == page.npos || to == page.npos || to < from) throw Error("the page has no part '" + name + "'");
    page.replace(from + begin.size(), to - from - begin.size(), "\n" + text + "\n");
  }
  return page;
}

}  // namespace optserve::protocol
