//! How the tests launch the crate's own kernels.
#![allow(dead_code, reason = "each test file uses some of it")]

use softcuda::emulate::{Launch, Library, Mode};

/// The bytes of pointer parameters.
pub(crate) fn addresses(pointers: &[*const u8]) -> Vec<[u8; 8]> {
    pointers.iter().map(|&pointer| (pointer as u64).to_ne_bytes()).collect()
}

/// As `launch` takes them.
pub(crate) fn slices(params: &[[u8; 8]]) -> Vec<&[u8]> {
    params.iter().map(<[u8; 8]>::as_slice).collect()
}

/// One chained launch of a probe.
pub(crate) fn launch(
    kernel: &str,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    params: &[&[u8]],
    mode: Mode,
) -> Result<(), String> {
    let (predecessor, is_memory) = (None, None);
    let launch = Launch { kernel, grid, block, shared_bytes, params, mode, chained: true, predecessor, is_memory };
    Library::probes().launch(launch)
}

/// The same in one dimension, without dynamic shared memory.
pub(crate) fn try_run(kernel: &str, blocks: u32, threads: u32, mode: Mode, params: &[[u8; 8]]) -> Result<(), String> {
    launch(kernel, [blocks, 1, 1], [threads, 1, 1], 0, &slices(params), mode)
}

/// The same, which must succeed.
pub(crate) fn run(kernel: &str, blocks: u32, threads: u32, mode: Mode, params: &[[u8; 8]]) {
    try_run(kernel, blocks, threads, mode, params).unwrap_or_else(|error| panic!("{mode:?}: {error}"));
}

/// Calls `f` with every mode.
pub(crate) fn in_all_modes(mut f: impl FnMut(Mode)) {
    Mode::ALL.into_iter().for_each(&mut f);
}
