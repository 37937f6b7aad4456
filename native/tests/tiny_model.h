// A random model of the Llama family with heads, packed as the Python side packs it, whose sizes fit nothing evenly.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "../heads.h"
#include "../model.h"
#include "../packing.h"

namespace medusa::testing {

struct Variant {
    WeightType type = WeightType::int8;
    int64_t window = 0;
    bool tied = true;
    const char* isa = "portable";
    int threads = 1;
};

// Hidden size and vocabulary end inside a panel, linears take 1, 2 and 2 blocks of channels of which the last is short,
// 4 queries share a key (tiles of 3 + 1), and a head has 32 + 8 channels.
inline Shape tiny_shape(const Variant& variant) {
    Shape shape{};
    shape.layers = 2, shape.hidden = 40, shape.intermediate = 264, shape.heads = 8, shape.kv_heads = 2;
    shape.head_dim = 40, shape.vocabulary = 51;
    shape.context = 300, shape.window = variant.window;
    // Whole groups of channels, one of the linears with whole tiles for AMX.
    if (variant.type == WeightType::int4) shape.hidden = 96, shape.intermediate = 320;
    shape.norm_epsilon = 1e-5f, shape.rope_amplitude = 1.0f;
    for (int i = 0; i < shape.head_dim / 2; ++i) shape.inverse_frequencies.push_back(1.0f / float(1 + i));
    return shape;
}

// Arrays of exactly the size that the engine may read: a sanitizer sees the first byte beyond.
class Arrays {
public:
    explicit Arrays(WeightType type) : type_(type) {}

    const float* vector(int size, float middle = 0.0f, int padded = 0) {
        floats_.emplace_back(padded ? padded : size, 0.0f);
        for (int i = 0; i < size; ++i) floats_.back()[i] = middle + uniform_(random_);
        return floats_.back().data();
    }

    // narrow: of int4, if the model is; what is not is int8 there.
    Linear linear(int n, int k, bool bias = false, bool narrow = false) {
        std::vector<float> weights(size_t(n) * k);
        for (float& weight : weights) weight = uniform_(random_);
        const int padded = round_up(n, kPanel);
        Linear out;
        out.n = n, out.k = k, out.type = type_ == WeightType::int4 && !narrow ? WeightType::int8 : type_;
        if (out.type == WeightType::int4) {
            for (float& weight : weights) weight = std::floor(weight * 16) / 16;
            codes_.emplace_back(out.bytes());
            floats_.emplace_back(padded);
            if (!pack_int4(weights.data(), n, k, codes_.back().data(), floats_.back().data(), 2)) std::abort();
            out.weights = codes_.back().data(), out.scale = floats_.back().data();
        } else if (out.type == WeightType::int8) {
            bytes_.emplace_back(size_t(padded) * k);
            floats_.emplace_back(padded);
            pack_int8(weights.data(), n, k, bytes_.back().data(), floats_.back().data(), 2);
            out.weights = bytes_.back().data(), out.scale = floats_.back().data();
        } else {
            floats_.emplace_back(size_t(padded) * k);
            pack_fp32(weights.data(), n, k, floats_.back().data(), 2);
            out.weights = floats_.back().data();
        }
        if (bias) out.bias = vector(n, 0.0f, padded);
        return out;
    }

private:
    WeightType type_;
    std::mt19937 random_{17};
    std::uniform_real_distribution<float> uniform_{-0.5f, 0.5f};
    std::deque<std::vector<float>> floats_;  // a deque moves nothing
    std::deque<std::vector<int8_t>> bytes_;
    std::deque<std::vector<uint8_t>> codes_;
};

inline Weights tiny_weights(Arrays& arrays, const Shape& shape, bool tied) {
    const int attended = shape.heads * shape.head_dim;
    Weights weights;
    for (int index = 0; index < shape.layers; ++index) {
        Layer layer;
        layer.qkv = arrays.linear(attended + 2 * shape.kv_heads * shape.head_dim, shape.hidden, index == 0, true);
        layer.output = arrays.linear(shape.hidden, attended, false, true);
        layer.gate_up = arrays.linear(2 * shape.intermediate, shape.hidden, false, true);
        layer.down = arrays.linear(shape.hidden, shape.intermediate, false, true);
        layer.attention_norm = arrays.vector(shape.hidden, 1.0f);
        layer.mlp_norm = arrays.vector(shape.hidden, 1.0f);
        if (index == 1) layer.query_norm = arrays.vector(shape.head_dim, 1.0f);
        if (index == 1) layer.key_norm = arrays.vector(shape.head_dim, 1.0f);
        weights.layers.push_back(layer);
    }
    weights.norm = arrays.vector(shape.hidden, 1.0f);
    weights.head = arrays.linear(shape.vocabulary, shape.hidden);
    weights.embedding = tied ? weights.head : arrays.linear(shape.vocabulary, shape.hidden);
    return weights;
}

// Two blocks per head, conditioned on the root, a shared projection to every other token.
inline HeadsWeights deep_heads(Arrays& arrays, const Shape& shape) {
    HeadsWeights weights;
    weights.heads = 3, weights.hidden = shape.hidden, weights.draft = 25;
    weights.has_blocks = weights.has_root = true;
    weights.first = arrays.linear(weights.heads * shape.hidden, shape.hidden, true);
    weights.root = arrays.linear(weights.heads * shape.hidden, shape.hidden);
    weights.rest.emplace_back();
    for (int head = 0; head < weights.heads; ++head)
        weights.rest.back().push_back(arrays.linear(shape.hidden, shape.hidden, true));
    weights.projections.push_back(arrays.linear(weights.draft, shape.hidden));
    for (int id = 0; id < weights.draft; ++id) weights.tokens.push_back(2 * id);
    weights.inverse_temperatures = {1.0f, 0.5f, 2.0f};
    return weights;
}

// A projection of its own per head and nothing else.
inline HeadsWeights flat_heads(Arrays& arrays, const Shape& shape) {
    HeadsWeights weights;
    weights.heads = 2, weights.hidden = shape.hidden, weights.draft = shape.vocabulary;
    for (int head = 0; head < weights.heads; ++head)
        weights.projections.push_back(arrays.linear(shape.vocabulary, shape.hidden));
    weights.inverse_temperatures = {1.0f, 1.0f};
    return weights;
}

// A model with both kinds of heads; the same weights for the same type and tying, whatever else the variant says.
struct Tiny {
    explicit Tiny(const Variant& variant)
        : arrays(variant.type),
          model(tiny_shape(variant), tiny_weights(arrays, tiny_shape(variant), variant.tied), *find_kernels(variant.isa),
                std::make_shared<Threads>(variant.threads)),
          deep(deep_heads(arrays, model.shape()), model),
          flat(flat_heads(arrays, model.shape()), model) {}

    Arrays arrays;
    Model model;
    Heads deep, flat;
};

}  // namespace medusa::testing
