// The engine without Python, for the compiler's sanitizers: everything it does, on a tiny model, and the promise it
// makes: the same bits on any instruction set, with any number of threads, in any grouping of rows.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <thread>

#include "tiny_model.h"

using namespace medusa;
using namespace medusa::testing;

namespace {

#define REQUIRE(condition)                                                                  \
    do {                                                                                    \
        if (!(condition)) {                                                                 \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);    \
            std::exit(1);                                                                   \
        }                                                                                   \
    } while (0)

using Bits = std::vector<float>;

bool same(const Bits& a, const Bits& b) {
    return a.size() == b.size() && !std::memcmp(a.data(), b.data(), a.size() * sizeof(float));
}

int64_t token_at(int64_t place) { return (place * place + 3 * place + 5) % 51; }

// The rows of a pass under construction.
struct Pass {
    std::vector<int64_t> sequences, tokens, positions, parents;
    std::vector<char> wanted;

    int64_t add(Model& model, int64_t sequence, int64_t token, int64_t parent = -1, bool want = true) {
        sequences.push_back(sequence), tokens.push_back(token), parents.push_back(parent), wanted.push_back(want);
        positions.push_back(parent < 0 ? model.cache().at(sequence).length : positions[parent] + 1);
        return int64_t(tokens.size()) - 1;
    }

    void run(Model& model, bool logits = true) const {
        const std::unique_ptr<bool[]> flags(new bool[wanted.size()]);
        for (size_t i = 0; i < wanted.size(); ++i) flags[i] = wanted[i];
        const Rows rows{int(tokens.size()), sequences.data(), tokens.data(), positions.data(), parents.data(), flags.get()};
        model.forward(rows, logits);
    }
};

void keep(Model& model, const std::vector<int64_t>& rows) { model.commit(rows.data(), int(rows.size())); }

// Logits, hidden state and argmax of a row.
void append(const Model& model, int64_t row, Bits& out) {
    out.insert(out.end(), model.logits(row), model.logits(row) + model.shape().vocabulary);
    out.insert(out.end(), model.hidden(row), model.hidden(row) + model.shape().hidden);
    out.push_back(float(model.argmax(row)));
}

// `count` tokens more on a sequence, in pieces of `piece` rows; the last row's results.
Bits extend(Model& model, int64_t sequence, int count, int piece) {
    Bits out;
    for (int done = 0; done < count;) {
        const int64_t length = model.cache().at(sequence).length;
        Pass pass;
        std::vector<int64_t> rows;
        for (int i = 0; i < piece && done < count; ++i, ++done)
            rows.push_back(pass.add(model, sequence, token_at(length + i), i - 1, done + 1 == count));
        pass.run(model);
        keep(model, rows);
        if (done == count) append(model, rows.back(), out);
    }
    return out;
}

struct Tree {
    std::vector<int64_t> tokens, parents;
};
const Tree kTree{{7, 9, 11, 7, 50, 0, 13, 9}, {-1, 0, 0, 1, 1, 2, 3, -1}};

int64_t add_tree(Pass& pass, Model& model, int64_t sequence) {
    const int64_t first = int64_t(pass.tokens.size());
    for (size_t i = 0; i < kTree.tokens.size(); ++i)
        pass.add(model, sequence, kTree.tokens[i], kTree.parents[i] < 0 ? -1 : first + kTree.parents[i]);
    return first;
}

void propose(Heads& heads, const Bits& hidden, int n, int top, Bits& out) {
    const int64_t roots[] = {3, 50, 0};
    std::vector<int64_t> tokens(size_t(n) * heads.weights().heads * top);
    Bits chances(tokens.size());
    heads.propose(hidden.data(), roots, n, top, tokens.data(), chances.data());
    out.insert(out.end(), tokens.begin(), tokens.end());
    out.insert(out.end(), chances.begin(), chances.end());
}

// Prompts, trees of several sequences, forks, cuts, heads: all results in one row.
Bits everything(const Variant& variant) {
    Tiny tiny(variant);
    Model& model = tiny.model;
    const int64_t a = model.cache().open();
    Bits out = extend(model, a, 130, 130), hidden;
    const int64_t b = model.cache().fork(a, 70), c = model.cache().fork(a, 64);
    Pass pass;
    const int64_t at_a = add_tree(pass, model, a), at_c = add_tree(pass, model, c), at_b = pass.add(model, b, 1);
    pass.run(model);
    for (size_t row = 0; row < pass.tokens.size(); ++row) append(model, int64_t(row), out);
    for (int64_t row : {at_a, at_b, at_c}) hidden.insert(hidden.end(), model.hidden(row), model.hidden(row) + model.shape().hidden);
    keep(model, {at_a, at_c, at_b, at_a + 1, at_a + 3, at_c + 2});
    for (int n : {1, 3})
        for (Heads* heads : {&tiny.deep, &tiny.flat}) propose(*heads, Bits(hidden.begin(), hidden.begin() + n * model.shape().hidden), n, 10, out);
    model.cache().truncate(a, 100);
    for (int64_t sequence : {a, b, c}) {
        const Bits more = extend(model, sequence, 30, 7);
        out.insert(out.end(), more.begin(), more.end());
        model.cache().close(sequence);
    }
    REQUIRE(model.cache().bytes() == 0);
    REQUIRE(model.read_weights() >= 0.0);
    return out;
}

std::vector<Variant> models() {
    std::vector<Variant> all;
    for (WeightType type : {WeightType::int8, WeightType::int4, WeightType::fp32})
        for (int64_t window : {0, 21}) all.push_back({type, window, window == 0});
    return all;
}

void same_on_all_instruction_sets_and_threads() {
    for (Variant variant : models()) {
        const Bits expected = everything(variant);
        for (float value : expected) REQUIRE(value == value);
        for (const char* isa : {"portable", "avx2", "avx512", "amx"})
            for (int threads : {1, 2, 3}) {
                if (!find_kernels(isa)) continue;
                variant.isa = isa, variant.threads = threads;
                REQUIRE(same(everything(variant), expected));
            }
    }
}

void same_in_all_groupings() {
    for (Variant variant : models()) {
        variant.isa = "auto", variant.threads = 2;
        Tiny tiny(variant);
        const int64_t alone = tiny.model.cache().open();
        const Bits expected = extend(tiny.model, alone, 131, 1);
        for (int piece : {2, 3, 5, 6, 7, 12, 13, 25, 64, 97, 131}) {
            const int64_t sequence = tiny.model.cache().open();
            REQUIRE(same(extend(tiny.model, sequence, 131, piece), expected));
            tiny.model.cache().close(sequence);
        }
    }
}

// Each row of a tree, beside the tree of another sequence, as if its path were all there is.
void tree_rows_are_their_paths() {
    for (Variant variant : models()) {
        Tiny tiny(variant);
        Model& model = tiny.model;
        const int64_t sequence = model.cache().open(), other = model.cache().open();
        extend(model, sequence, 61, 61), extend(model, other, 9, 9);
        Pass pass;
        add_tree(pass, model, other);
        const int64_t first = add_tree(pass, model, sequence);
        pass.run(model);
        std::vector<Bits> results(kTree.tokens.size());
        for (size_t i = 0; i < results.size(); ++i) append(model, first + int64_t(i), results[i]);
        for (size_t i = 0; i < results.size(); ++i) {
            std::vector<int64_t> path;
            for (int64_t node = int64_t(i); node >= 0; node = kTree.parents[node]) path.insert(path.begin(), kTree.tokens[node]);
            const int64_t fork = model.cache().fork(sequence, 61);
            Bits alone;
            for (int64_t token : path) {
                Pass single;
                single.add(model, fork, token);
                single.run(model);
                keep(model, {0});
                alone.clear(), append(model, 0, alone);
            }
            REQUIRE(same(alone, results[i]));
            model.cache().close(fork);
        }
    }
}

template <class Error>
void require_throws(const std::function<void()>& act) {
    bool thrown = false;
    try {
        act();
    } catch (const Error&) {
        thrown = true;
    }
    REQUIRE(thrown);
}

// After each error the last pass can still be committed, and goes on as if nothing had been.
void errors_change_nothing() {
    Variant variant;
    variant.threads = 2;
    Tiny tiny(variant);
    Model& model = tiny.model;
    const int64_t sequence = model.cache().open(), other = model.cache().open();
    extend(model, sequence, 63, 63), extend(model, other, 300, 100);
    Pass pass;
    add_tree(pass, model, sequence);
    pass.run(model);
    Bits before, after;
    append(model, 6, before);
    const auto refused = [&](int64_t handle, int64_t token, int64_t position, int64_t parent) {
        Pass bad;
        bad.add(model, sequence, 1);
        bad.sequences.push_back(handle), bad.tokens.push_back(token), bad.positions.push_back(position);
        bad.parents.push_back(parent), bad.wanted.push_back(1);
        bad.run(model);
    };
    using Argument = std::invalid_argument;
    require_throws<Argument>([&] { Pass().run(model); });
    for (int64_t token : {-1, 51}) require_throws<Argument>([&] { refused(sequence, token, 64, 0); });
    for (int64_t parent : {-2, 1, 2}) require_throws<Argument>([&] { refused(sequence, 1, 64, parent); });
    require_throws<Argument>([&] { refused(sequence, 1, 65, 0); });
    require_throws<Argument>([&] { refused(other, 1, 64, 0); });
    require_throws<Argument>([&] { refused(other, 1, 300, -1); });
    require_throws<std::out_of_range>([&] { refused(99, 1, 0, -1); });
    require_throws<std::out_of_range>([&] { model.logits(8); });
    require_throws<std::out_of_range>([&] { model.hidden(-1); });
    const std::vector<std::vector<int64_t>> broken = {{1}, {0, 3}, {0, 1, 2}, {0, 0}, {8}, {-1}, {0, 7}};
    for (const auto& rows : broken) require_throws<Argument>([&] { keep(model, rows); });
    require_throws<Argument>([&] { model.cache().truncate(sequence, 64); });
    require_throws<Argument>([&] { model.cache().fork(sequence, -1); });
    require_throws<std::out_of_range>([&] { model.cache().close(99); });
    Bits hidden(40), unused;
    const int64_t root = 51;
    require_throws<Argument>([&] { tiny.flat.propose(hidden.data(), &root, 1, 1, nullptr, nullptr); });
    append(model, 6, after);
    REQUIRE(same(before, after));
    keep(model, {0, 1, 3});
    Pass next;
    next.add(model, sequence, kTree.tokens[6]);
    next.run(model);
    after.clear(), append(model, 0, after);
    REQUIRE(same(before, after));
}

// A fork's page is its own from the first token that it writes, and so is the page of the sequence it came from.
void forks_share_until_they_write() {
    Tiny tiny({});
    Model& model = tiny.model;
    const int64_t sequence = model.cache().open();
    extend(model, sequence, 90, 90);
    const size_t page = model.cache().bytes() / 2;
    const int64_t fork = model.cache().fork(sequence, 64);
    REQUIRE(model.cache().bytes() == 2 * page);
    const int64_t twin = model.cache().fork(sequence, 80);
    REQUIRE(model.cache().bytes() == 3 * page);
    const Bits expected = extend(model, model.cache().fork(sequence, 64), 26, 26);
    // Other tokens than before, on a page that two forks still read.
    model.cache().truncate(sequence, 60);
    for (int i = 0; i < 30; ++i) {
        Pass pass;
        pass.add(model, sequence, 1);
        pass.run(model);
        keep(model, {0});
    }
    REQUIRE(same(extend(model, twin, 10, 3), expected));
    REQUIRE(same(extend(model, fork, 26, 4), expected));
    model.cache().close(sequence);
    REQUIRE(same(extend(model, twin, 5, 5), extend(model, fork, 5, 1)));
}

void passes_without_logits() {
    Tiny tiny({});
    Pass pass;
    pass.add(tiny.model, tiny.model.cache().open(), 4);
    pass.run(tiny.model);
    const Bits with(tiny.model.hidden(0), tiny.model.hidden(0) + 40);
    pass.run(tiny.model, false);
    REQUIRE(same(with, Bits(tiny.model.hidden(0), tiny.model.hidden(0) + 40)));
    require_throws<std::out_of_range>([&] { tiny.model.logits(0); });
    require_throws<std::out_of_range>([&] { tiny.model.argmax(0); });
}

// Channels without weights worth the name, as padding of a vocabulary may be, pack to zeros and not to what 127 / 1e-41 gives.
void vanishing_channels_pack_to_zeros() {
    Bits weights(8 * 3, 0.0f), row(8);
    std::fill(weights.begin(), weights.begin() + 8, 1e-41f), weights[3] = 0.0f;
    std::fill(weights.begin() + 16, weights.end(), -2.0f);
    std::vector<int8_t> packed(8 * kPanel);
    Bits scale(kPanel);
    pack_int8(weights.data(), 3, 8, packed.data(), scale.data(), 1);
    Linear linear;
    linear.n = 3, linear.k = 8, linear.weights = packed.data(), linear.scale = scale.data();
    for (int channel : {0, 1}) {
        unpack_row(linear, channel, row.data());
        for (float weight : row) REQUIRE(std::fabs(weight) < 1e-30f);
    }
    unpack_row(linear, 2, row.data());
    for (float weight : row) REQUIRE(weight == -2.0f);
}

// Memory of a closed sequence serves the next one; pages that a fork still has do not.
void pages_are_used_again() {
    Cache cache({2, 1, 8, false});
    const auto first_page = [&](int64_t handle) {
        cache.reserve(cache.at(handle), kPage);
        cache.at(handle).length = kPage;
        return cache.at(handle).pages[0]->floats();
    };
    const int64_t a = cache.open();
    const float* before = first_page(a);
    const int64_t fork = cache.fork(a, kPage), b = cache.open();
    cache.close(a);
    REQUIRE(first_page(b) != before);
    cache.close(fork);
    REQUIRE(first_page(cache.open()) == before);
    REQUIRE(cache.bytes() == 2 * cache.shape().page_bytes());
}

// Fewer bytes and the same int8 weights; what takes more than 16 values, or values at uneven places, is refused.
void four_bits_give_the_int8_weights() {
    const int n = 19, k = 96;
    std::mt19937 random(5);
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    Bits weights(size_t(n) * k), scale(32), same_scale(32);
    for (size_t i = 0; i < weights.size(); i += kGroup) {
        const float step = uniform(random), start = uniform(random);
        for (int j = 0; j < kGroup; ++j) weights[i + j] = step * float(random() % 16) + start;
    }
    std::vector<int8_t> expected(32 * k), found(expected.size());
    std::vector<uint8_t> packed(size_t(2) * k / kGroup * kGroupBytes);
    pack_int8(weights.data(), n, k, expected.data(), scale.data(), 1);
    REQUIRE(pack_int4(weights.data(), n, k, packed.data(), same_scale.data(), 2));
    REQUIRE(same(scale, same_scale));
    for (size_t group = 0; group < packed.size() / kGroupBytes; ++group)
        unpack_group(&packed[group * kGroupBytes], &found[group * kGroup * kPanel]);
    REQUIRE(found == expected);
    weights[k + 3] += 0.01f;
    REQUIRE(!pack_int4(weights.data(), n, k, packed.data(), scale.data(), 1));
    weights[k + 3] = std::nanf("");
    REQUIRE(!pack_int4(weights.data(), n, k, packed.data(), scale.data(), 1));
    REQUIRE(!pack_int4(weights.data(), n, k - 8, packed.data(), scale.data(), 1));
}

void threads_sleep_and_wake() {
    Threads threads(3);
    std::vector<int> counts(3 * 16);
    for (int run = 1; run <= 40; ++run) {
        threads.run([&](int thread) {
            for (int turn = 0; turn < 3; ++turn) {
                ++counts[((thread + turn) % 3) * 16];
                threads.meet();
            }
        });
        for (int thread = 0; thread < 3; ++thread) REQUIRE(counts[thread * 16] == 3 * run);
        // Now and then long enough that they sleep.
        if (run % 20 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
}

}  // namespace

int main() {
    vanishing_channels_pack_to_zeros();
    four_bits_give_the_int8_weights();
    pages_are_used_again();
    threads_sleep_and_wake();
    forks_share_until_they_write();
    passes_without_logits();
    errors_change_nothing();
    tree_rows_are_their_paths();
    same_in_all_groupings();
    same_on_all_instruction_sets_and_threads();
    std::puts("native: all as promised");
}
