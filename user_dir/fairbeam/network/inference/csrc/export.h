// How functions are offered to Python.
#pragma once

#include <cstdint>

// Export `function` as fairbeam_<function>, which takes a pointer to its struct of arguments. Python declares the same
// structs and compares their layouts (layouts.cpp) before it uses the library.
#define FAIRBEAM_EXPORT(function, Arguments)                                                             \
    extern "C" __attribute__((visibility("default"))) void fairbeam_##function(fairbeam::Arguments* a) { \
        fairbeam::function(*a);                                                                          \
    }
