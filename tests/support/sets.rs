//! The instruction sets that a kernel test goes over.

use vitrum::isa::IsaChoice;

/// Every set that this machine has. It says which, because `cargo xtask emulate` wants proof that none was left out.
pub(crate) fn sets() -> impl Iterator<Item = IsaChoice> {
    let sets: Vec<_> = IsaChoice::ALL.into_iter().filter(|isa| isa.is_available()).collect();
    let names: Vec<_> = sets.iter().map(|isa| isa.as_str()).collect();
    println!("instruction sets: {}", names.join(" "));
    sets.into_iter()
}
