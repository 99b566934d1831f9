// sf-unwind CALLS SIZE: a block that allocates, throws, catches and unwinds through frames with destructors. Prints what
// it came to after each call; the output depends on nothing but its arguments.
//
// The block is `unwind_block`.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

std::map<std::string, std::uint64_t> kept;
int destroyed;

struct Counted {
    ~Counted() { ++destroyed; }
};

class Odd : public std::runtime_error {
  public:
    explicit Odd(std::uint64_t value) : std::runtime_error("odd"), value(value) {}
    std::uint64_t value;
};

std::uint64_t descend(std::uint64_t value, int depth) {
    Counted counted;
    auto copy = std::make_unique<std::vector<std::uint64_t>>(16, value);
    if (depth > 0) return descend(value * 6364136223846793005u + 1442695040888963407u, depth - 1) + (*copy)[depth % 16];
    if (value >> 33 & 1) throw Odd(value);
    return value;
}

}  // namespace

extern "C" __attribute__((noinline)) std::uint64_t unwind_block(std::uint64_t seed, std::uint64_t size) {
    std::uint64_t sum = seed, caught = 0;
    for (std::uint64_t i = 0; i < size; ++i) {
        try {
            sum += descend(sum + i, 8);
        } catch (const Odd &odd) {
            sum ^= odd.value;
            ++caught;
            kept["odd " + std::to_string(i % 97)] += odd.value;
        }
    }
    // For a caller that catches what the block throws.
    if (seed % 4 == 3) throw std::out_of_range("block " + std::to_string(caught));
    return sum + caught;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        std::fprintf(stderr, "sf-unwind CALLS SIZE\n");
        return 2;
    }
    const int calls = std::atoi(argv[1]);
    const std::uint64_t size = std::strtoull(argv[2], nullptr, 10);
    for (int call = 0; call < calls; ++call) {
        try {
            std::printf("%d %016llx\n", call, static_cast<unsigned long long>(unwind_block(call, size)));
        } catch (const std::out_of_range &error) {
            std::printf("%d %s\n", call, error.what());
        }
    }
    std::uint64_t all = 0;
    for (const auto &[name, value] : kept) all = all * 31 + value + name.size();
    std::printf("%zu kept, %016llx, %d destroyed\n", kept.size(), static_cast<unsigned long long>(all), destroyed);
    return 0;
}
