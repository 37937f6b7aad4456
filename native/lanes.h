// Eight float lanes, in AVX2 or in plain C++, with the same results bit for bit.
//
// Everything but the packed product is written once, over one of these two. No contraction (-ffp-contract=off), no
// fast-math: what is fused is fused by name.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace medusa {
namespace {  // each translation unit compiles these with its own instruction set

struct PortableLanes {
    static constexpr int kLanes = 8;
    struct V {
        float at[8];
    };
    template <class F>
    static V each(F f) {
        V out;
        for (int i = 0; i < 8; ++i) out.at[i] = f(i);
        return out;
    }
    static void prefetch(const float*) {}
    static V load(const float* p) { return each([&](int i) { return p[i]; }); }
    static void store(float* p, V a) { std::memcpy(p, a.at, sizeof a.at); }
    static V set(float x) { return each([&](int) { return x; }); }
    static V add(V a, V b) { return each([&](int i) { return a.at[i] + b.at[i]; }); }
    static V sub(V a, V b) { return each([&](int i) { return a.at[i] - b.at[i]; }); }
    static V mul(V a, V b) { return each([&](int i) { return a.at[i] * b.at[i]; }); }
    static V div(V a, V b) { return each([&](int i) { return a.at[i] / b.at[i]; }); }
    static V fma(V a, V b, V c) { return each([&](int i) { return std::fma(a.at[i], b.at[i], c.at[i]); }); }
    // The second operand where either is not a number, as the instructions do.
    static V max(V a, V b) { return each([&](int i) { return a.at[i] > b.at[i] ? a.at[i] : b.at[i]; }); }
    static V min(V a, V b) { return each([&](int i) { return a.at[i] < b.at[i] ? a.at[i] : b.at[i]; }); }
    static V abs(V a) { return each([&](int i) { return std::fabs(a.at[i]); }); }
    static V round(V a) { return each([&](int i) { return std::nearbyint(a.at[i]); }); }
    // a where x >= limit, else 0.
    static V keep_from(V a, V x, V limit) {
        return each([&](int i) { return x.at[i] >= limit.at[i] ? a.at[i] : 0.0f; });
    }
    // 2 to the power of whole numbers in [-126, 127].
    static V power_of_two(V n) {
        return each([&](int i) {
            int32_t bits = (static_cast<int32_t>(n.at[i]) + 127) << 23;
            float out;
            std::memcpy(&out, &bits, 4);
            return out;
        });
    }
    static float sum(V a) {
        const float* l = a.at;
        return ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7]));
    }
    // The sums of four arguments' lanes.
    static void store_sums(float* p, V a, V b, V c, V d) { p[0] = sum(a), p[1] = sum(b), p[2] = sum(c), p[3] = sum(d); }
    // Rounded to the nearest whole number, ties to even; |a| <= 32767.
    static void store_int16(int16_t* p, V a) {
        for (int i = 0; i < 8; ++i) p[i] = static_cast<int16_t>(std::nearbyint(a.at[i]));
    }
    // fp16, rounded to the nearest, ties to even; |a| <= 65504.
    static void store_half(uint16_t* p, V a) {
        for (int i = 0; i < 8; ++i) p[i] = half_of(a.at[i]);
    }
    static V load_half(const uint16_t* p) {
        return each([&](int i) { return float_of(p[i]); });
    }
    static uint16_t half_of(float x) {
        const float size = std::fabs(x);
        // Below the smallest normal number steps are 2^-24; above, as fine as ten bits of the fraction.
        int exponent;
        std::frexp(size, &exponent);
        const int step = std::max(exponent - 11, -24);
        const int units = static_cast<int>(std::nearbyint(std::ldexp(size, -step)));
        // A rounding up to the next power of two carries into the exponent, as it should.
        const int bits = size < 0x1p-14f ? units : ((step + 25) << 10) + units - 1024;
        return static_cast<uint16_t>((std::signbit(x) ? 0x8000 : 0) | bits);
    }
    static float float_of(uint16_t half) {
        const int exponent = half >> 10 & 31, fraction = half & 1023;
        const float size = exponent ? std::ldexp(float(1024 + fraction), exponent - 25) : std::ldexp(float(fraction), -24);
        return half & 0x8000 ? -size : size;
    }
};

#if defined(__AVX2__)
struct Avx2Lanes {
    static constexpr int kLanes = 8;
    using V = __m256;
    static void prefetch(const float* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }
    static V load(const float* p) { return _mm256_loadu_ps(p); }
    static void store(float* p, V a) { _mm256_storeu_ps(p, a); }
    static V set(float x) { return _mm256_set1_ps(x); }
    static V add(V a, V b) { return _mm256_add_ps(a, b); }
    static V sub(V a, V b) { return _mm256_sub_ps(a, b); }
    static V mul(V a, V b) { return _mm256_mul_ps(a, b); }
    static V div(V a, V b) { return _mm256_div_ps(a, b); }
    static V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
    static V max(V a, V b) { return _mm256_max_ps(a, b); }
    static V min(V a, V b) { return _mm256_min_ps(a, b); }
    static V abs(V a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
    static V round(V a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    static V keep_from(V a, V x, V limit) { return _mm256_and_ps(a, _mm256_cmp_ps(x, limit, _CMP_GE_OQ)); }
    static V power_of_two(V n) {
        __m256i exponent = _mm256_add_epi32(_mm256_cvttps_epi32(n), _mm256_set1_epi32(127));
        return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
    }
    static float sum(V a) { return _mm_cvtss_f32(sums(a, a, a, a)); }
    static __m128 sums(V a, V b, V c, V d) {
        V abcd = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
        return _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1));
    }
    static void store_sums(float* p, V a, V b, V c, V d) { _mm_storeu_ps(p, sums(a, b, c, d)); }
    static void store_half(uint16_t* p, V a) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
    static V load_half(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
    static void store_int16(int16_t* p, V a) {
        __m256i wide = _mm256_cvtps_epi32(a);
        __m128i low = _mm256_castsi256_si128(wide), high = _mm256_extracti128_si256(wide, 1);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packs_epi32(low, high));
    }
};
#endif

// exp for arguments up to 88; exactly 0 below -87. Relative error below 2e-7.
template <class L>
typename L::V exponential(typename L::V x) {
    using V = typename L::V;
    const V lowest = L::set(-87.0f);
    V clamped = L::min(L::max(x, lowest), L::set(88.0f));
    V n = L::round(L::mul(clamped, L::set(1.44269504088896341f)));
    V r = L::fma(n, L::set(-0.693359375f), clamped);  // ln 2 in two parts, the first one short
    r = L::fma(n, L::set(2.12194440e-4f), r);
    V p = L::set(1.0f / 720.0f);
    p = L::fma(p, r, L::set(1.0f / 120.0f));
    p = L::fma(p, r, L::set(1.0f / 24.0f));
    p = L::fma(p, r, L::set(1.0f / 6.0f));
    p = L::fma(p, r, L::set(0.5f));
    p = L::fma(p, r, L::set(1.0f));
    p = L::fma(p, r, L::set(1.0f));
    return L::keep_from(L::mul(p, L::power_of_two(n)), x, lowest);
}

template <class L>
typename L::V silu(typename L::V x) {
    using V = typename L::V;
    V e = exponential<L>(L::sub(L::set(0.0f), x));
    return L::div(x, L::add(L::set(1.0f), e));
}

}  // namespace
}  // namespace medusa
