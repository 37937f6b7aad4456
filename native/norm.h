// Norm, rotary positions, gates, quantisation of activations: a row at a time, each sum in a fixed order.
#pragma once

#include "kernels.h"
#include "lanes.h"

namespace medusa {
namespace {

// Root mean square norm over a multiple of 8 channels.
template <class L>
void norm(const float* x, const float* weight, float epsilon, int count, float* out) {
    auto squares = L::set(0.0f);
    for (int i = 0; i < count; i += 8) {
        auto v = L::load(x + i);
        squares = L::fma(v, v, squares);
    }
    auto factor = L::set(1.0f / std::sqrt(L::sum(squares) / float(count) + epsilon));
    for (int i = 0; i < count; i += 8)
        L::store(out + i, L::mul(L::mul(L::load(x + i), factor), L::load(weight + i)));
}

template <class L>
void rotate(float* x, const float* cosines, const float* sines, int half) {
    for (int i = 0; i < half; ++i) {
        float a = x[i], b = x[i + half];
        x[i] = a * cosines[i] - b * sines[i];
        x[i + half] = b * cosines[i] + a * sines[i];
    }
}

template <class L>
void gate(float* gates, const float* up, int count) {
    for (int i = 0; i < count; i += 8)
        L::store(gates + i, L::mul(silu<L>(L::load(gates + i)), L::load(up + i)));
}

template <class L>
void residual_silu(float* x, const float* inner, const float* other, int count) {
    for (int i = 0; i < count; i += 8) {
        auto v = L::load(inner + i);
        if (other) v = L::add(v, L::load(other + i));
        L::store(x + i, L::add(L::load(x + i), silu<L>(v)));
    }
}

template <class L>
void quantise(const float* x, int count, int16_t* out, float* scale) {
    auto most = L::set(0.0f);
    for (int i = 0; i < count; i += 8) most = L::max(L::abs(L::load(x + i)), most);
    float lanes[8], largest = 0.0f;
    L::store(lanes, most);
    for (float lane : lanes) largest = lane > largest ? lane : largest;
    // Below this the factor would overflow; such a block is as good as zero.
    const bool vanishes = largest < 1e-30f;
    auto factor = L::set(vanishes ? 0.0f : 32767.0f / largest);
    *scale = vanishes ? 0.0f : largest / 32767.0f;
    for (int i = 0; i < count; i += 8) L::store_int16(out + i, L::mul(L::load(x + i), factor));
}

template <class L>
void narrow(const float* x, int count, uint16_t* out) {
    const auto most = L::set(65504.0f), least = L::set(-65504.0f);
    for (int i = 0; i < count; i += 8) L::store_half(out + i, L::min(L::max(L::load(x + i), least), most));
}

template <class L>
void widen(const uint16_t* x, int count, float* out) {
    for (int i = 0; i < count; i += 8) L::store(out + i, L::load_half(x + i));
}

template <class L>
int argmax(const float* x, int count) {
    float best = -INFINITY;
    int i = 0;
    if (count >= 8) {
        auto most = L::set(-INFINITY);
        for (; i + 8 <= count; i += 8) most = L::max(L::load(x + i), most);
        float lanes[8];
        L::store(lanes, most);
        for (float lane : lanes) best = lane > best ? lane : best;
    }
    for (; i < count; ++i) best = x[i] > best ? x[i] : best;
    for (int place = 0; place < count; ++place)
        if (x[place] == best) return place;
    return 0;
}

template <class L>
float log_sum_exp(const float* x, int count, float inverse_temperature) {
    float most = x[argmax<L>(x, count)] * inverse_temperature;
    auto factor = L::set(inverse_temperature), shift = L::set(most), sum = L::set(0.0f);
    for (int i = 0; i < count; i += 8)
        sum = L::add(sum, exponential<L>(L::sub(L::mul(L::load(x + i), factor), shift)));
    return most + std::log(L::sum(sum));
}

}  // namespace
}  // namespace medusa
