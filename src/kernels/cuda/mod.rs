//! What the CUDA kernels of csrc have in common on the host's side: their launches, rows of activations, what they ask for.
//!
//! `vitrum` needs no GPU to be built with: nothing here calls the driver.

pub(crate) mod check;
pub(crate) mod launch;
pub mod rows;

pub(crate) use self::check::LIMITS;
pub(crate) use self::launch::Launch;
