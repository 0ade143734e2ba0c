// The uniform number that a token is drawn with: that of src/kernels/sample/uniform.rs, which says where it comes from.
#pragma once
#include <stdint.h>

// A number in [0, 1), a multiple of 2^-53: the first two words of Philox4x32-10 with key = seed, counter =
// (position, 0, 0, 0).
__device__ inline double uniform(uint64_t seed, uint32_t position) {
    uint32_t a = position, b = 0, c = 0, d = 0;
    uint32_t low_key = static_cast<uint32_t>(seed), high_key = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t first = uint64_t(0xD2511F53) * a, second = uint64_t(0xCD9E8D57) * c;
        a = static_cast<uint32_t>(second >> 32) ^ b ^ low_key;
        b = static_cast<uint32_t>(second);
        c = static_cast<uint32_t>(first >> 32) ^ d ^ high_key;
        d = static_cast<uint32_t>(first);
        low_key += 0x9E3779B9;   // golden ratio
        high_key += 0xBB67AE85;  // sqrt(3) - 1
    }
    const uint64_t bits = uint64_t(a) << 32 | b;
    return static_cast<double>(bits >> 11) * 0x1p-53;
}
