// The table for AMX: its own product for several rows, everything else from AVX-512. Same bits: the integer sums are the
// same numbers.
//
// A tile instruction multiplies bytes, up to 16 rows by 16 channels by 64 at a time. An activation of 16 bits is split
// into a signed high and an unsigned low byte, x = 256 high + low, so two products give what one of 16 bits would.
#include <vector>

#include "kernels.h"
#include "linear.h"

namespace medusa {
namespace {

constexpr int kFewest = 4;   // rows; the AVX-512 product is faster for fewer
constexpr int kDepth = 64;   // channels of a tile instruction
constexpr int kTileRows = 16;
constexpr int kMostTiles = kRowChunk / kTileRows;
constexpr int kSteps = kBlock / kDepth;
constexpr int kRegister = kTileRows * kDepth;  // bytes

// Tile registers, as the assembler wants them: by number.
#define MEDUSA_HIGH_SUMS 0
#define MEDUSA_LOW_SUMS 1
#define MEDUSA_HIGH 2
#define MEDUSA_LOW 3
#define MEDUSA_WEIGHTS_0 4
#define MEDUSA_WEIGHTS_1 5
#define MEDUSA_WEIGHTS_2 6
#define MEDUSA_WEIGHTS_3 7

// What tiles load has to be in memory; the compiler does not know that they read it. (Of a configuration, GCC 12's
// header names the first eight bytes only; if others are garbage, the processor faults.)
#define MEDUSA_WRITTEN __asm__ volatile("" ::: "memory")

struct alignas(64) TileConfig {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};

    explicit TileConfig(int activation_rows) {
        for (int tile = 0; tile < 8; ++tile) {
            bytes[tile] = 64;
            rows[tile] = uint8_t(tile < 4 ? activation_rows : kTileRows);
        }
    }
};

// Rows in even tiles: which rows tile `index` of `count` has.
struct Tile {
    int start, rows;
    Tile(int all, int index, int count) : start(all * index / count), rows(all * (index + 1) / count - start) {}
};

// The bytes of some rows' activations, tile by tile and step by step, as tile registers take them: (16 rows, 64
// channels) of high bytes, then as many low ones.
class Planes {
public:
    void split(const Activations& x, int from, int rows, int tiles, int k) {
        steps_ = k / kDepth;
        const size_t bytes = size_t(tiles) * steps_ * 2 * kRegister;
        if (room_.size() < bytes + 64) room_.resize(bytes + 64);
        bytes_ = room_.data() + (64 - reinterpret_cast<uintptr_t>(room_.data()) % 64) % 64;
        for (int tile = 0; tile < tiles; ++tile) {
            const Tile mine(rows, tile, tiles);
            for (int row = 0; row < mine.rows; ++row)
                split_row(x.quantised + size_t(from + mine.start + row) * x.stride, at(tile, 0) + row * kDepth);
        }
    }

    int8_t* at(int tile, int step) const { return bytes_ + (size_t(tile) * steps_ + step) * 2 * kRegister; }

private:
    void split_row(const int16_t* values, int8_t* to) const {
        for (int step = 0; step < steps_; ++step, to += 2 * kRegister)
            for (int i = 0; i < kDepth; i += 32, values += 32) {
                const __m512i v = _mm512_loadu_si512(values);
                _mm256_store_si256(reinterpret_cast<__m256i*>(to + i), _mm512_cvtepi16_epi8(_mm512_srai_epi16(v, 8)));
                _mm256_store_si256(reinterpret_cast<__m256i*>(to + kRegister + i), _mm512_cvtepi16_epi8(v));
            }
    }

    std::vector<int8_t> room_;
    int8_t* bytes_ = nullptr;
    int steps_ = 0;
};

// Weights of one block of a panel in the order of tile registers: a line holds channels 4i ... 4i + 3 of the input for
// each output channel. The panel has pairs: first channels 4i and 4i + 1 for all, then the other two.
void arrange(const char* panel, int lines, int8_t* to) {
    alignas(64) static constexpr uint16_t kOrder[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i order = _mm512_load_si512(kOrder);
    for (int i = 0; i < lines; ++i) {
        _mm_prefetch(panel + 64 * i + kLead, _MM_HINT_T0);
        _mm512_store_si512(to + 64 * i, _mm512_permutexvar_epi16(order, _mm512_loadu_si512(panel + 64 * i)));
    }
}

// The same of int4: the weights are the upper bytes of 16 bits.
void arrange_groups(const char* groups, int count, int8_t* to) {
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i twice = _mm512_or_si512(lanes, _mm512_slli_epi32(lanes, 16));
    const __m512i behind = _mm512_add_epi16(twice, _mm512_set1_epi16(kPanel));
    // Bytes 4c + 1 and 4c + 3 of one pair, then of the other: from places 1, 3, 65, 67 on, four further for each channel.
    const __m512i upper = _mm512_add_epi32(_mm512_set1_epi32(0x43410301), _mm512_mullo_epi32(lanes, _mm512_set1_epi32(0x04040404)));
    const __m512i fifteen = _mm512_set1_epi16(15);
    for (; count; --count, groups += kGroupBytes) {
        const __m512i both = _mm512_loadu_si512(groups);
        const __m512i step = _mm512_permutexvar_epi16(twice, both), start = _mm512_permutexvar_epi16(behind, both);
        const auto weights = [&](__m512i code) { return _mm512_add_epi16(_mm512_mullo_epi16(_mm512_and_si512(code, fifteen), step), start); };
        for (int i = 0; i < kGroupBytes; i += 64) _mm_prefetch(groups + i + kLead, _MM_HINT_T0);
        for (int j = 0; j < 4; ++j, to += 128) {
            const __m512i line = _mm512_loadu_si512(groups + 64 * (j + 1));
            const __m512i first = weights(line), second = weights(_mm512_srli_epi16(line, 4));
            const __m512i third = weights(_mm512_srli_epi16(line, 8)), fourth = weights(_mm512_srli_epi16(line, 12));
            _mm512_store_si512(to, _mm512_permutex2var_epi8(first, upper, second));
            _mm512_store_si512(to + 64, _mm512_permutex2var_epi8(third, upper, fourth));
        }
    }
}

void load_weights(const int8_t* weights, int steps) {
    MEDUSA_WRITTEN;
    _tile_loadd(MEDUSA_WEIGHTS_0, weights, 64);
    if (steps > 1) _tile_loadd(MEDUSA_WEIGHTS_1, weights + 1024, 64);
    if (steps > 2) _tile_loadd(MEDUSA_WEIGHTS_2, weights + 2048, 64);
    if (steps > 3) _tile_loadd(MEDUSA_WEIGHTS_3, weights + 3072, 64);
}

#define MEDUSA_STEP(i)                                                                        \
    if (steps > i) {                                                                          \
        _tile_loadd(MEDUSA_HIGH, activations + 2 * kRegister * i, kDepth);                    \
        _tile_dpbssd(MEDUSA_HIGH_SUMS, MEDUSA_HIGH, MEDUSA_WEIGHTS_##i);                      \
        _tile_loadd(MEDUSA_LOW, activations + 2 * kRegister * i + kRegister, kDepth);         \
        _tile_dpbusd(MEDUSA_LOW_SUMS, MEDUSA_LOW, MEDUSA_WEIGHTS_##i);                        \
    }

// The whole sums of one block and tile of rows.
struct alignas(64) BlockSums {
    int32_t high[kTileRows][kPanel], low[kTileRows][kPanel];

    void multiply(const int8_t* activations, int steps) {
        _tile_zero(MEDUSA_HIGH_SUMS);
        _tile_zero(MEDUSA_LOW_SUMS);
        MEDUSA_STEP(0)
        MEDUSA_STEP(1)
        MEDUSA_STEP(2)
        MEDUSA_STEP(3)
        _tile_stored(MEDUSA_HIGH_SUMS, high, 64);
        _tile_stored(MEDUSA_LOW_SUMS, low, 64);
    }

    // sums (rows, panel) += the sums, scaled. scale: of the first row, `blocks` apart.
    void add_to(Sums& sums, int rows, const float* scale, int blocks, bool first) const {
        for (int row = 0; row < rows; ++row, scale += blocks) {
            const __m512i total = _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(high[row]), 8), _mm512_load_si512(low[row]));
            const __m512 before = first ? _mm512_setzero_ps() : _mm512_load_ps(sums[row]);
            const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(total), _mm512_set1_ps(*scale));
            _mm512_store_ps(sums[row], _mm512_add_ps(before, scaled));
        }
    }
};

using L = Avx2Lanes;

// Some rows with panels [begin, end). What tiles store or load takes its time to get through memory, so each block's
// weights are arranged while the block before is multiplied, and its sums are added while the next one is.
class Product {
public:
    Product(const Linear& linear, const Activations& x, const Planes& planes, int from, int rows, int tiles, float* out,
            int out_stride, bool add)
        : linear_(linear), x_(x), planes_(planes), from_(from), rows_(rows), tiles_(tiles), out_(out), out_stride_(out_stride), add_(add) {}

    void run(int begin, int end) {
        const int blocks = x_.blocks, items = (end - begin) * blocks;
        for (int item = -1; item < items; ++item) {
            const int next = item + 1, panel = next < items ? begin + next / blocks : -1;
            const auto arrange_part = [&](int step) {
                if (panel >= 0) arrange_step(panel, next % blocks, step, weights_[next % 2]);
            };
            if (tiles_ == 1 && item >= 0) {
                run_tile(item, begin + item / blocks, item % blocks, arrange_part);
                continue;
            }
            for (int step = 0; step < kSteps; ++step) arrange_part(step);
            if (item < 0) continue;
            const int block = item % blocks;
            load_weights(weights_[item % 2], steps(block));
            for (int tile = 0; tile < tiles_; ++tile) {
                const int now = (item * tiles_ + tile) % 2;
                found_[now].multiply(planes_.at(tile, block * kSteps), steps(block));
                if (item || tile) keep(1 - now);
                waiting_ = {begin + item / blocks, block, tile};
            }
        }
        if (items) keep((items * tiles_ - 1) % 2);
    }

private:
    struct Waiting {
        int panel, block, tile;
    };

    int steps(int block) const { return std::min(kSteps, linear_.k / kDepth - block * kSteps); }

    // The weights of a block that tile instruction `step` takes.
    void arrange_step(int panel, int block, int step, int8_t* to) const {
        if (step >= steps(block)) return;
        const char* data = static_cast<const char*>(linear_.weights) + panel * linear_.panel_bytes();
        const size_t place = size_t(block) * kSteps + step;
        if (linear_.type == WeightType::int4)
            arrange_groups(data + place * (kDepth / kGroup) * kGroupBytes, kDepth / kGroup, to + step * kRegister);
        else
            arrange(data + place * kDepth * kPanel, kTileRows, to + step * kRegister);
    }

    // One block of a lone tile. A tile instruction waits for the one before it, so the next block's weights are arranged
    // in between.
    template <class F>
    void run_tile(int item, int panel, int block, F arrange_part) {
        const int8_t *weights = weights_[item % 2], *activations = planes_.at(0, block * kSteps);
        const int count = steps(block);
        BlockSums& found = found_[item % 2];
        _tile_zero(MEDUSA_HIGH_SUMS);
        _tile_zero(MEDUSA_LOW_SUMS);
        for (int step = 0; step < kSteps; ++step) {
            if (step < count) {
                MEDUSA_WRITTEN;
                _tile_loadd(MEDUSA_WEIGHTS_0, weights + step * kRegister, kDepth);
                _tile_loadd(MEDUSA_HIGH, activations + 2 * kRegister * step, kDepth);
                _tile_dpbssd(MEDUSA_HIGH_SUMS, MEDUSA_HIGH, MEDUSA_WEIGHTS_0);
                _tile_loadd(MEDUSA_LOW, activations + 2 * kRegister * step + kRegister, kDepth);
                _tile_dpbusd(MEDUSA_LOW_SUMS, MEDUSA_LOW, MEDUSA_WEIGHTS_0);
            }
            arrange_part(step);
        }
        if (item) keep(1 - item % 2);
        _tile_stored(MEDUSA_HIGH_SUMS, found.high, 64);
        _tile_stored(MEDUSA_LOW_SUMS, found.low, 64);
        waiting_ = {panel, block, 0};
    }

    void keep(int which) {
        const Tile tile(rows_, waiting_.tile, tiles_);
        const float* scale = x_.scales + size_t(from_ + tile.start) * x_.blocks + waiting_.block;
        Sums& sums = sums_[waiting_.tile];
        found_[which].add_to(sums, tile.rows, scale, x_.blocks, waiting_.block == 0);
        if (waiting_.block == x_.blocks - 1)
            finish<L>(linear_, waiting_.panel, sums, tile.rows, out_ + size_t(from_ + tile.start) * out_stride_, out_stride_, add_);
    }

    const Linear& linear_;
    const Activations& x_;
    const Planes& planes_;
    const int from_, rows_, tiles_;
    float* out_;
    const int out_stride_;
    const bool add_;
    alignas(64) int8_t weights_[2][kBlock * kPanel];
    BlockSums found_[2];
    alignas(64) Sums sums_[kMostTiles];
    Waiting waiting_{};
};

void linear_amx(const Linear& weights, const Activations& x, int rows, float* out, int out_stride, bool add, int begin,
                int end) {
    if (rows < kFewest || !weights.quantised() || weights.k % kDepth)
        return kAvx512Kernels.linear(weights, x, rows, out, out_stride, add, begin, end);
    static thread_local Planes planes;
    for (int chunk = 0; chunk < rows; chunk += kRowChunk) {
        const int count = std::min(kRowChunk, rows - chunk), tiles = (count + kTileRows - 1) / kTileRows;
        planes.split(x, chunk, count, tiles, weights.k);
        const TileConfig config((count + tiles - 1) / tiles);
        MEDUSA_WRITTEN;
        _tile_loadconfig(&config);
        Product(weights, x, planes, chunk, count, tiles, out, out_stride, add).run(begin, end);
        _tile_release();
    }
}

Kernels make_kernels() {
    Kernels kernels = kAvx512Kernels;
    kernels.name = "amx";
    kernels.linear = linear_amx;
    return kernels;
}

}  // namespace

const Kernels& amx_kernels() {
    static const Kernels kernels = make_kernels();
    return kernels;
}

}  // namespace medusa
