//! Values as bytes: what is copied to and from a device.

use cust_core::DeviceCopy;

/// The bytes of plain values.
///
/// The types of `params.h` have no padding: their sizes are asserted there to be the sums of their fields.
pub fn pod_bytes<T: DeviceCopy>(values: &[T]) -> &[u8] {
    // SAFETY: DeviceCopy types hold no references, and those in use have no padding; any byte is a valid u8.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The first value in `bytes`, at any alignment.
pub fn read_pod<T: DeviceCopy>(bytes: &[u8]) -> T {
    assert!(bytes.len() >= size_of::<T>(), "{} bytes hold no value of {}", bytes.len(), size_of::<T>());
    // SAFETY: the length was checked, and every bit pattern is a value of the integer and float structs in use.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}
