# The packages of an image as an SPDX 2.3 document: those that were copied or compiled in (packages.tsv: name,
# version, how), and those of the base (dpkg's status files). Sorted by the order of the files, so the same image
# gives the same text.
function quoted(text) { gsub(/\\/, "\\\\", text); gsub(/"/, "\\\"", text); return "\"" text "\"" }
function add(name, version, how,   id) {
  id = "SPDXRef-" how "-" name
  gsub(/[^A-Za-z0-9.-]/, "-", id)
  packages = packages (count++ ? ",\n" : "") "  {\"SPDXID\": " quoted(id) ", \"name\": " quoted(name) \
    ", \"versionInfo\": " quoted(version) ", \"downloadLocation\": \"NOASSERTION\", \"comment\": " quoted(how) "}"
}
function flush_status() {
  if (name != "" && state !~ /(deinstall|not-installed|config-files)/) add(name, version, "base")
  name = version = state = ""
}
FILENAME ~ /packages\.tsv$/ { split($0, field, "\t"); add(field[1], field[2], field[3]); next }
FNR == 1 { flush_status() }
/^Package: / { name = substr($0, 10) }
/^Version: / { version = substr($0, 10) }
/^Status: / { state = substr($0, 9) }
/^$/ { flush_status() }
END {
  flush_status()
  print "{\"spdxVersion\": \"SPDX-2.3\", \"dataLicense\": \"CC0-1.0\", \"SPDXID\": \"SPDXRef-DOCUMENT\","
  print " \"name\": \"optserve\", \"documentNamespace\": \"https://optserve.org/sbom/image\","
  print " \"creationInfo\": {\"created\": \"1970-01-01T00:00:00Z\", \"creators\": [\"Tool: deploy/images/sbom.awk\"]},"
  print " \"packages\": [\n" packages "\n]}"
}
