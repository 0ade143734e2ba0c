// An access to memory that is not there ends the launch with an error, not the process.
#pragma once
#include <csignal>
#include <ucontext.h>

namespace simt {

inline struct sigaction fault_before[2];  // for SIGSEGV, SIGBUS

// Runs on the thread's own stack, from its top, as if the kernel had called it.
[[noreturn]] inline void fail_access(const void* address) {
    fail("access to %p, where there is no memory", address);
}

inline void on_fault(int signal, siginfo_t* info, void* context) {
    if (current->block == nullptr) {
        // Not of a kernel. Whoever was there before decides; without one, the access is repeated and ends the process.
        const struct sigaction& before = fault_before[signal == SIGBUS];
        if (before.sa_flags & SA_SIGINFO) {
            before.sa_sigaction(signal, info, context);
        } else {
            sigaction(signal, &before, nullptr);
        }
        return;
    }
    // Returning from the signal goes on in `fail_access`; a call has the stack pointer at 8 past a multiple of 16.
    greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    const Thread* thread = current;
    registers[REG_RSP] = greg_t(reinterpret_cast<uint64_t>(thread->stack_end) - 8);
    registers[REG_RDI] = greg_t(reinterpret_cast<uint64_t>(info->si_addr));
    registers[REG_RIP] = greg_t(reinterpret_cast<uint64_t>(&fail_access));
}

inline bool catch_bad_accesses() {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    return sigaction(SIGSEGV, &action, &fault_before[0]) == 0 && sigaction(SIGBUS, &action, &fault_before[1]) == 0;
}

}  // namespace simt
