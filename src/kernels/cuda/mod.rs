//! What the CUDA kernels of csrc have in common on the host's side: launches, rows of activations, what they ask for.
//! Nothing here calls the driver.

pub(crate) mod check;
pub(crate) mod launch;
pub mod rows;

pub(crate) use self::check::LIMITS;
pub(crate) use self::launch::Launch;
