// The protocol as data and as tables of docs/protocol.md, made from the lists of fields that the codec uses. Only
// describe_protocol and the test that compares the documents with the code link it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace optserve::protocol {

// What validate() demands of a field of a job: bounds of a number's value, of a text's bytes, or of a list's entries.
struct FieldBounds {
  enum class Of { kNothing, kNumber, kBytes, kName, kEntries } of = Of::kNothing;  // kName: of [A-Za-z0-9._-]
  double min = 0, max = 0;
};

// What the lists of fields do not say about a field.
struct FieldNote {
  std::string_view field;  // "Submit.jobs"; ".request" means the field of this name in every struct
  std::string_view meaning;
  FieldBounds bounds = {};
};
const std::vector<FieldNote>& field_notes();
// The note of the struct's own field, or else the note of all fields with the name; nullptr if there is none.
const FieldNote* find_note(std::string_view structure, std::string_view field);

// docs/protocol.json.
std::string describe_protocol();

// A part of docs/protocol.md that is made from the code: the text between `<!-- made from the code: NAME -->` and `<!--
// end of NAME -->`.
struct MadePart {
  std::string name;
  std::string text;
};
std::vector<MadePart> made_parts();
// The page with its parts replaced. Throws Error if the page lacks a part.
std::string with_made_parts(std::string page);

}  // namespace optserve::protocol
