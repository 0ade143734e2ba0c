//! Addresses on a device, typed by what is there: the Rust twin of `DEVPTR(T)` in csrc/params.h.

use std::fmt;
use std::marker::PhantomData;

/// An address on a device, of values of this type; null: none. The host follows it only where it is the device.
#[repr(transparent)]
pub struct DevicePtr<T> {
    addr: u64,
    values: PhantomData<fn() -> T>,
}

impl<T> DevicePtr<T> {
    /// No address.
    pub const NULL: DevicePtr<T> = DevicePtr::new(0);

    /// The address of values of this type.
    pub const fn new(addr: u64) -> DevicePtr<T> {
        DevicePtr { addr, values: PhantomData }
    }

    /// The address.
    pub const fn addr(self) -> u64 {
        self.addr
    }

    /// Whether it is none.
    pub const fn is_null(self) -> bool {
        self.addr == 0
    }

    /// The same address, of values of another type.
    pub const fn cast<U>(self) -> DevicePtr<U> {
        DevicePtr::new(self.addr)
    }

    /// On a device that is the host: the pointer, to read.
    #[inline(always)]
    pub const fn as_ptr(self) -> *const T {
        self.addr as *const T
    }

    /// On a device that is the host: the pointer, to write.
    #[inline(always)]
    pub const fn as_mut_ptr(self) -> *mut T {
        self.addr as *mut T
    }
}

impl<T> From<u64> for DevicePtr<T> {
    fn from(addr: u64) -> DevicePtr<T> {
        DevicePtr::new(addr)
    }
}

impl<T> Clone for DevicePtr<T> {
    fn clone(&self) -> DevicePtr<T> {
        *self
    }
}

impl<T> Copy for DevicePtr<T> {}

impl<T> Default for DevicePtr<T> {
    fn default() -> DevicePtr<T> {
        DevicePtr::NULL
    }
}

impl<T> PartialEq for DevicePtr<T> {
    fn eq(&self, other: &DevicePtr<T>) -> bool {
        self.addr == other.addr
    }
}

impl<T> Eq for DevicePtr<T> {}

impl<T> fmt::Debug for DevicePtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.addr)
    }
}

// SAFETY: it is a number, whose bytes mean the same on the device; nothing on the host is reached through it.
unsafe impl<T> cust_core::DeviceCopy for DevicePtr<T> {}
