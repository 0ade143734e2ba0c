//! Modules: the names and parameters of kernels from a real cubin, the code from the library compiled for the host.

use std::collections::BTreeMap;

use super::status::{self, Answer, Refusal};
use crate::cupti::{Activity, Kernel};
use crate::emulate::Library;

/// Shared memory that a block may have without asking for more, and with.
pub(super) const SHARED_BYTES_DEFAULT: u32 = 48 << 10;
pub(super) const SHARED_BYTES_MAX: u32 = 227 << 10;

/// A kernel as its image describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KernelInfo {
    /// (offset, size) of each parameter.
    pub(super) parameters: Vec<(u32, u32)>,
    /// The most threads of a block; 0: no bound of its own.
    pub(super) threads_max: u32,
    pub(super) static_shared_bytes: u32,
    /// Of each thread; 0 where only the host has the kernel.
    pub(super) registers: u32,
}

pub(super) struct Module {
    pub(super) library: &'static Library,
    pub(super) kernels: BTreeMap<String, KernelInfo>,
}

pub(super) struct Function {
    /// The module's handle, to know when it is gone.
    pub(super) module: usize,
    pub(super) library: &'static Library,
    pub(super) name: String,
    pub(super) info: KernelInfo,
    pub(super) dynamic_shared_bytes_max: u32,
}

/// A launch, with the bytes of its parameters.
pub(super) struct Call {
    pub(super) module: usize,
    pub(super) library: &'static Library,
    pub(super) kernel: String,
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) shared_bytes: u32,
    pub(super) params: Vec<Vec<u8>>,
    pub(super) chained: bool,
    pub(super) registers: u32,
    pub(super) static_shared_bytes: u32,
}

impl Call {
    /// As a record shows it.
    pub(super) fn activity(&self) -> Activity<'_> {
        Activity::Kernel(Kernel {
            name: &self.kernel,
            registers: self.registers,
            grid: self.grid,
            block: self.block,
            static_shared_bytes: self.static_shared_bytes,
            dynamic_shared_bytes: self.shared_bytes,
        })
    }
}

impl Module {
    /// From an image in memory, which says its own length.
    ///
    /// # Safety
    /// The image is a whole ELF file, or text that ends with 0.
    pub(super) unsafe fn load(image: *const u8) -> Answer<Module> {
        let refuse = |why: &str| Refusal::new(status::INVALID_IMAGE, why);
        if image.is_null() {
            return Err(refuse("no image"));
        }
        // SAFETY: by this function's contract there is at least one byte, and more until a 0 or within an ELF header.
        let is_elf = unsafe { b"\x7fELF".iter().enumerate().all(|(i, byte)| *image.add(i) == *byte) };
        if is_elf {
            // SAFETY: a whole ELF file, whose length its header says.
            let bytes = unsafe { std::slice::from_raw_parts(image, elf_bytes(image)) };
            let kernels = read_cubin(bytes).ok_or_else(|| refuse("a damaged cubin"))?;
            let module = Module { library: Library::kernels(), kernels };
            module.check()?;
            return Ok(module);
        }
        // SAFETY: by this function's contract.
        let text = unsafe { std::ffi::CStr::from_ptr(image.cast()) };
        let library = match text.to_bytes() {
            b"softcuda" => Library::kernels(),
            b"softcuda probes" => Library::probes(),
            _ => return Err(refuse("neither a cubin nor the text \"softcuda\"; PTX is not compiled")),
        };
        let kernels = library.all().iter().map(|kernel| {
            let mut end = 0;
            let parameters = kernel.parameter_bytes.iter().map(|&bytes| {
                let offset = u32::next_multiple_of(end, bytes.min(8).next_power_of_two());
                end = offset + bytes;
                (offset, bytes)
            });
            (kernel.name.clone(), KernelInfo { parameters: parameters.collect(), ..KernelInfo::default() })
        });
        Ok(Module { library, kernels: kernels.collect() })
    }

    /// Each kernel of the image has to be there for the host too, with the same parameters.
    fn check(&self) -> Answer {
        for (name, info) in &self.kernels {
            let sizes: Vec<u32> = info.parameters.iter().map(|&(_, bytes)| bytes).collect();
            let why = match self.library.find(name) {
                None => "is not compiled for the host".to_owned(),
                Some(kernel) if kernel.parameter_bytes != sizes => {
                    format!("takes {sizes:?} bytes, for the host {:?}", kernel.parameter_bytes)
                }
                Some(_) => continue,
            };
            return Err(Refusal::new(status::INVALID_IMAGE, format!("kernel {name} of the cubin {why}")));
        }
        Ok(())
    }
}

/// The length of an ELF file: its section headers end it, or a section or segment does.
///
/// # Safety
/// A whole ELF file lies there.
unsafe fn elf_bytes(image: *const u8) -> usize {
    // SAFETY: a header of 64 bytes, by this function's contract.
    let header = unsafe { std::slice::from_raw_parts(image, 64) };
    let word = |at: usize, bytes: usize| number(header, at, bytes).unwrap_or(0) as usize;
    let table = |begin: usize, entry: usize, count: usize| word(begin, 8) + word(entry, 2) * word(count, 2);
    let mut end = table(0x28, 0x3a, 0x3c).max(table(0x20, 0x36, 0x38)).max(64);
    // SAFETY: the tables lie in the file.
    let sections = unsafe { std::slice::from_raw_parts(image, end) };
    for section in 0..word(0x3c, 2) {
        let at = word(0x28, 8) + section * word(0x3a, 2);
        let value = |offset: usize, bytes: usize| number(sections, at + offset, bytes).unwrap_or(0) as usize;
        const NOBITS: usize = 8;
        if value(4, 4) != NOBITS {
            end = end.max(value(0x18, 8) + value(0x20, 8));
        }
    }
    end
}

/// A little-endian number.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let slice = bytes.get(at..at.checked_add(size)?)?;
    Some(slice.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

/// The kernels that a cubin describes: sections `.nv.info.<kernel>` and `.nv.shared.<kernel>`, and registers by
/// symbol in `.nv.info`, with the symbol of each kernel in the header of `.text.<kernel>`.
fn read_cubin(elf: &[u8]) -> Option<BTreeMap<String, KernelInfo>> {
    let (table, entry) = (number(elf, 0x28, 8)? as usize, number(elf, 0x3a, 2)? as usize);
    let (count, names) = (number(elf, 0x3c, 2)? as usize, number(elf, 0x3e, 2)? as usize);
    let field = |section: usize, offset: usize, size: usize| number(elf, table + section * entry + offset, size);
    let names = field(names, 0x18, 8)? as usize;
    let mut kernels: BTreeMap<String, KernelInfo> = BTreeMap::new();
    let (mut symbols, mut registers) = (Vec::new(), BTreeMap::new());
    for section in 0..count {
        let name = elf.get(names + field(section, 0, 4)? as usize..)?;
        let name = std::ffi::CStr::from_bytes_until_nul(name).ok()?.to_str().ok()?;
        let (offset, size) = (field(section, 0x18, 8)? as usize, field(section, 0x20, 8)? as usize);
        if let Some(kernel) = name.strip_prefix(".nv.info.") {
            read_info(elf.get(offset..offset + size)?, kernels.entry(kernel.to_owned()).or_default())?;
        } else if name == ".nv.info" {
            registers = read_registers(elf.get(offset..offset + size)?)?;
        } else if let Some(kernel) = name.strip_prefix(".text.") {
            symbols.push((kernel.to_owned(), field(section, 0x2c, 4)? & 0xff_ffff));
        } else if let Some(kernel) = name.strip_prefix(".nv.shared.") {
            // `.nv.shared.reserved.<n>` is the driver's own part.
            if !kernel.starts_with("reserved") {
                kernels.entry(kernel.to_owned()).or_default().static_shared_bytes = size as u32;
            }
        }
    }
    for (kernel, symbol) in symbols {
        if let Some((info, count)) = kernels.get_mut(&kernel).zip(registers.get(&symbol)) {
            info.registers = *count;
        }
    }
    Some(kernels)
}

/// Registers of a thread, by the kernel's symbol.
fn read_registers(bytes: &[u8]) -> Option<BTreeMap<u64, u32>> {
    const REGISTERS: u64 = 0x2f;
    let of = |(attribute, value): (u64, &[u8])| {
        let count = || Some((number(value, 0, 4)?, number(value, 4, 4)? as u32));
        (attribute == REGISTERS).then(count)
    };
    attributes(bytes)?.into_iter().filter_map(of).collect()
}

/// Attributes with a value of some length: a format, an attribute, and 16 bits that are a value or the length of what
/// follows.
fn attributes(bytes: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    const SIZED: u64 = 4;
    let mut found = Vec::new();
    let mut at = 0;
    while at + 4 <= bytes.len() {
        let (format, attribute) = (number(bytes, at, 1)?, number(bytes, at + 1, 1)?);
        let length = if format == SIZED { number(bytes, at + 2, 2)? as usize } else { 0 };
        at += 4;
        if format == SIZED {
            found.push((attribute, bytes.get(at..at + length)?));
        }
        at += length;
    }
    Some(found)
}

/// Attributes of one kernel.
fn read_info(bytes: &[u8], info: &mut KernelInfo) -> Option<()> {
    const MAX_THREADS: u64 = 0x05;
    const PARAMETER: u64 = 0x17;
    let mut parameters: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
    for (attribute, value) in attributes(bytes)? {
        match attribute {
            MAX_THREADS => info.threads_max = number(value, 0, 4)? as u32,
            PARAMETER => {
                let (ordinal, offset) = (number(value, 4, 2)?, number(value, 6, 2)? as u32);
                parameters.insert(ordinal, (offset, (number(value, 8, 4)? >> 18) as u32));
            }
            _ => {}
        }
    }
    info.parameters = parameters.into_values().collect();
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(ordinal: u8, offset: u8, size: u32) -> Vec<u8> {
        let mut bytes = vec![4, 0x17, 12, 0, 0, 0, 0, 0, ordinal, 0, offset, 0];
        bytes.extend((size << 18 | 0x1f000).to_le_bytes());
        bytes
    }

    /// An ELF file with these sections (name, type, bytes, size), the section headers in front of them.
    fn elf(sections: &[(&str, u32, &[u8], u64)]) -> Vec<u8> {
        let names = sections.iter().map(|(name, ..)| format!("{name}\0")).collect::<String>() + "\0";
        let with_names = [sections, &[("", 3, names.as_bytes(), names.len() as u64)]].concat();
        let mut file = vec![0u8; 64 + 64 * with_names.len()];
        file[..4].copy_from_slice(b"\x7fELF");
        file[0x28..0x30].copy_from_slice(&64u64.to_le_bytes());
        file[0x3a..0x40].copy_from_slice(&[64, 0, with_names.len() as u8, 0, sections.len() as u8, 0]);
        let mut name_at = 0u32;
        for (index, (name, kind, bytes, size)) in with_names.iter().enumerate() {
            let (at, offset) = (64 + 64 * index, file.len() as u64);
            file[at..at + 4].copy_from_slice(&name_at.to_le_bytes());
            file[at + 4..at + 8].copy_from_slice(&kind.to_le_bytes());
            file[at + 0x18..at + 0x20].copy_from_slice(&offset.to_le_bytes());
            file[at + 0x20..at + 0x28].copy_from_slice(&size.to_le_bytes());
            file[at + 0x2c] = if name.starts_with(".text") { 7 } else { 0 };
            file.extend(*bytes);
            name_at += name.len() as u32 + u32::from(index < sections.len());
        }
        file
    }

    #[test]
    fn kernels_of_a_cubin_are_found() {
        let (info, text) = (parameter(0, 0, 8), [1u8; 40]);
        // The symbol of `.text.a` is 7, which `elf` writes into its header; 231 registers.
        let registers = [4, 0x2f, 8, 0, 7, 0, 0, 0, 231, 0, 0, 0];
        let sections: [(&str, u32, &[u8], u64); 5] = [
            (".text.a", 1, &text, 40),
            (".nv.info", 1, &registers, 12),
            (".nv.info.a", 1, &info, info.len() as u64),
            (".nv.shared.a", 8, &[], 4096),
            (".nv.shared.reserved.0", 8, &[], 1 << 40),
        ];
        let mut file = elf(&sections);
        let bytes = file.len();
        file.extend([9; 100]);
        // SAFETY: a whole ELF file lies there.
        assert_eq!(unsafe { elf_bytes(file.as_ptr()) }, bytes, "without what follows, and without what has no bytes");
        let kernels = read_cubin(&file[..bytes]).expect("whole");
        let a = KernelInfo { parameters: vec![(0, 8)], threads_max: 0, static_shared_bytes: 4096, registers: 231 };
        assert_eq!(kernels, BTreeMap::from([("a".to_owned(), a)]));
        assert!(read_cubin(&file[..bytes - 60]).is_none(), "cut");
        // SAFETY: as above.
        let refusal = unsafe { Module::load(file.as_ptr()) }.err().expect("a kernel that csrc does not have");
        assert_eq!(refusal.status, status::INVALID_IMAGE);
    }

    #[test]
    fn attributes_of_a_kernel_are_read() {
        // As nvcc writes them: the last parameter first; an attribute with a value only, in between.
        let bytes = [
            parameter(1, 80, 8),
            vec![3, 0x1b, 255, 0],
            parameter(0, 0, 80),
            vec![4, 5, 12, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
        ];
        let mut info = KernelInfo::default();
        read_info(&bytes.concat(), &mut info).expect("whole");
        assert_eq!(info, KernelInfo { parameters: vec![(0, 80), (80, 8)], threads_max: 256, ..KernelInfo::default() });
        let cut = bytes.concat();
        assert!(read_info(&cut[..10], &mut info).is_none());
    }
}
