//! What there is: processor, driver, GPU, embedded kernels, and the roofs of each device.

use super::{Doctor, Finding, Found, is_software, open};
use crate::device::cuda::images::IMAGES;
use crate::device::cuda::{self, CudaError, GpuDescription};
use crate::device::{DeviceChoice, DevicePeaks};

/// The processor, as the CPU device sees it.
pub(super) fn check_cpu(doctor: &mut Doctor) {
    doctor.check("machine", DeviceChoice::Cpu, || {
        let device = open(DeviceChoice::Cpu)?;
        let info = device.info();
        let gib = info.memory_bytes as f64 / f64::from(1 << 30);
        let note = format!("{}, {}, {} workers, {gib:.1} GiB", info.name, info.isa, info.workers);
        Finding::of(note, vec![("workers", info.workers as f64), ("memory_bytes", info.memory_bytes as f64)])
    });
}

/// Driver, GPU and kernels; the GPU, if one can be used. `required`: its absence is a failure.
pub(super) fn check_gpu(doctor: &mut Doctor, required: bool) -> Option<GpuDescription> {
    let found = |error: CudaError| match error.is_absence() && !required {
        true => Finding::absent(error.to_string()),
        false => Err(error.into()),
    };
    let described = cuda::describe();
    let gpu = described.as_ref().ok().cloned();
    doctor.software = gpu.as_ref().is_some_and(is_software);
    let software = doctor.software;
    doctor.check("driver", DeviceChoice::Cuda, || match cuda::driver_version() {
        Ok((major, minor)) => Finding::of(format!("CUDA {major}.{minor}"), vec![]),
        Err(error) => found(error),
    });
    doctor.check("gpu", DeviceChoice::Cuda, || {
        let gpu = match described {
            Ok(gpu) => gpu,
            Err(error) => return found(error),
        };
        let GpuDescription { name, capability: (major, minor), multiprocessors, l2_bytes, .. } = gpu;
        let said = if software { " (software, no GPU)" } else { "" };
        let l2_mib = l2_bytes >> 20;
        Finding::of(
            format!(
                "{name}{said}, compute capability {major}.{minor}, {multiprocessors} multiprocessors, {l2_mib} MiB L2"
            ),
            vec![("multiprocessors", multiprocessors.into()), ("l2_bytes", l2_bytes as f64)],
        )
    });
    doctor.check("embedded kernels", DeviceChoice::Cuda, || {
        let mut archs: Vec<_> = IMAGES.iter().map(|image| image.arch).collect();
        archs.sort_unstable();
        archs.dedup();
        match (&gpu, archs.is_empty()) {
            (_, true) => found(CudaError::NoKernels),
            (None, false) => Finding::absent(format!("{}; there is no GPU to run one of them", archs.join(", "))),
            (Some(gpu), false) => Finding::of(format!("{}; taken: {}", archs.join(", "), gpu.archs.join(", ")), vec![]),
        }
    });
    gpu
}

/// The roofs of a device, which all have to be there.
pub(super) fn peaks(choice: DeviceChoice) -> Found {
    let peaks = open(choice)?.measure_peaks()?;
    let DevicePeaks { memory_gb_s, cache_gb_s, cache_bytes, copy_gb_s, float_gflop_s, int8_gop_s } = peaks;
    let figures = vec![
        ("memory_gb_s", memory_gb_s),
        ("cache_gb_s", cache_gb_s),
        ("cache_bytes", cache_bytes as f64),
        ("copy_gb_s", copy_gb_s),
        ("float_gflop_s", float_gflop_s),
        ("int8_gop_s", int8_gop_s),
    ];
    if let Some((name, value)) = figures.iter().find(|(_, value)| !(value.is_finite() && *value > 0.0)) {
        return Err(format!("{name} is {value}").into());
    }
    let arithmetic = if choice == DeviceChoice::Cuda { "bf16 mma" } else { "f32" };
    let note = format!(
        "read {memory_gb_s:.1} GB/s (up to {:.1} MiB: {cache_gb_s:.1}), copy {copy_gb_s:.1} GB/s, \
         {arithmetic} {float_gflop_s:.1} GFLOP/s, int8 {int8_gop_s:.1} GOP/s",
        cache_bytes as f64 / f64::from(1 << 20)
    );
    Finding::of(note, figures)
}
