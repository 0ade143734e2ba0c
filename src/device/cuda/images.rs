//! The compiled kernels: images of csrc/*.cu, which build.rs put into this binary.
//!
//! An image is what `cuModuleLoadData` takes: an ELF file with code of one architecture, or PTX, text that ends in a
//! zero byte and that the driver compiles.

/// One compiled file.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// `embed` for csrc/embed.cu.
    pub file: &'static str,
    /// `sm_90a`: code for capability 9.0 alone; `sm_80`: for 8.0 and what comes after it within 8;
    /// `compute_90`: PTX, for 9.0 and everything after it.
    pub arch: &'static str,
    /// The image itself.
    pub bytes: &'static [u8],
}

/// Readers of an image take its headers in place.
#[repr(align(16))]
#[allow(dead_code, reason = "a build without nvcc has no image")]
struct Aligned<T>(T);

/// Every image, by file; empty if the machine that built this binary had no nvcc.
pub static IMAGES: &[Image] = include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// For each file, the image that fits a device of this compute capability (major, minor) best: code for just this one,
/// then the newest code that it runs, then PTX. Empty if some file has none.
pub fn images_for(capability: (u32, u32)) -> Vec<Image> {
    choose(IMAGES, capability)
}

fn choose(images: &[Image], capability: (u32, u32)) -> Vec<Image> {
    let mut files: Vec<&str> = images.iter().map(|image| image.file).collect();
    files.dedup();
    let best = |file: &str| {
        let fitting = images.iter().filter(|image| image.file == file);
        fitting.filter_map(|image| Some((fit(image.arch, capability)?, image))).max_by_key(|(fit, _)| *fit)
    };
    let found: Option<Vec<Image>> = files.into_iter().map(|file| Some(*best(file)?.1)).collect();
    found.unwrap_or_default()
}

/// How well an architecture fits a device, more is better; `None`: it does not run there.
fn fit(arch: &str, (major, minor): (u32, u32)) -> Option<(bool, u32, bool)> {
    let (is_code, number) =
        arch.strip_prefix("sm_").map_or((false, arch.strip_prefix("compute_")), |n| (true, Some(n)));
    let number = number?;
    let digits = number.trim_end_matches('a');
    let is_exact = digits.len() < number.len();
    let version: u32 = digits.parse().ok()?;
    let (arch_major, arch_minor) = (version / 10, version % 10);
    let runs = match (is_exact, is_code) {
        (true, _) => (arch_major, arch_minor) == (major, minor),
        (false, true) => arch_major == major && arch_minor <= minor,
        (false, false) => (arch_major, arch_minor) <= (major, minor),
    };
    runs.then_some((is_code, version, is_exact))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(file: &'static str, arch: &'static str) -> Image {
        Image { file, arch, bytes: &[] }
    }

    #[test]
    fn the_image_that_fits_best_is_taken() {
        let archs = ["sm_80", "sm_90a", "sm_100", "sm_120", "compute_90"];
        let all: Vec<Image> = ["a", "b"].iter().flat_map(|file| archs.map(|arch| image(file, arch))).collect();
        let chosen = |capability| -> Vec<&str> { choose(&all, capability).iter().map(|i| i.arch).collect() };
        assert_eq!(chosen((9, 0)), ["sm_90a", "sm_90a"]);
        assert_eq!(chosen((8, 9)), ["sm_80", "sm_80"]);
        assert_eq!(chosen((10, 3)), ["sm_100", "sm_100"]);
        assert_eq!(chosen((11, 0)), ["compute_90", "compute_90"]);
        assert_eq!(chosen((12, 1)), ["sm_120", "sm_120"]);
        assert!(chosen((7, 5)).is_empty());
        let one_short = [image("a", "sm_80"), image("a", "sm_90a"), image("b", "sm_90a")];
        assert!(choose(&one_short, (8, 0)).is_empty() && choose(&one_short, (9, 0)).len() == 2);
    }

    #[test]
    fn what_is_embedded_are_images() {
        for Image { file, arch, bytes } in IMAGES {
            let (begin, end): (&[u8], &[u8]) =
                if arch.starts_with("sm_") { (b"\x7fELF", b"") } else { (b"//\n", b"\n\0") };
            assert!(bytes.starts_with(begin) && bytes.ends_with(end), "{file} for {arch}: {} bytes", bytes.len());
            assert_eq!(bytes.as_ptr().align_offset(16), 0, "{file} for {arch}");
        }
    }
}
