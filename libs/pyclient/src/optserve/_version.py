"""The version of optserve, as CMakeLists.txt has it."""

__version__ = "0.2.0"
