//! Calls about memory: allocations, copies and fills.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use super::arena::{Arena, DEVICE, PINNED};
use super::settings::settings;
use super::status::{self, Answer, Refusal};
use super::streams::{HostBytes, Work};
use super::{Needs, call, give};

const PINNED_BYTES_MAX: u64 = 4 << 30;

/// Refuses what is not device memory as a whole.
fn check_device_memory(what: &str, addr: u64, bytes: u64) -> Answer {
    if DEVICE.holds(addr, bytes) {
        return Ok(());
    }
    let place = if DEVICE.is_range_of(addr) { "not within one allocation" } else { "not an address of the device" };
    Err(Refusal::new(status::INVALID_VALUE, format!("{what} {bytes} bytes at {addr:#x}: {place}")))
}

/// Refuses addresses of the device, and pinned memory that is not there. Whether the memory is pinned.
fn check_host_memory(what: &str, addr: u64, bytes: u64) -> Answer<bool> {
    let is_pinned = PINNED.is_range_of(addr);
    let why = match () {
        () if addr == 0 => "no address",
        () if DEVICE.is_range_of(addr) => "an address of the device",
        () if is_pinned && !PINNED.holds(addr, bytes) => "not within one allocation of pinned memory",
        () => return Ok(is_pinned),
    };
    Err(Refusal::new(status::INVALID_VALUE, format!("{what} {bytes} bytes at {addr:#x}: {why}")))
}

fn alloc(arena: &Arena, bytes: usize, limit: u64) -> Answer<u64> {
    if bytes == 0 {
        return Err(Refusal::new(status::INVALID_VALUE, "an allocation of 0 bytes"));
    }
    let none = || Refusal::quiet(status::OUT_OF_MEMORY, format!("{bytes} bytes"));
    arena.alloc(bytes as u64, limit).ok_or_else(none)
}

fn free(arena: &Arena, addr: u64) -> Answer {
    let nothing = || Refusal::new(status::INVALID_VALUE, format!("nothing is allocated at {addr:#x}"));
    if !arena.free(addr).ok_or_else(nothing)? {
        status::say(&format!("something wrote behind the allocation at {addr:#x}"));
    }
    Ok(())
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_int {
    call("cuMemGetInfo_v2", Needs::Context, |_| {
        let all = settings().memory_bytes;
        // SAFETY: by this function's contract.
        unsafe {
            give(free, all.saturating_sub(DEVICE.used()) as usize)?;
            give(total, all as usize)
        }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuMemAlloc_v2(addr: *mut u64, bytes: usize) -> c_int {
    call("cuMemAlloc_v2", Needs::Context, |driver| {
        driver.refuse_in_capture("memory is allocated")?;
        let found = alloc(&DEVICE, bytes, settings().memory_bytes)?;
        // SAFETY: by this function's contract.
        unsafe { give(addr, found) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuMemFree_v2(addr: u64) -> c_int {
    call("cuMemFree_v2", Needs::Context, |driver| {
        driver.refuse_in_capture("memory is freed")?;
        driver.wait_for_all();
        free(&DEVICE, addr)
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuMemHostAlloc(addr: *mut *mut c_void, bytes: usize, flags: c_uint) -> c_int {
    call("cuMemHostAlloc", Needs::Context, |driver| {
        driver.refuse_in_capture("pinned memory is allocated")?;
        if flags > 7 {
            return Err(Refusal::new(status::INVALID_VALUE, format!("flags {flags}")));
        }
        let found = alloc(&PINNED, bytes, PINNED_BYTES_MAX)?;
        // SAFETY: by this function's contract.
        unsafe { give(addr, found as *mut c_void) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuMemFreeHost(addr: *mut c_void) -> c_int {
    call("cuMemFreeHost", Needs::Context, |driver| {
        driver.refuse_in_capture("pinned memory is freed")?;
        driver.wait_for_all();
        free(&PINNED, addr as u64)
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuMemsetD8Async(addr: u64, value: u8, bytes: usize, stream: *mut c_void) -> c_int {
    call("cuMemsetD8Async", Needs::Context, |driver| {
        check_device_memory("to", addr, bytes as u64)?;
        driver.streams.get(stream)?.submit(Work::Fill { to: addr, value, bytes: bytes as u64 })
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: *const c_void,
    bytes: usize,
    stream: *mut c_void,
) -> c_int {
    call("cuMemcpyHtoDAsync_v2", Needs::Context, |driver| {
        let addr = from as u64;
        check_device_memory("to", to, bytes as u64)?;
        let is_pinned = check_host_memory("from", addr, bytes as u64)?;
        let stream = driver.streams.get(stream)?;
        let from = if is_pinned || stream.capture.is_some() {
            HostBytes::At { addr, bytes: bytes as u64 }
        } else {
            // SAFETY: readable memory of the host, by this function's contract.
            HostBytes::Taken(Arc::new(unsafe { std::slice::from_raw_parts(from.cast::<u8>(), bytes) }.to_vec()))
        };
        stream.submit(Work::Upload { to, from })
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: u64,
    bytes: usize,
    stream: *mut c_void,
) -> c_int {
    call("cuMemcpyDtoHAsync_v2", Needs::Context, |driver| {
        check_device_memory("from", from, bytes as u64)?;
        let is_pinned = check_host_memory("to", to as u64, bytes as u64)?;
        let stream = driver.streams.get(stream)?;
        stream.submit(Work::Download { to: to as u64, from, bytes: bytes as u64 })?;
        // To pageable memory, the driver returns when the copy is made.
        if !is_pinned && stream.capture.is_none() {
            stream.wait();
        }
        Ok(())
    })
}
