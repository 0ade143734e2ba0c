//! The instruction sets that a kernel test goes over.

use vitrum::isa::IsaChoice;

/// Every set that this machine has. `cargo xtask test` says which it lacks.
pub(crate) fn sets() -> impl Iterator<Item = IsaChoice> {
    IsaChoice::ALL.into_iter().filter(|isa| isa.is_available())
}
