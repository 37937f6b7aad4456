// The table for AVX-512 with VNNI: its own tile and attention, everything else from AVX2. Same bits: integer sums have no
// order, and floating point ones keep theirs.
#include "attention.h"
#include "linear.h"
#include "norm.h"

namespace medusa {
namespace {

// A panel's weights, four pairs of input channels at a time, as int16: `next` goes on, `pair` is one of them.
class Bytes {
public:
    explicit Bytes(const void* panel) : at_(static_cast<const char*>(panel) - 4 * kBytes) {}
    void next(int, Prefetch& prefetch) {
        at_ += 4 * kBytes;
        prefetch.fetch(), prefetch.fetch();
    }
    template <int I>
    __m512i pair() const {
        return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at_ + I * kBytes)));
    }

private:
    static constexpr int kBytes = 2 * kPanel;
    const char* at_;
};

// Of int4: the codes' lines in turn, steps and starts of a group once for both channels of a pair.
class Nibbles {
public:
    explicit Nibbles(const void* panel) : at_(static_cast<const char*>(panel) - 64) {}
    void next(int index, Prefetch& prefetch) {
        at_ += 64;
        if (index % 4 == 0) {
            const __m512i both = _mm512_loadu_si512(at_);
            const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
            const __m512i twice = _mm512_or_si512(lanes, _mm512_slli_epi32(lanes, 16));
            step_ = _mm512_permutexvar_epi16(twice, both);
            start_ = _mm512_permutexvar_epi16(_mm512_add_epi16(twice, _mm512_set1_epi16(kPanel)), both);
            prefetch.fetch();
            at_ += 64;
        }
        prefetch.fetch();
        line_ = _mm512_loadu_si512(at_);
    }
    template <int I>
    __m512i pair() const {
        const __m512i shifted = I ? _mm512_srli_epi16(line_, 4 * I) : line_;
        const __m512i code = I < 3 ? _mm512_and_si512(shifted, _mm512_set1_epi16(15)) : shifted;
        return _mm512_srai_epi16(_mm512_add_epi16(_mm512_mullo_epi16(code, step_), start_), 8);
    }

private:
    const char* at_;
    __m512i step_, start_, line_;
};

// A whole panel in one register, so up to 12 rows at a time.
struct Avx512Tile {
    static constexpr int kRows = 12;

    static void run(const Linear& linear, const void* panel, const Activations& x, int row, int rows,
                    Prefetch prefetch, Sums& sums) {
        switch (rows) {
#define MEDUSA_CASE(n)                                                               \
    case n:                                                                          \
        if (linear.type == WeightType::int8)                                         \
            return integer_tile<n, Bytes>(linear.k, panel, x, row, prefetch, sums);  \
        if (linear.type == WeightType::int4)                                         \
            return integer_tile<n, Nibbles>(linear.k, panel, x, row, prefetch, sums); \
        return fp32_tile<n>(linear.k, panel, x, row, sums);
            MEDUSA_CASE(1) MEDUSA_CASE(2) MEDUSA_CASE(3) MEDUSA_CASE(4) MEDUSA_CASE(5) MEDUSA_CASE(6)
            MEDUSA_CASE(7) MEDUSA_CASE(8) MEDUSA_CASE(9) MEDUSA_CASE(10) MEDUSA_CASE(11) MEDUSA_CASE(12)
        }
    }

#define MEDUSA_EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)

    template <int ROWS, class Weights>
    static __attribute__((noinline)) void integer_tile(int k, const void* panel, const Activations& x, int row, Prefetch prefetch, Sums& sums) {
        Weights weights(panel);
        const int16_t* x0 = x.quantised + size_t(row) * x.stride;
        const size_t stride = x.stride;
#define MEDUSA_CLEAR(r) __m512 f##r = _mm512_setzero_ps();
        MEDUSA_EACH(MEDUSA_CLEAR)
        for (int block = 0; block < x.blocks; ++block) {
            const int pairs = std::min(kBlock, k - block * kBlock) / 2;
#define MEDUSA_ZERO(r) __m512i a##r = _mm512_setzero_si512(), b##r = a##r;
            MEDUSA_EACH(MEDUSA_ZERO)
            for (int i = 0; i < pairs; i += 4) {
                weights.next(i / 4, prefetch);
// Few rows have registers for two sums each, and need them: one would wait for itself.
#define MEDUSA_ROW(r)                                                           \
    if constexpr (ROWS > r) {                                                   \
        __m512i& other = ROWS <= 8 ? b##r : a##r;                               \
        a##r = _mm512_dpwssd_epi32(a##r, first, pair(xp + r * stride));         \
        __asm__("" : "+v"(a##r));                                               \
        other = _mm512_dpwssd_epi32(other, second, pair(xp + r * stride + 2));  \
        __asm__("" : "+v"(other));                                              \
    }
#define MEDUSA_PAIRS(n)                                                                     \
    {                                                                                       \
        const int16_t* xp = x0 + 2 * (i + n);                                               \
        const __m512i first = weights.template pair<n>(), second = weights.template pair<n + 1>(); \
        MEDUSA_EACH(MEDUSA_ROW)                                                             \
    }
                MEDUSA_PAIRS(0)
                MEDUSA_PAIRS(2)
            }
            x0 += kBlock;
            const float* scale = x.scales + size_t(row) * x.blocks + block;
            // Multiplied and added apart, as in the other tables.
#define MEDUSA_FLUSH(r)                                                                                \
    if constexpr (ROWS > r)                                                                            \
        f##r = _mm512_add_ps(f##r, _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(a##r, b##r)),                              \
                                                 _mm512_set1_ps(scale[size_t(r) * x.blocks])));
            MEDUSA_EACH(MEDUSA_FLUSH)
        }
#define MEDUSA_KEEP(r) \
    if constexpr (ROWS > r) _mm512_storeu_ps(sums[r], f##r);
        MEDUSA_EACH(MEDUSA_KEEP)
    }

    static void unpack(const char* panel, int k, int8_t* out) {
        Nibbles weights(panel);
        Prefetch none{panel, 0};
        const __m512i order = _mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0);
        for (int line = 0; line < k / 8; ++line, out += 128) {
            weights.next(line, none);
            _mm512_storeu_si512(out, _mm512_permutexvar_epi64(order, _mm512_packs_epi16(weights.pair<0>(), weights.pair<1>())));
            _mm512_storeu_si512(out + 64, _mm512_permutexvar_epi64(order, _mm512_packs_epi16(weights.pair<2>(), weights.pair<3>())));
        }
    }

    static __m512i pair(const int16_t* p) {
        int32_t both;
        std::memcpy(&both, p, 4);
        return _mm512_set1_epi32(both);
    }

    template <int ROWS>
    static __attribute__((noinline)) void fp32_tile(int k, const void* panel, const Activations& x, int row, Sums& sums) {
        const float* w = static_cast<const float*>(panel);
        const float* x0 = x.values + size_t(row) * x.stride;
        const size_t stride = x.stride;
        MEDUSA_EACH(MEDUSA_CLEAR)
        for (int i = 0; i < k; ++i, w += kPanel) {
            _mm_prefetch(reinterpret_cast<const char*>(w) + 2048, _MM_HINT_T0);
            const __m512 v = _mm512_loadu_ps(w);
#define MEDUSA_FP32(r) \
    if constexpr (ROWS > r) f##r = _mm512_fmadd_ps(v, _mm512_set1_ps(x0[i + r * stride]), f##r);
            MEDUSA_EACH(MEDUSA_FP32)
        }
        MEDUSA_EACH(MEDUSA_KEEP)
    }
};

using L = Avx2Lanes;

// Sixteen channels, for sums over positions.
struct Avx512Lanes {
    static constexpr int kLanes = 16;
    using V = __m512;
    static void prefetch(const float* p) { Avx2Lanes::prefetch(p); }
    static V load(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, V a) { _mm512_storeu_ps(p, a); }
    static V load_half(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
    static V set(float x) { return _mm512_set1_ps(x); }
    static V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
};

// Scores of two queries side by side in a register, eight channels each, so that each score is the same sum by lanes.
struct PairScores {
    static constexpr int kTogether = 6, kStep = 2;

    static void pack(const Query* queries, int count, int head_dim, float* packed) {
        for (int j = 0; j < round_up(count, 2); ++j) {
            const float* from = queries[std::min(j, count - 1)].in;
            float* to = packed + size_t(j / 2) * 2 * head_dim + 8 * (j % 2);
            for (int d = 0; d < head_dim; d += 8) _mm256_storeu_ps(to + 2 * d, _mm256_loadu_ps(from + d));
        }
    }

    static void tile(const float* queries, int count, int head_dim, const Run& keys, const Run* next, float scale,
                     float* scores, int stride) {
        const auto run = count <= 2 ? tile_of<1> : count <= 4 ? tile_of<2> : tile_of<3>;
        run(queries, head_dim, keys, next, scale, scores, stride);
    }

    template <int PAIRS>
    static void tile_of(const float* queries, int head_dim, const Run& keys, const Run* next, float scale, float* scores,
                        int stride) {
        each_four<L>(keys, next, head_dim, [&](int i, const float* const k[4]) {
            four<PAIRS>(queries, k, _mm512_set1_ps(scale), head_dim, scores + i, stride);
        });
    }

    template <int PAIRS>
    static void four(const float* q, const float* const k[4], __m512 scale, int head_dim, float* scores, int stride) {
        __m512 sum[PAIRS][4];
        MEDUSA_UNROLL
        for (int j = 0; j < PAIRS; ++j)
            MEDUSA_UNROLL
            for (int i = 0; i < 4; ++i) sum[j][i] = _mm512_setzero_ps();
        for (int d = 0; d < head_dim; d += 8) {
            __m512 key[4];
            MEDUSA_UNROLL
            for (int i = 0; i < 4; ++i) key[i] = twice(k[i] + d);
            MEDUSA_UNROLL
            for (int j = 0; j < PAIRS; ++j) {
                const __m512 x = _mm512_loadu_ps(q + size_t(j) * 2 * head_dim + 2 * d);
                MEDUSA_UNROLL
                for (int i = 0; i < 4; ++i) sum[j][i] = _mm512_fmadd_ps(x, key[i], sum[j][i]);
            }
        }
        MEDUSA_UNROLL
        for (int j = 0; j < PAIRS; ++j) {
            // Lanes are added as in Avx2Lanes::sums: neighbours, neighbours again, then the two halves of eight.
            const __m512 four = neighbours(neighbours(sum[j][0], sum[j][1]), neighbours(sum[j][2], sum[j][3]));
            const __m512 all = _mm512_mul_ps(_mm512_add_ps(four, _mm512_shuffle_f32x4(four, four, 0xb1)), scale);
            _mm_storeu_ps(scores + size_t(2 * j) * stride, _mm512_castps512_ps128(all));
            _mm_storeu_ps(scores + size_t(2 * j + 1) * stride, _mm512_extractf32x4_ps(all, 2));
        }
    }

    static __m512 twice(const float* p) { return _mm512_castpd_ps(_mm512_broadcast_f64x4(_mm256_loadu_pd(reinterpret_cast<const double*>(p)))); }

    static __m512 neighbours(__m512 a, __m512 b) {
        return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
    }
};

}  // namespace

const Kernels kAvx512Kernels = {
    "avx512",  linear<L, Avx512Tile>, quantise<L>, norm<L>, rotate<L>, gate<L>, residual_silu<L>, attend<L, PairScores, Avx512Lanes, 6>, narrow<L>, widen<L>, argmax<L>,
    log_sum_exp<L>};

}  // namespace medusa
