// The table of kernels of one instruction set. All tables give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace medusa {

constexpr int kPanel = 16;   // output channels of a panel of packed weights
constexpr int kBlock = 256;  // input channels that share a scale in a row of quantised activations
// 256 * 127 * 32767 < 2^31: no sum over a block can overflow an int32, whatever the weights are.
static_assert(int64_t{kBlock} * 127 * 32767 < INT32_MAX);

inline int round_up(int n, int to) { return (n + to - 1) / to * to; }
inline int blocks_of(int k) { return (k + kBlock - 1) / kBlock; }

// int4: int8 weights of which 32 input channels of an output channel take 16 values at most, kept in 5 bits each.
enum class WeightType { fp32, int8, int4 };

constexpr int kGroup = 32;                                               // input channels that share 16 values
constexpr int kGroupBytes = 2 * 2 * kPanel + kPanel * kGroup / 2;  // of a panel: steps and starts, then 4 bits a weight

// Weights (n, k), packed in panels of 16 output channels (see packing.h); scale and bias are per output channel,
// padded to whole panels; bias may be null, scale is null for fp32.
struct Linear {
    int n = 0, k = 0;
    WeightType type = WeightType::int8;
    const void* weights = nullptr;
    const float* scale = nullptr;
    const float* bias = nullptr;

    int panels() const { return round_up(n, kPanel) / kPanel; }
    bool quantised() const { return type != WeightType::fp32; }
    size_t panel_bytes() const {
        if (type == WeightType::int4) return size_t(k) / kGroup * kGroupBytes;
        return size_t(kPanel) * k * (type == WeightType::int8 ? 1 : 4);
    }
    size_t bytes() const { return panels() * panel_bytes(); }
};

// Rows of activations as a Linear takes them: int16 with one scale per row and block, or fp32.
struct Activations {
    const int16_t* quantised = nullptr;  // (rows, stride)
    const float* scales = nullptr;       // (rows, blocks)
    const float* values = nullptr;       // (rows, stride)
    int stride = 0, blocks = 0;
};

// Where keys (or values) of one head lie: runs of `count` vectors, `stride` floats apart, in the order of positions.
// Those that are kept as fp16 lie one behind the other at `halves`, and `first` is null.
struct Run {
    const float* first;
    int count;
    int stride;
    const uint16_t* halves = nullptr;
};

// A query and what its row alone sees, behind what all rows see. Queries of a row stand together, `in` one behind the
// other.
struct Query {
    const float* in;
    float* out;
    int row;
    const Run *keys, *values;
    int runs;
};

// Queries that share a head of keys and values, and see the same of them first.
struct Attention {
    int head_dim;
    float scale;
    const Run *keys, *values;  // that all queries see
    int runs;
    const Query* queries;
    int count;
    int skip;  // slots before the first position, where a window cuts the keys inside a group of eight
    // Scratch: (count + 1, stride), for all positions and 8 more; (count + 1, head_dim); (count); the longest run of
    // halves.
    float *scores, *packed, *factors, *widened;
    int stride;
};

struct Kernels {
    const char* name;
    // out (rows, out_stride) = or += activations * weights, panels [begin, end). out has room for whole panels.
    void (*linear)(const Linear&, const Activations&, int rows, float* out, int out_stride, bool add, int begin,
                   int end);
    // One block of a row to int16 and its scale.
    void (*quantise)(const float* x, int count, int16_t* out, float* scale);
    void (*norm)(const float* x, const float* weight, float epsilon, int count, float* out);
    // x * cos and sin of its position, halves of the head paired.
    void (*rotate)(float* x, const float* cosines, const float* sines, int half);
    // gate[i] = silu(gate[i]) * up[i]
    void (*gate)(float* gate, const float* up, int count);
    // x[i] += silu(inner[i] + other[i]); other may be null.
    void (*residual_silu)(float* x, const float* inner, const float* other, int count);
    void (*attend)(const Attention&);
    // To the nearest fp16, ties to even, at most 65504; and back. count is a multiple of 8.
    void (*narrow)(const float* x, int count, uint16_t* out);
    void (*widen)(const uint16_t* x, int count, float* out);
    // Index of the largest value, the first of equals.
    int (*argmax)(const float* x, int count);
    // log of the sum of exp(x / temperature); count is a multiple of 8 or padded with -inf.
    float (*log_sum_exp)(const float* x, int count, float inverse_temperature);
};

extern const Kernels kPortableKernels;
#if defined(MEDUSA_X86)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
const Kernels& amx_kernels();
#endif

// The table of that name, or for "auto" the best one that this processor runs; null if there is none.
const Kernels* find_kernels(const char* name);

}  // namespace medusa
