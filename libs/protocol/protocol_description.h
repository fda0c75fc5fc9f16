// The protocol as data and as tables of docs/protocol.md, made from the lists of fields that the codec uses. Needed by
// describe_protocol and by the test that holds the documents to the code; no program links it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace optserve::protocol {

// What validate() demands of a field of a job: of a number its value, of a text its bytes, of a list its entries.
struct FieldBounds {
  enum class Of { kNothing, kNumber, kBytes, kName, kEntries } of = Of::kNothing;  // kName: of [A-Za-z0-9._-]
  double min = 0, max = 0;
};

// What the lists of fields do not say of one.
struct FieldNote {
  std::string_view field;  // "Submit.jobs"; ".request" means the field of this name in every struct
  std::string_view meaning;
  FieldBounds bounds = {};
};
const std::vector<FieldNote>& field_notes();
// The note of the struct's own field, else that of every field with the name; nullptr: there is none.
const FieldNote* find_note(std::string_view structure, std::string_view field);

// docs/protocol.json.
std::string describe_protocol();

// A part of docs/protocol.md that is made from the code: what stands between `<!-- made from the code: NAME -->` and
// `<!-- end of NAME -->`.
struct MadePart {
  std::string name;
  std::string text;
};
std::vector<MadePart> made_parts();
// The page with its parts replaced. Throws Error if the page lacks a part.
std::string with_made_parts(std::string page);

}  // namespace optserve::protocol
