# Conversion against independent readers and writers; included by this folder's CMakeLists.txt.
add_executable(convert_tool ${CMAKE_CURRENT_LIST_DIR}/convert_tool.cc)
target_link_libraries(convert_tool PRIVATE optserve::converter_core)
