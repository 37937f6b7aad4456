// The table for AVX2 and FMA.
#include "attention.h"
#include "linear.h"
#include "norm.h"

// GCC reorders the integer sums of a step, for which it then lacks registers. An empty statement that says "here the sum
// is in a register" keeps them in order.
#if defined(__GNUC__)
#define MEDUSA_PIN(sum) __asm__("" : "+x"(sum))
#define MEDUSA_NOINLINE __attribute__((noinline))
#else
#define MEDUSA_PIN(sum)
#define MEDUSA_NOINLINE
#endif

namespace medusa {
namespace {

// 16 channels of up to 6 rows. Accumulators are named one by one: compilers spill arrays of them to the stack.
struct Avx2Tile {
    static constexpr int kRows = 6;

    static void run(const Linear& linear, const void* panel, const Activations& x, int row, int rows,
                    Prefetch prefetch, Sums& sums) {
        const bool int8 = linear.type == WeightType::int8;
        switch (rows) {
            case 1: return int8 ? int8_tile<1>(linear.k, panel, x, row, prefetch, sums) : fp32_tile<1>(linear.k, panel, x, row, sums);
            case 2: return int8 ? int8_tile<2>(linear.k, panel, x, row, prefetch, sums) : fp32_tile<2>(linear.k, panel, x, row, sums);
            case 3: return int8 ? int8_tile<3>(linear.k, panel, x, row, prefetch, sums) : fp32_tile<3>(linear.k, panel, x, row, sums);
            case 4: return int8 ? int8_tile<4>(linear.k, panel, x, row, prefetch, sums) : fp32_tile<4>(linear.k, panel, x, row, sums);
            case 5: return int8 ? int8_tile<5>(linear.k, panel, x, row, prefetch, sums) : fp32_tile<5>(linear.k, panel, x, row, sums);
            default: return int8 ? int8_tile<6>(linear.k, panel, x, row, prefetch, sums) : fp32_tile<6>(linear.k, panel, x, row, sums);
        }
    }

    static __m256i pair(const int16_t* p) {
        int32_t both;
        std::memcpy(&both, p, 4);
        return _mm256_set1_epi32(both);
    }

    template <int ROWS>
    static MEDUSA_NOINLINE void int8_tile(int k, const void* panel, const Activations& x, int row, Prefetch prefetch, Sums& sums) {
        const int8_t* w = static_cast<const int8_t*>(panel);
        const int16_t* x0 = x.quantised + size_t(row) * x.stride;
        const size_t stride = x.stride;
        for (int r = 0; r < ROWS; ++r)
            for (int c = 0; c < kPanel; c += 8) _mm256_store_ps(sums[r] + c, _mm256_setzero_ps());
        for (int block = 0; block < x.blocks; ++block) {
            const int pairs = std::min(kBlock, k - block * kBlock) / 2;
            __m256i a0 = _mm256_setzero_si256(), a1 = a0, a2 = a0, a3 = a0, a4 = a0, a5 = a0;
            __m256i b0 = a0, b1 = a0, b2 = a0, b3 = a0, b4 = a0, b5 = a0;
            for (int i = 0; i < pairs; i += 2) {
                _mm_prefetch(prefetch.line, _MM_HINT_T0);
                prefetch.line += prefetch.step;
#define MEDUSA_ROW(r)                                                 \
    if constexpr (ROWS > r) {                                         \
        const __m256i v = pair(xp + r * stride);                      \
        a##r = _mm256_add_epi32(a##r, _mm256_madd_epi16(low, v));     \
        b##r = _mm256_add_epi32(b##r, _mm256_madd_epi16(high, v));    \
        MEDUSA_PIN(a##r);                                             \
        MEDUSA_PIN(b##r);                                             \
    }
#define MEDUSA_PAIR(n)                                                                                          \
    {                                                                                                           \
        const int16_t* xp = x0 + 2 * (i + n);                                                                   \
        const __m256i low = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 32 * n)));       \
        const __m256i high = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 32 * n + 16))); \
        MEDUSA_ROW(0) MEDUSA_ROW(1) MEDUSA_ROW(2) MEDUSA_ROW(3) MEDUSA_ROW(4) MEDUSA_ROW(5)                     \
    }
                MEDUSA_PAIR(0)
                MEDUSA_PAIR(1)
                w += 64;
            }
            x0 += kBlock;
            const float* scale = x.scales + size_t(row) * x.blocks + block;
#define MEDUSA_FLUSH(r)                                                            \
    if constexpr (ROWS > r) {                                                      \
        const __m256 s = _mm256_set1_ps(scale[size_t(r) * x.blocks]);              \
        add_scaled(sums[r], a##r, s);                                              \
        add_scaled(sums[r] + 8, b##r, s);                                          \
    }
            MEDUSA_FLUSH(0) MEDUSA_FLUSH(1) MEDUSA_FLUSH(2) MEDUSA_FLUSH(3) MEDUSA_FLUSH(4) MEDUSA_FLUSH(5)
        }
    }

    static void add_scaled(float* sums, __m256i total, __m256 scale) {
        _mm256_store_ps(sums, _mm256_add_ps(_mm256_load_ps(sums), _mm256_mul_ps(_mm256_cvtepi32_ps(total), scale)));
    }

    template <int ROWS>
    static MEDUSA_NOINLINE void fp32_tile(int k, const void* panel, const Activations& x, int row, Sums& sums) {
        const float* w = static_cast<const float*>(panel);
        const float* x0 = x.values + size_t(row) * x.stride;
        const size_t stride = x.stride;
        __m256 a0 = _mm256_setzero_ps(), a1 = a0, a2 = a0, a3 = a0, a4 = a0, a5 = a0;
        __m256 b0 = a0, b1 = a0, b2 = a0, b3 = a0, b4 = a0, b5 = a0;
        for (int i = 0; i < k; ++i, w += kPanel) {
            _mm_prefetch(reinterpret_cast<const char*>(w) + 2048, _MM_HINT_T0);
            const __m256 low = _mm256_loadu_ps(w), high = _mm256_loadu_ps(w + 8);
#define MEDUSA_FP32(r)                                            \
    if constexpr (ROWS > r) {                                     \
        const __m256 v = _mm256_set1_ps(x0[i + r * stride]);      \
        a##r = _mm256_fmadd_ps(low, v, a##r);                     \
        b##r = _mm256_fmadd_ps(high, v, b##r);                    \
    }
            MEDUSA_FP32(0) MEDUSA_FP32(1) MEDUSA_FP32(2) MEDUSA_FP32(3) MEDUSA_FP32(4) MEDUSA_FP32(5)
        }
#define MEDUSA_KEEP(r)                        \
    if constexpr (ROWS > r) {                 \
        _mm256_store_ps(sums[r], a##r);       \
        _mm256_store_ps(sums[r] + 8, b##r);   \
    }
        MEDUSA_KEEP(0) MEDUSA_KEEP(1) MEDUSA_KEEP(2) MEDUSA_KEEP(3) MEDUSA_KEEP(4) MEDUSA_KEEP(5)
    }
};

using L = Avx2Lanes;

}  // namespace

const Kernels kAvx2Kernels = {
    "avx2",  linear<L, Avx2Tile>, quantise<L>, norm<L>, rotate<L>, gate<L>, residual_silu<L>, attend<L, Scores<L>, L, 3>, narrow<L>, widen<L>, argmax<L>,
    log_sum_exp<L>};

}  // namespace medusa
