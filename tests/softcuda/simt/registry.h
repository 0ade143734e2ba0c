// Kernels by name. The build script makes of each foo.cu a file that includes it and names its kernels here.
#pragma once

namespace simt {

extern const Kernel* kernels;

template <auto FUNCTION>
struct Called;

template <class... Parameters, void (*FUNCTION)(Parameters...)>
struct Called<FUNCTION> {
    static constexpr uint32_t COUNT = sizeof...(Parameters);
    static constexpr uint32_t BYTES[COUNT + 1] = {sizeof(Parameters)..., 0};

    template <size_t... I>
    static void call_with(const void* const* parameters, std::index_sequence<I...>) {
        FUNCTION(*static_cast<const std::remove_reference_t<Parameters>*>(parameters[I])...);
    }
    static void call(const void* const* parameters) { call_with(parameters, std::index_sequence_for<Parameters...>{}); }
};

template <auto FUNCTION>
struct Registered {
    Kernel kernel;
    explicit Registered(const char* name)
        : kernel{name, Called<FUNCTION>::call, Called<FUNCTION>::COUNT, Called<FUNCTION>::BYTES, kernels} {
        kernels = &kernel;
    }
};

}  // namespace simt

#define SIMT_REGISTER(name) static simt::Registered<&name> registered_##name(#name)
