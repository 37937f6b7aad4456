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

// A panel's weights, four pairs of input channels at a time, as int16: `next` goes on, `pair` is one of them for the
// first or the last eight output channels.
class Bytes {
public:
    explicit Bytes(const void* panel) : at_(static_cast<const char*>(panel) - 128) {}
    void next(int, Prefetch& prefetch) {
        at_ += 128;
        prefetch.fetch(), prefetch.fetch();
    }
    template <int I, int HALF>
    __m256i pair() const {
        return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at_ + 32 * I + 16 * HALF)));
    }

private:
    const char* at_;
};

// Of int4: the codes' lines in turn, steps and starts of a group once for both channels of a pair. They stay in memory,
// since the sums take the registers.
class Nibbles {
public:
    explicit Nibbles(const void* panel) : at_(static_cast<const char*>(panel) - 64) {}
    void next(int index, Prefetch& prefetch) {
        at_ += 64;
        if (index % 4 == 0) {
            for (int half = 0; half < 2; ++half) {
                _mm256_store_si256(&step_[half], twice(at_ + 16 * half));
                _mm256_store_si256(&start_[half], twice(at_ + 16 * half + 2 * kPanel));
            }
            prefetch.fetch();
            at_ += 64;
        }
        prefetch.fetch();
    }
    template <int I, int HALF>
    __m256i pair() const {
        const __m256i line = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at_) + HALF);
        const __m256i shifted = I ? _mm256_srli_epi16(line, 4 * I) : line;
        const __m256i code = I < 3 ? _mm256_and_si256(shifted, _mm256_set1_epi16(15)) : shifted;
        return _mm256_srai_epi16(_mm256_add_epi16(_mm256_mullo_epi16(code, step_[HALF]), start_[HALF]), 8);
    }

private:
    static __m256i twice(const char* from) {
        const __m256i once = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
        return _mm256_or_si256(once, _mm256_slli_epi32(once, 16));
    }

    const char* at_;
    __m256i step_[2] = {}, start_[2] = {};
};

// 16 channels of up to 6 rows. Accumulators are named one by one: compilers spill arrays of them to the stack.
struct Avx2Tile {
    static constexpr int kRows = 6;

    static void run(const Linear& linear, const void* panel, const Activations& x, int row, int rows,
                    Prefetch prefetch, Sums& sums) {
        switch (rows) {
            case 1: return tile<1>(linear, panel, x, row, prefetch, sums);
            case 2: return tile<2>(linear, panel, x, row, prefetch, sums);
            case 3: return tile<3>(linear, panel, x, row, prefetch, sums);
            case 4: return tile<4>(linear, panel, x, row, prefetch, sums);
            case 5: return tile<5>(linear, panel, x, row, prefetch, sums);
            default: return tile<6>(linear, panel, x, row, prefetch, sums);
        }
    }

    template <int ROWS>
    static void tile(const Linear& linear, const void* panel, const Activations& x, int row, Prefetch prefetch, Sums& sums) {
        if (linear.type == WeightType::int8) return integer_tile<ROWS, Bytes>(linear.k, panel, x, row, prefetch, sums);
        if (linear.type == WeightType::int4) return integer_tile<ROWS, Nibbles>(linear.k, panel, x, row, prefetch, sums);
        fp32_tile<ROWS>(linear.k, panel, x, row, sums);
    }

    static void unpack(const char* panel, int k, int8_t* out) {
        Nibbles weights(panel);
        Prefetch none{panel, 0};
        for (int line = 0; line < k / 8; ++line) {
            weights.next(line, none);
#define MEDUSA_STORE(n)                                                                                          \
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 32 * n),                                                \
                        _mm256_permute4x64_epi64(_mm256_packs_epi16(weights.pair<n, 0>(), weights.pair<n, 1>()), 0xd8));
            MEDUSA_STORE(0) MEDUSA_STORE(1) MEDUSA_STORE(2) MEDUSA_STORE(3)
            out += 128;
        }
    }

    static __m256i pair(const int16_t* p) {
        int32_t both;
        std::memcpy(&both, p, 4);
        return _mm256_set1_epi32(both);
    }

    template <int ROWS, class Weights>
    static MEDUSA_NOINLINE void integer_tile(int k, const void* panel, const Activations& x, int row, Prefetch prefetch, Sums& sums) {
        Weights weights(panel);
        const int16_t* x0 = x.quantised + size_t(row) * x.stride;
        const size_t stride = x.stride;
        for (int r = 0; r < ROWS; ++r)
            for (int c = 0; c < kPanel; c += 8) _mm256_store_ps(sums[r] + c, _mm256_setzero_ps());
        for (int block = 0; block < x.blocks; ++block) {
            const int pairs = std::min(kBlock, k - block * kBlock) / 2;
            __m256i a0 = _mm256_setzero_si256(), a1 = a0, a2 = a0, a3 = a0, a4 = a0, a5 = a0;
            __m256i b0 = a0, b1 = a0, b2 = a0, b3 = a0, b4 = a0, b5 = a0;
            for (int i = 0; i < pairs; i += 4) {
                weights.next(i / 4, prefetch);
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
        const __m256i low = weights.template pair<n, 0>(), high = weights.template pair<n, 1>();                \
        MEDUSA_ROW(0) MEDUSA_ROW(1) MEDUSA_ROW(2) MEDUSA_ROW(3) MEDUSA_ROW(4) MEDUSA_ROW(5)                     \
    }
                MEDUSA_PAIR(0)
                MEDUSA_PAIR(1)
                MEDUSA_PAIR(2)
                MEDUSA_PAIR(3)
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
