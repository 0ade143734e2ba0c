//! The real model that golden tests run: fetched once into the cache that `vitrum` itself uses.

use std::path::PathBuf;

use vitrum::weights::hub;

/// SmolLM2-135M-Instruct in Q4_1. A test that needs it fails without it: it is not passed over.
pub fn path() -> PathBuf {
    let home = std::env::home_dir().expect("a home folder");
    let cache = hub::cache_dir_below(&home);
    let model = hub::named("smollm2").expect("smollm2 is a known name");
    hub::cached(model, &cache).unwrap_or_else(|| {
        panic!("this test needs {} in {}: run `cargo xtask test`, which fetches it", model.file, cache.display())
    })
}
