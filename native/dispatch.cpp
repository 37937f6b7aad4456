// Which instruction sets this processor has.
#include <cstring>

#include "kernels.h"

#if defined(MEDUSA_X86) && defined(_MSC_VER)
#include <intrin.h>
#endif
#if defined(MEDUSA_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace medusa {
namespace {

#if defined(MEDUSA_X86)
#if defined(_MSC_VER)
bool has_avx2() {
    int leaf1[4], leaf7[4];
    __cpuid(leaf1, 1);
    __cpuidex(leaf7, 7, 0);
    const bool fma = leaf1[2] & (1 << 12) && leaf1[2] & (1 << 29), saved = leaf1[2] & (1 << 27), avx2 = leaf7[1] & (1 << 5);
    return fma && saved && avx2 && (_xgetbv(0) & 6) == 6;
}
bool has_avx512() { return false; }
#else
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                          __builtin_cpu_supports("f16c"); }
bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vnni");
}
#endif
#endif

#if defined(MEDUSA_AMX)
// Tiles are large, so the system has to be asked for room to keep them in; once for all threads.
bool has_amx() {
    static const bool found = [] {
        constexpr long kRequestPermission = 0x1023, kTileData = 18;
        constexpr unsigned kTiles = 1u << 24, kTilesOfBytes = 1u << 25;
        unsigned a, b, c, d;
        if (!has_avx512() || !__builtin_cpu_supports("avx512vbmi") || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
        return (d & kTiles) && (d & kTilesOfBytes) && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
    }();
    return found;
}
#endif

}  // namespace

const Kernels* find_kernels(const char* name) {
    const bool any = std::strcmp(name, "auto") == 0;
#if defined(MEDUSA_AMX)
    if ((any || !std::strcmp(name, "amx")) && has_amx()) return &amx_kernels();
#endif
#if defined(MEDUSA_X86)
#if !defined(_MSC_VER)
    if ((any || !std::strcmp(name, "avx512")) && has_avx512()) return &kAvx512Kernels;
#endif
    if ((any || !std::strcmp(name, "avx2")) && has_avx2()) return &kAvx2Kernels;
#endif
    return any || !std::strcmp(name, "portable") ? &kPortableKernels : nullptr;
}

}  // namespace medusa
