// Finds accesses to global memory that nothing orders: see global_memory.h.
#include "global_memory.h"

namespace simt {

// Whether what `thread` did at `then` comes before what the running thread does now, in one block.
static bool comes_before(const Trace& then, unsigned thread, uint32_t epoch) {
    return thread == current->linear || then.epoch < epoch;
}

void GlobalMemory::begin_launch(uint32_t epoch) {
    launch_epoch_ = epoch;
    if (pages_.size() <= PAGES_MAX) return;
    for (const auto& [number, page] : pages_) delete page;
    pages_.clear();
    for (auto& recent : recent_) recent = {};
}

GlobalMemory::Page* GlobalMemory::find_page(uintptr_t number, bool make) {
    const auto found = pages_.find(number);
    Page* page = found != pages_.end() ? found->second : nullptr;
    if (page == nullptr && make) pages_[number] = page = new Page;
    recent_[number % RECENT] = {number, page};
    return page;
}

// The block has learned by an atomic what others have done, and a fence keeps this thread's accesses behind it.
bool GlobalMemory::has_acquired() const {
    const Thread* me = current;
    const Block* block = me->block;
    if (block->atomic.epoch < block->first_epoch) return false;
    const unsigned of = block->atomic.who & THREAD;
    // Its own fence, behind the atomic; or the fence of the atomic's thread and a barrier.
    if (me->fence.epoch != 0 && comes_before(block->atomic, of, me->fence.epoch) &&
        (of != me->linear || me->fences > block->fences_before_atomic)) {
        return true;
    }
    const Thread& other = block->threads[of];
    return other.fences > block->fences_before_atomic && other.fence.epoch < block->epoch;
}

void GlobalMemory::check(const Trace& write, const Trace& mine, Access access, uintptr_t word) const {
    const Block* block = current->block;
    if (write.epoch <= launch_epoch_ || (write.who & ATOMIC && access != Access::Read)) return;
    const char* does = access == Access::Read ? "reads" : "writes";
    void* at = reinterpret_cast<void*>(word * 4);
    if (write.epoch >= block->first_epoch) {
        if (access == Access::Atomic || !is_unordered(write, mine) || write.who & ATOMIC) return;
        fail("race: it %s %p, which thread %u writes with no barrier between", does, at, write.who & THREAD);
    }
    if (write.who & ATOMIC || access == Access::Atomic) return;
    if ((write.bytes & mine.bytes) == 0) return;
    if ((write.who & RELEASED) == 0) {
        fail("race: it %s %p, which another block wrote with no fence and atomic after that", does, at);
    }
    if (!has_acquired()) {
        fail("race: it %s %p, which another block wrote, with no atomic and fence before that", does, at);
    }
}

// An atomic has been made: it tells others of what the block has written, as far as fences and barriers say so.
void GlobalMemory::release() {
    const Thread* me = current;
    const Block* block = me->block;
    for (const Written& written : written_) {
        const Thread& writer = block->threads[written.trace.who & THREAD];
        const bool own = writer.fences > written.fences && comes_before(writer.fence, writer.linear, block->epoch);
        const bool mine_after = me->fences > 0 && comes_before(written.trace, writer.linear, me->fence.epoch) &&
                                (writer.linear != me->linear || me->fences > written.fences);
        if (!own && !mine_after) continue;
        Trace& write = page_of(written.word * 4, true)->writes[written.word % (PAGE / 4)];
        if (write.epoch == written.trace.epoch && write.who == written.trace.who) write.who |= RELEASED;
    }
}

void GlobalMemory::watch_words(uintptr_t address, size_t bytes, Access access) {
    const bool writes = access != Access::Read;
    Thread* me = current;
    const Trace whole = now(me, 0xf, access == Access::Atomic ? ATOMIC : 0);
    for_words(address, bytes, [&](uintptr_t word, unsigned of_word) {
        Page* page = page_of(word * 4, writes);
        if (page == nullptr) return;
        Trace mine = whole;
        mine.bytes = uint16_t(of_word & 0xf);
        Trace& write = page->writes[word % (PAGE / 4)];
        check(write, mine, access, word);
        if (writes) write = mine;
        if (access == Access::Write) written_.push_back({word, mine, me->fences});
    });
    if (access != Access::Atomic) return;
    me->block->atomic = whole;
    me->block->fences_before_atomic = me->fences;
    release();
}

}  // namespace simt
