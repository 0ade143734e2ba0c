//! Handles: numbers that say what they are of, so that a wrong one, or one of something destroyed, is known as such.

use std::collections::BTreeMap;
use std::ffi::c_void;

use super::status::{self, Answer, Refusal};

/// Live things of one kind, by handle.
pub(super) struct Handles<T> {
    what: &'static str,
    /// Handles are `base + 16 n`, each given out once.
    base: usize,
    next: usize,
    live: BTreeMap<usize, T>,
}

impl<T> Handles<T> {
    /// `kind`: a number that no other kind has.
    pub(super) const fn new(what: &'static str, kind: usize) -> Handles<T> {
        let base = 0x5c00_0000_0000_0000 | kind << 48;
        Handles { what, base, next: base + 16, live: BTreeMap::new() }
    }

    pub(super) fn insert(&mut self, value: T) -> *mut c_void {
        let handle = self.reserve();
        self.put(handle, value);
        handle
    }

    /// A handle of something that is yet to be.
    pub(super) fn reserve(&mut self) -> *mut c_void {
        let handle = self.next;
        self.next += 16;
        handle as *mut c_void
    }

    /// What a reserved handle is of.
    pub(super) fn put(&mut self, handle: *mut c_void, value: T) {
        self.live.insert(handle as usize, value);
    }

    pub(super) fn get(&mut self, handle: *mut c_void) -> Answer<&mut T> {
        let error = self.error(handle);
        self.live.get_mut(&(handle as usize)).ok_or(error)
    }

    pub(super) fn remove(&mut self, handle: *mut c_void) -> Answer<T> {
        let error = self.error(handle);
        self.live.remove(&(handle as usize)).ok_or(error)
    }

    /// The handle of one that is so.
    pub(super) fn find(&self, is_it: impl Fn(&T) -> bool) -> Option<*mut c_void> {
        self.live.iter().find(|(_, value)| is_it(value)).map(|(&handle, _)| handle as *mut c_void)
    }

    pub(super) fn values(&mut self) -> impl Iterator<Item = &mut T> {
        self.live.values_mut()
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.live.retain(|_, value| keep(value));
    }

    /// Destroys what is left.
    pub(super) fn clear(&mut self) {
        self.live.clear();
    }

    pub(super) fn count(&self) -> (usize, &'static str) {
        (self.live.len(), self.what)
    }

    fn error(&self, handle: *mut c_void) -> Refusal {
        let (what, number) = (self.what, handle as usize);
        let was = number > self.base && number < self.next;
        let why = if was { format!("a destroyed {what}") } else { format!("{number:#x} is no {what}") };
        Refusal::new(status::INVALID_HANDLE, why)
    }
}
