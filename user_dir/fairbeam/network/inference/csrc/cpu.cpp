#include "cpu.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace fairbeam {
namespace {

Isa detected() {
#if FAIRBEAM_X86
    __builtin_cpu_init();
#define HAS(feature) (__builtin_cpu_supports(feature) != 0)
    if (!(HAS("avx2") && HAS("fma") && HAS("bmi") && HAS("bmi2"))) return Isa::kBaseline;
    if (!(HAS("avx512f") && HAS("avx512bw") && HAS("avx512cd") && HAS("avx512dq") && HAS("avx512vl")))
        return Isa::kAvx2;
    return HAS("avx512vnni") ? Isa::kVnni : Isa::kAvx512;
#undef HAS
#else
    return Isa::kBaseline;
#endif
}

Isa allowed() {
    const char* wanted = std::getenv("FAIRBEAM_CPU_ISA");
    const char* const names[] = {"baseline", "avx2", "avx512", "vnni"};
    for (int i = 0; wanted && i < 4; ++i) {
        if (!std::strcmp(wanted, names[i])) return static_cast<Isa>(i);
    }
    return Isa::kVnni;  // Python has refused other names
}

}  // namespace

Isa cpu_isa() {
    static const Isa isa = std::min(detected(), allowed());
    return isa;
}

}  // namespace fairbeam
