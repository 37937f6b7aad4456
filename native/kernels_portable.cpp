// The table in plain C++: the reference for the others, and the path for processors that have nothing better.
#include "attention.h"
#include "linear.h"
#include "norm.h"
#include "packing.h"

#include <vector>

namespace medusa {
namespace {

struct PortableTile {
    static constexpr int kRows = 4;

    static void run(const Linear& linear, const void* panel, const Activations& x, int row, int rows, Prefetch,
                    Sums& sums) {
        for (int r = 0; r < rows; ++r)
            if (linear.type == WeightType::int4)
                int4_row(linear.k, static_cast<const char*>(panel), x, row + r, sums[r]);
            else if (linear.type == WeightType::int8)
                int8_row(linear.k, static_cast<const int8_t*>(panel), x, row + r, sums[r]);
            else
                fp32_row(linear.k, static_cast<const float*>(panel), x.values + size_t(row + r) * x.stride, sums[r]);
    }

    static void int8_row(int k, const int8_t* weights, const Activations& x, int row, float* sums) {
        const int16_t* values = x.quantised + size_t(row) * x.stride;
        std::fill(sums, sums + kPanel, 0.0f);
        for (int block = 0; block < blocks_of(k); ++block) {
            int32_t total[kPanel] = {};
            for (int i = block * kBlock; i < std::min(k, (block + 1) * kBlock); i += 2, weights += 2 * kPanel)
                for (int c = 0; c < kPanel; ++c)
                    total[c] += weights[2 * c] * values[i] + weights[2 * c + 1] * values[i + 1];
            const float scale = x.scales[size_t(row) * x.blocks + block];
            for (int c = 0; c < kPanel; ++c) sums[c] += float(total[c]) * scale;
        }
    }

    static void unpack(const char* panel, int k, int8_t* out) {
        for (int i = 0; i < k; i += kGroup, panel += kGroupBytes, out += kGroup * kPanel)
            unpack_group(reinterpret_cast<const uint8_t*>(panel), out);
    }

    static void int4_row(int k, const char* panel, const Activations& x, int row, float* sums) {
        static thread_local std::vector<int8_t> weights;
        weights.resize(size_t(k) * kPanel);
        unpack(panel, k, weights.data());
        int8_row(k, weights.data(), x, row, sums);
    }

    static void fp32_row(int k, const float* weights, const float* values, float* sums) {
        std::fill(sums, sums + kPanel, 0.0f);
        for (int i = 0; i < k; ++i, weights += kPanel)
            for (int c = 0; c < kPanel; ++c) sums[c] = std::fma(weights[c], values[i], sums[c]);
    }
};

using L = PortableLanes;

}  // namespace

const Kernels kPortableKernels = {
    "portable",  linear<L, PortableTile>, quantise<L>, norm<L>, rotate<L>, gate<L>, residual_silu<L>, attend<L, Scores<L>, L, 3>, narrow<L>, widen<L>, argmax<L>,
    log_sum_exp<L>};

}  // namespace medusa
