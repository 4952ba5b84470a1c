// The one place that knows what processors have.
//
// Vectors of 16 numbers (simd.h) run on every processor, since compilers break them down; kernels written with them are
// compiled for several instruction sets by FAIRBEAM_DISPATCH. Products of integers (int_gemm.cpp) need the AVX-512 VNNI
// instructions and are marked TARGET_VNNI.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#define FAIRBEAM_X86 1
#define TARGET_AVX2 __attribute__((target("arch=x86-64-v3")))
#define TARGET_AVX512 __attribute__((target("arch=x86-64-v4")))
#define TARGET_VNNI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#else
#define FAIRBEAM_X86 0
#endif
#define INLINE inline __attribute__((always_inline))

namespace fairbeam {

// Instruction sets in ascending order: each has all instructions of those before it. Another one (AMX) goes to the end,
// with its name and its features in cpu.cpp and a TARGET_ macro here.
enum class Isa { kBaseline, kAvx2, kAvx512, kVnni };

// Return the highest instruction set that this processor has and that the environment variable FAIRBEAM_CPU_ISA
// ("baseline", "avx2", "avx512" or "vnni") allows. Both are read once.
Isa cpu_isa();

}  // namespace fairbeam

// Define the function `name` that calls `name_kernel`, an INLINE function, compiled for the processor it runs on.
// Parameters and arguments stand in parentheses: FAIRBEAM_DISPATCH(scale, (float* x, float factor), (x, factor))
#if FAIRBEAM_X86
#define FAIRBEAM_DISPATCH(name, parameters, arguments)                              \
    TARGET_AVX512 static void name##_avx512 parameters { name##_kernel arguments; } \
    TARGET_AVX2 static void name##_avx2 parameters { name##_kernel arguments; }     \
    static void name##_baseline parameters { name##_kernel arguments; }             \
    void name parameters {                                                          \
        const Isa isa = cpu_isa();                                                  \
        if (isa >= Isa::kAvx512) return name##_avx512 arguments;                    \
        if (isa >= Isa::kAvx2) return name##_avx2 arguments;                        \
        return name##_baseline arguments;                                           \
    }
#else
#define FAIRBEAM_DISPATCH(name, parameters, arguments) \
    void name parameters { name##_kernel arguments; }
#endif
