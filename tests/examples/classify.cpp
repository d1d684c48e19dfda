// The same library from C++: a network that classifies a grey image, with its objects in unique_ptrs.
//
//     classify_cpp WEIGHTS ARCH CLASSES [SIZE]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <vector>

#include <equil/equil.h>

namespace {

void check(eq_status status)
{
    if (status != EQ_OK)
        throw std::runtime_error(eq_last_error());
}

// Each of the library's objects with its own destructor.
template <typename T, void (*destroy)(T **)> struct deleter {
    void operator()(T *object) const { destroy(&object); }
};
template <typename T, void (*destroy)(T **)> using owned = std::unique_ptr<T, deleter<T, destroy>>;

using device_ptr = owned<eq_device, eq_device_destroy>;
using network_ptr = owned<eq_network, eq_network_destroy>;

int run(const char *weights, const char *arch, int classes, int size)
{
    eq_device *opened = nullptr;
    check(eq_device_open(nullptr, &opened));
    device_ptr device(opened);

    eq_model_params model{};
    model.arch = arch;
    model.classes = classes;
    eq_network *created = nullptr;
    check(eq_network_create(device.get(), &model, &created));
    network_ptr network(created);
    check(eq_weights_load(eq_network_weights(network.get()), weights, false, 0));

    std::vector<float> image(static_cast<size_t>(3 * size * size), 0.0f), logits(static_cast<size_t>(classes));
    check(eq_network_infer(network.get(), 1, size, size, image.data(), logits.data()));
    const auto best = std::max_element(logits.begin(), logits.end());
    std::printf("class %d, logit %.4f\n", static_cast<int>(best - logits.begin()), static_cast<double>(*best));
    return EXIT_SUCCESS;
}

} // namespace

int main(int argc, char **argv)
{
    if (argc < 4) {
        std::fprintf(stderr, "usage: classify_cpp WEIGHTS ARCH CLASSES [SIZE]\n");
        return 2;
    }
    try {
        return run(argv[1], argv[2], std::atoi(argv[3]), argc > 4 ? std::atoi(argv[4]) : 224);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return EXIT_FAILURE;
    }
}
