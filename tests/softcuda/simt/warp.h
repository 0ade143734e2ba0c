// What the lanes of a warp do together: each lane gives a value, the last to come makes all results.
#pragma once

namespace simt {

// `compute(lanes, mask)`: reads `given<In>(lanes[l])` and fills `lanes[l].received` for every l in the mask.
// Not inlined, here and below: kernels are many variants of large functions, which are to be compiled soon.
template <class Out, class In, class Compute>
__noinline__ Out exchange(const char* what, uint32_t mask, const In& given, Compute compute, bool whole = false) {
    Thread* me = current;
    static_assert(sizeof(In) <= sizeof me->given && sizeof(Out) <= sizeof me->received, "room for the values");
    memcpy(me->given, &given, sizeof given);
    if (begin_exchange(what, mask, whole)) {
        compute(me->block->lanes_of(me), mask & me->block->warp_of(me).alive);
        end_exchange();
    }
    Out out;
    memcpy(&out, me->received, sizeof out);
    return out;
}

template <class In>
inline In given(const Thread& lane) {
    In value;
    memcpy(&value, lane.given, sizeof value);
    return value;
}

template <class Out>
inline void receive(Thread& lane, const Out& value) {
    memcpy(lane.received, &value, sizeof value);
}

// `receive(lane, value)` for every lane of the mask.
template <class F>
inline void for_lanes(uint32_t mask, F f) {
    for (; mask != 0; mask &= mask - 1) f(unsigned(__builtin_ctz(mask)));
}

// Lane l receives what lane `source(l)` gave. A source that is not in the mask has no defined value on the device, so
// that is an error here.
template <class T, class Source>
__noinline__ T shuffle(const char* what, uint32_t mask, T value, Source source) {
    struct Given {
        T value;
        uint32_t source;
    };
    const Given mine{value, source(current->lane())};
    return exchange<T>(what, mask, mine, [=](Thread* lanes, uint32_t taking_part) {
        for_lanes(taking_part, [&](unsigned lane) {
            const uint32_t from = given<Given>(lanes[lane]).source;
            const bool is_there = taking_part >> from & 1;
            if (!is_there) fail("%s: lane %u reads lane %u, which takes no part", what, lane, from);
            receive(lanes[lane], given<Given>(lanes[from]).value);
        });
    });
}

// The lanes are cut into parts of `width`, a power of two.
inline unsigned part_begin(unsigned lane, int width) { return lane & ~unsigned(width - 1); }

// One value made of all lanes' values, which each of them receives.
template <class T, class F>
__noinline__ T reduce(const char* what, uint32_t mask, T value, F combine) {
    return exchange<T>(what, mask, value, [=](Thread* lanes, uint32_t taking_part) {
        T all = given<T>(lanes[__builtin_ctz(taking_part)]);
        for_lanes(taking_part & (taking_part - 1), [&](unsigned lane) { all = combine(all, given<T>(lanes[lane])); });
        for_lanes(taking_part, [&](unsigned lane) { receive(lanes[lane], all); });
    });
}

}  // namespace simt

inline void __syncwarp(uint32_t mask = 0xffffffff) {
    simt::exchange<char>("__syncwarp", mask, char(0), [](simt::Thread* lanes, uint32_t) {
        lanes->block->warp_of(lanes).epoch++;
    });
}

template <class T>
inline T __shfl_sync(uint32_t mask, T value, int source, int width = 32) {
    return simt::shuffle("__shfl_sync", mask, value, [=](unsigned lane) {
        return simt::part_begin(lane, width) + (unsigned(source) & unsigned(width - 1));
    });
}

template <class T>
inline T __shfl_xor_sync(uint32_t mask, T value, int bits, int width = 32) {
    return simt::shuffle("__shfl_xor_sync", mask, value, [=](unsigned lane) {
        const unsigned from = lane ^ unsigned(bits);
        return from < simt::part_begin(lane, width) + unsigned(width) ? from : lane;
    });
}

template <class T>
inline T __shfl_down_sync(uint32_t mask, T value, unsigned by, int width = 32) {
    return simt::shuffle("__shfl_down_sync", mask, value, [=](unsigned lane) {
        return lane + by < simt::part_begin(lane, width) + unsigned(width) ? lane + by : lane;
    });
}

template <class T>
inline T __shfl_up_sync(uint32_t mask, T value, unsigned by, int width = 32) {
    return simt::shuffle("__shfl_up_sync", mask, value, [=](unsigned lane) {
        return lane >= simt::part_begin(lane, width) + by ? lane - by : lane;
    });
}

inline uint32_t __ballot_sync(uint32_t mask, int predicate) {
    const uint32_t mine = predicate != 0 ? 1u << simt::current->lane() : 0;
    return simt::reduce("__ballot_sync", mask, mine, [](uint32_t a, uint32_t b) { return a | b; });
}

inline int __any_sync(uint32_t mask, int predicate) {
    return simt::reduce("__any_sync", mask, int(predicate != 0), [](int a, int b) { return a | b; });
}

inline int __all_sync(uint32_t mask, int predicate) {
    return simt::reduce("__all_sync", mask, int(predicate != 0), [](int a, int b) { return a & b; });
}

template <class T>
inline T __reduce_add_sync(uint32_t mask, T value) {
    return simt::reduce("__reduce_add_sync", mask, value, [](T a, T b) { return a + b; });
}

template <class T>
inline T __reduce_min_sync(uint32_t mask, T value) {
    return simt::reduce("__reduce_min_sync", mask, value, [](T a, T b) { return b < a ? b : a; });
}

template <class T>
inline T __reduce_max_sync(uint32_t mask, T value) {
    return simt::reduce("__reduce_max_sync", mask, value, [](T a, T b) { return a < b ? b : a; });
}

// The lanes of the mask that gave the same value.
template <class T>
inline uint32_t __match_any_sync(uint32_t mask, T value) {
    return simt::exchange<uint32_t>("__match_any_sync", mask, value, [](simt::Thread* lanes, uint32_t taking_part) {
        simt::for_lanes(taking_part, [&](unsigned lane) {
            uint32_t same = 0;
            simt::for_lanes(taking_part, [&](unsigned other) {
                same |= uint32_t(simt::given<T>(lanes[lane]) == simt::given<T>(lanes[other])) << other;
            });
            simt::receive(lanes[lane], same);
        });
    });
}
