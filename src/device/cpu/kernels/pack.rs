//! Packed layouts of weight matrices.

use crate::device::cpu::CpuDevice;
use crate::device::params::WeightRef;
use crate::device::{Activations, DeviceError, PackSource};

/// Packs one matrix.
pub(in crate::device) fn pack(
    device: &mut CpuDevice,
    source: &PackSource<'_>,
    activations: Activations,
) -> Result<WeightRef, DeviceError> {
    let _ = (device, source, activations);
    unimplemented!("packing")
}
