# Conversion against torch and against memory limits; included by this folder's CMakeLists.txt.
add_executable(convert_tool ${CMAKE_CURRENT_LIST_DIR}/convert_tool.cc)
target_link_libraries(convert_tool PRIVATE optserve::converter_engine)
add_dependencies(convert_tool optserve-checkpoint-reader)

add_test(NAME checkpoint_oracle
  COMMAND ${OPTSERVE_ORACLE_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/checkpoint_oracle.py $<TARGET_FILE:convert_tool>
          ${PROJECT_SOURCE_DIR}/deploy/demo-model)
set_tests_properties(checkpoint_oracle PROPERTIES LABELS e2e TIMEOUT 600)

add_test(NAME layouts_oracle
  COMMAND ${OPTSERVE_ORACLE_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/layouts_oracle.py $<TARGET_FILE:convert_tool>)
set_tests_properties(layouts_oracle PROPERTIES LABELS e2e TIMEOUT 600)

add_test(NAME export_oracle
  COMMAND ${OPTSERVE_ORACLE_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/export_oracle.py $<TARGET_FILE:convert_tool>
          ${PROJECT_SOURCE_DIR}/deploy/demo-model)
set_tests_properties(export_oracle PROPERTIES LABELS e2e TIMEOUT 600)

add_executable(checkpoint_run ${CMAKE_CURRENT_LIST_DIR}/checkpoint_run.cc)
target_link_libraries(checkpoint_run PRIVATE optserve::test_support optserve::tokenizer nlohmann_json::nlohmann_json)
add_test(NAME transformers_oracle
  COMMAND ${OPTSERVE_ORACLE_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/transformers_oracle.py $<TARGET_FILE:convert_tool>
          $<TARGET_FILE:checkpoint_run> ${PROJECT_SOURCE_DIR}/deploy/demo-model)
set_tests_properties(transformers_oracle PROPERTIES LABELS e2e TIMEOUT 900)

# Writes about 14 GB below the temporary folder and removes it again.
add_test(NAME checkpoint_memory
  COMMAND ${OPTSERVE_ORACLE_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/checkpoint_memory.py $<TARGET_FILE:convert_tool>)
set_tests_properties(checkpoint_memory PROPERTIES LABELS slow TIMEOUT 1800 RUN_SERIAL TRUE)
