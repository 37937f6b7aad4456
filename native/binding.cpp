// The engine as the Python module `medusa_decoding._native`.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <memory>
#include <stdexcept>

#include "heads.h"
#include "model.h"
#include "packing.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace medusa {
namespace {

template <class T, int DIMS>
using In = nb::ndarray<const T, nb::ndim<DIMS>, nb::c_contig, nb::device::cpu>;
template <class T>
using Out = nb::ndarray<nb::numpy, T>;

template <class T>
Out<T> array(std::initializer_list<size_t> shape) {
    size_t size = 1;
    for (size_t dimension : shape) size *= dimension;
    T* data = new T[size];
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return Out<T>(data, shape, owner);
}

WeightType type_of(const std::string& name) {
    if (name == "fp32") return WeightType::fp32;
    if (name == "int8") return WeightType::int8;
    if (name == "int4") return WeightType::int4;
    throw std::invalid_argument("weights cannot be kept as " + name);
}

Linear make_linear(int n, int k, const std::string& type, uintptr_t weights, uintptr_t scale, uintptr_t bias) {
    Linear linear;
    linear.n = n, linear.k = k;
    linear.type = type_of(type);
    linear.weights = reinterpret_cast<const void*>(weights);
    linear.scale = reinterpret_cast<const float*>(scale);
    linear.bias = reinterpret_cast<const float*>(bias);
    if (k % 8 || n < 1 || k < 8) throw std::invalid_argument("a linear needs a multiple of 8 input channels");
    if (linear.type == WeightType::int4 && k % kGroup) throw std::invalid_argument("4 bits need a multiple of 32 input channels");
    return linear;
}

// Addresses of packed arrays come from Python, which keeps the arrays alive (engines/cpu/packed.py) and has checked
// their sizes.
using Address = std::tuple<int, int, std::string, uintptr_t, uintptr_t, uintptr_t>;

Linear linear_of(const Address& a) { return std::apply(make_linear, a); }
const float* floats(uintptr_t address) { return reinterpret_cast<const float*>(address); }

Rows rows_of(const In<int64_t, 1>& sequences, const In<int64_t, 1>& tokens, const In<int64_t, 1>& positions,
             const In<int64_t, 1>& parents, const In<bool, 1>& wanted) {
    const size_t n = sequences.shape(0);
    if (tokens.shape(0) != n || positions.shape(0) != n || parents.shape(0) != n || wanted.shape(0) != n)
        throw std::invalid_argument("the arrays of rows differ in length");
    return {int(n), sequences.data(), tokens.data(), positions.data(), parents.data(), wanted.data()};
}

}  // namespace

NB_MODULE(_native, m) {
    m.attr("PANEL") = kPanel;
    m.attr("LAYOUT") = 2;  // changes with the order of packed weights: part of the key of packed files

    m.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const char* name : {"portable", "avx2", "avx512", "amx"})
            if (find_kernels(name)) names.emplace_back(name);
        return names;
    });

    m.def(
        "pack",
        [](In<float, 2> weights, const std::string& name, int threads) -> nb::object {
            const WeightType type = type_of(name);
            const int n = int(weights.shape(0)), k = int(weights.shape(1));
            if (k % 8 || n < 1) throw std::invalid_argument("a linear needs a multiple of 8 input channels");
            const size_t padded = round_up(n, kPanel);
            if (type == WeightType::int4) {
                auto packed = array<uint8_t>({padded * k / kGroup * (kGroupBytes / kPanel)});
                auto scale = array<float>({padded});
                bool possible;
                {
                    nb::gil_scoped_release release;
                    possible = pack_int4(weights.data(), n, k, packed.data(), scale.data(), threads);
                }
                return possible ? nb::object(nb::make_tuple(packed, scale)) : nb::none();
            }
            if (type == WeightType::fp32) {
                auto packed = array<float>({padded * k});
                nb::gil_scoped_release release;
                pack_fp32(weights.data(), n, k, packed.data(), threads);
                nb::gil_scoped_acquire acquire;
                return nb::make_tuple(packed, nb::none());
            }
            auto packed = array<int8_t>({padded * k});
            auto scale = array<float>({padded});
            {
                nb::gil_scoped_release release;
                pack_int8(weights.data(), n, k, packed.data(), scale.data(), threads);
            }
            return nb::make_tuple(packed, scale);
        },
        "weights"_a, "type"_a, "threads"_a);

    nb::class_<Model>(m, "Model")
        .def(
            "__init__",
            [](Model* self, std::vector<int> sizes, int64_t context, int64_t window, float epsilon, float amplitude,
               std::vector<float> inverse_frequencies, std::vector<std::vector<Address>> linears,
               std::vector<std::vector<uintptr_t>> norms, Address head, Address embedding, uintptr_t norm, int threads,
               const std::string& isa, bool half_cache) {
                const Kernels* kernels = find_kernels(isa.c_str());
                if (!kernels) throw std::invalid_argument("this processor has no " + isa);
                Shape shape{sizes.at(0), sizes.at(1), sizes.at(2), sizes.at(3), sizes.at(4), sizes.at(5), sizes.at(6),
                            context,     window,      epsilon,     amplitude,   std::move(inverse_frequencies)};
                Weights weights;
                for (size_t i = 0; i < linears.size(); ++i) {
                    const auto& l = linears[i];
                    const auto& n = norms.at(i);
                    weights.layers.push_back({linear_of(l.at(0)), linear_of(l.at(1)), linear_of(l.at(2)),
                                              linear_of(l.at(3)), floats(n.at(0)), floats(n.at(1)), floats(n.at(2)),
                                              floats(n.at(3))});
                }
                weights.norm = floats(norm);
                weights.head = linear_of(head);
                weights.embedding = linear_of(embedding);
                new (self) Model(std::move(shape), std::move(weights), *kernels, std::make_shared<Threads>(threads), half_cache);
            },
            "sizes"_a, "context"_a, "window"_a, "epsilon"_a, "amplitude"_a, "inverse_frequencies"_a, "linears"_a,
            "norms"_a, "head"_a, "embedding"_a, "norm"_a, "threads"_a, "isa"_a,
            "half_cache"_a = false)
        .def("open", [](Model& self) { return self.cache().open(); })
        .def("fork", [](Model& self, int64_t handle, int64_t length) { return self.cache().fork(handle, length); })
        .def("close", [](Model& self, int64_t handle) { self.cache().close(handle); })
        .def("truncate", [](Model& self, int64_t handle, int64_t length) { self.cache().truncate(handle, length); })
        .def("length", [](Model& self, int64_t handle) { return self.cache().at(handle).length; })
        .def("cache_bytes", [](Model& self) { return self.cache().bytes(); })
        .def(
            "forward",
            [](Model& self, In<int64_t, 1> sequences, In<int64_t, 1> tokens, In<int64_t, 1> positions,
               In<int64_t, 1> parents, In<bool, 1> wanted, bool logits) {
                const Rows rows = rows_of(sequences, tokens, positions, parents, wanted);
                nb::gil_scoped_release release;
                self.forward(rows, logits);
            },
            "sequences"_a, "tokens"_a, "positions"_a, "parents"_a, "wanted"_a, "logits"_a = true)
        .def("commit", [](Model& self, In<int64_t, 1> accepted) { self.commit(accepted.data(), int(accepted.shape(0))); })
        .def("argmax",
             [](Model& self, In<int64_t, 1> rows) {
                 auto best = array<int64_t>({rows.shape(0)});
                 for (size_t i = 0; i < rows.shape(0); ++i) best.data()[i] = self.argmax(rows.data()[i]);
                 return best;
             })
        .def("logits",
             [](Model& self, int64_t row) {
                 const float* from = self.logits(row);
                 auto out = array<double>({size_t(self.shape().vocabulary)});
                 for (int i = 0; i < self.shape().vocabulary; ++i) out.data()[i] = from[i];
                 return out;
             })
        .def("hidden",
             [](Model& self, int64_t row) {
                 const float* from = self.hidden(row);
                 auto out = array<float>({size_t(self.shape().hidden)});
                 std::memcpy(out.data(), from, self.shape().hidden * sizeof(float));
                 return out;
             })
        .def("embed",
             [](Model& self, int64_t token) {
                 if (token < 0 || token >= self.shape().vocabulary) throw std::invalid_argument("no such token");
                 auto out = array<float>({size_t(self.shape().hidden)});
                 self.embed(token, out.data());
                 return out;
             })
        .def_prop_ro("threads", [](Model& self) { return self.threads().count(); })
        .def_prop_ro("isa", [](Model& self) { return self.kernels().name; })
        .def_prop_ro("weight_bytes", &Model::weight_bytes)
        .def("read_weights", &Model::read_weights, nb::call_guard<nb::gil_scoped_release>());

    nb::class_<Heads>(m, "Heads")
        .def(
            "__init__",
            [](Heads* self, Model& model, int heads, int draft, std::vector<Address> first, std::vector<Address> root,
               std::vector<std::vector<Address>> rest, std::vector<Address> projections, std::vector<int64_t> tokens,
               std::vector<float> inverse_temperatures) {
                HeadsWeights weights;
                weights.heads = heads, weights.hidden = model.shape().hidden, weights.draft = draft;
                if (!first.empty()) weights.first = linear_of(first[0]), weights.has_blocks = true;
                if (!root.empty()) weights.root = linear_of(root[0]), weights.has_root = true;
                for (const auto& layer : rest) {
                    weights.rest.emplace_back();
                    for (const auto& linear : layer) weights.rest.back().push_back(linear_of(linear));
                }
                for (const auto& linear : projections) weights.projections.push_back(linear_of(linear));
                weights.tokens = std::move(tokens);
                weights.inverse_temperatures = std::move(inverse_temperatures);
                new (self) Heads(std::move(weights), model);
            },
            nb::keep_alive<1, 2>(), "model"_a, "heads"_a, "draft"_a, "first"_a, "root"_a, "rest"_a, "projections"_a,
            "tokens"_a, "inverse_temperatures"_a)
        .def("propose", [](Heads& self, In<float, 2> hidden, In<int64_t, 1> roots, int top) {
            const size_t n = hidden.shape(0), k = self.weights().heads;
            if (int(hidden.shape(1)) != self.weights().hidden || roots.shape(0) != n || n < 1)
                throw std::invalid_argument("hidden states and roots do not fit the heads");
            if (top < 1 || top > self.weights().draft) throw std::invalid_argument("more guesses than the heads have tokens");
            auto tokens = array<int64_t>({n, k, size_t(top)});
            auto chances = array<float>({n, k, size_t(top)});
            {
                nb::gil_scoped_release release;
                self.propose(hidden.data(), roots.data(), int(n), top, tokens.data(), chances.data());
            }
            return nb::make_tuple(tokens, chances);
        });
}

}  // namespace medusa
