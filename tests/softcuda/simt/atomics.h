// Atomics and fences. Launches may run on several host threads, so these are the host's atomics.
#pragma once

namespace simt {

// Replaces *address by f(*address); what was there before.
template <class T, class F>
__attribute__((no_sanitize("thread"))) inline T replace(T* address, F f) {
    using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
    static_assert(sizeof(T) == sizeof(Bits), "32 or 64 bits");
    if (reinterpret_cast<uintptr_t>(address) % sizeof(T) != 0) fail("an atomic at %p, which is not aligned", address);
    watch(address, sizeof(T), Access::Atomic);
    Bits* bits = reinterpret_cast<Bits*>(address);
    Bits old = __atomic_load_n(bits, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(bits, &old, bits_as<Bits>(f(bits_as<T>(old))), true, __ATOMIC_SEQ_CST,
                                        __ATOMIC_RELAXED)) {
    }
    return bits_as<T>(old);
}

}  // namespace simt

#define SIMT_ATOMIC(name, expression)                                                           \
    template <class T>                                                                          \
    inline T name(T* address, std::common_type_t<T> value) {                                    \
        return simt::replace(address, [=]([[maybe_unused]] T old) { return T(expression); });   \
    }                                                                                           \
    template <class T>                                                                          \
    inline T name##_block(T* address, std::common_type_t<T> value) {                            \
        return name(address, value);                                                            \
    }                                                                                           \
    template <class T>                                                                          \
    inline T name##_system(T* address, std::common_type_t<T> value) {                           \
        return name(address, value);                                                            \
    }

SIMT_ATOMIC(atomicAdd, old + value)
SIMT_ATOMIC(atomicSub, old - value)
SIMT_ATOMIC(atomicMin, value < old ? value : old)
SIMT_ATOMIC(atomicMax, old < value ? value : old)
SIMT_ATOMIC(atomicAnd, old & value)
SIMT_ATOMIC(atomicOr, old | value)
SIMT_ATOMIC(atomicXor, old ^ value)
SIMT_ATOMIC(atomicExch, value)
SIMT_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
SIMT_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1)
#undef SIMT_ATOMIC

template <class T>
inline T atomicCAS(T* address, std::common_type_t<T> expected, std::common_type_t<T> value) {
    return simt::replace(address, [=](T old) { return old == expected ? value : old; });
}

inline void __threadfence_block() { simt::fence(); }
inline void __threadfence() { simt::fence(); }
inline void __threadfence_system() { simt::fence(); }

// Loads and stores with cache hints: the host has none.
template <class T>
inline T __ldg(const T* from) { return *from; }
template <class T>
inline T __ldcg(const T* from) { return *from; }
template <class T>
inline T __ldcs(const T* from) { return *from; }
template <class T>
inline void __stcg(T* to, T value) { *to = value; }
template <class T>
inline void __stcs(T* to, T value) { *to = value; }
