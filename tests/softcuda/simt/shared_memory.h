// Where shared memory lies. It is spoiled before each block: what a kernel reads it has to have written.
#pragma once
#include <link.h>
#include <sys/mman.h>

namespace simt {

constexpr size_t SHARED_BYTES_MAX = 227 << 10;  // of a block, as on the largest devices
constexpr unsigned char SPOILED = 0xff;         // as a float not a number, as an index far away

// `extern __shared__` memory. It ends, up to its alignment, where a page begins that nobody may touch.
class DynamicShared {
    static constexpr size_t PAGE = 4096, ROOM = (SHARED_BYTES_MAX + PAGE - 1) / PAGE * PAGE, ALIGNMENT = 128;
    unsigned char* memory_;

   public:
    static constexpr size_t BYTES_MAX = ROOM;

    static size_t rounded(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

    DynamicShared() {
        void* memory = mmap(nullptr, ROOM + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED || mprotect(static_cast<char*>(memory) + ROOM, PAGE, PROT_NONE) != 0) abort();
        memory_ = static_cast<unsigned char*>(memory);
    }

    unsigned char* begin(size_t bytes) const { return memory_ + ROOM - rounded(bytes); }
    bool holds(const void* pointer, size_t count, size_t bytes) const {
        const unsigned char* at = static_cast<const unsigned char*>(pointer);
        return at >= begin(bytes) && count <= bytes && at <= begin(bytes) + bytes - count;
    }
    void spoil(size_t bytes) { memset(begin(bytes), SPOILED, rounded(bytes)); }
    bool is_end_untouched(size_t bytes) const {
        for (const unsigned char* at = begin(bytes) + bytes; at < memory_ + ROOM; at++) {
            if (*at != SPOILED) return false;
        }
        return true;
    }
};

// `__shared__` variables of all kernels of this library: the part of its thread-local storage that has no values in the
// image, of the OS thread that runs the launch.
class StaticShared {
    unsigned char* begin_ = nullptr;
    size_t bytes_ = 0;

   public:
    // `own`: a thread-local variable of this library that does have a value in the image.
    static StaticShared of_this_thread(const void* own) {
        struct Search {
            uintptr_t code, own;
            StaticShared found;
        } search = {reinterpret_cast<uintptr_t>(&of_this_thread), reinterpret_cast<uintptr_t>(own), {}};
        dl_iterate_phdr(
            [](dl_phdr_info* info, size_t, void* data) {
                Search* search = static_cast<Search*>(data);
                const ElfW(Phdr)* storage = nullptr;
                bool is_this = false;
                for (int i = 0; i < info->dlpi_phnum; i++) {
                    const ElfW(Phdr)& part = info->dlpi_phdr[i];
                    const uintptr_t begin = info->dlpi_addr + part.p_vaddr;
                    if (part.p_type == PT_TLS) storage = &part;
                    is_this |= part.p_type == PT_LOAD && search->code - begin < part.p_memsz;
                }
                if (!is_this || storage == nullptr) return 0;
                unsigned char* data_begin = static_cast<unsigned char*>(info->dlpi_tls_data);
                if (search->own - reinterpret_cast<uintptr_t>(data_begin) >= storage->p_filesz) abort();
                search->found.begin_ = data_begin + storage->p_filesz;
                search->found.bytes_ = storage->p_memsz - storage->p_filesz;
                return 1;
            },
            &search);
        return search.found;
    }

    uintptr_t begin() const { return reinterpret_cast<uintptr_t>(begin_); }
    size_t bytes() const { return bytes_; }
    bool holds(const void* pointer, size_t count) const {
        const unsigned char* at = static_cast<const unsigned char*>(pointer);
        return at >= begin_ && count <= bytes_ && at <= begin_ + bytes_ - count;
    }
    void spoil() { memset(begin_, SPOILED, bytes_); }
};

}  // namespace simt
