//! What an image says about its kernels: threads per block, from `__launch_bounds__`.

/// The section of a kernel's attributes is named by the kernel.
const ATTRIBUTES: &str = ".nv.info.";
/// EIATTR_MAX_THREADS: three 32-bit numbers.
const MAX_THREADS: u8 = 0x05;
/// EIFMT_SVAL: a size and as many bytes follow. Attributes of other forms are four bytes in all.
const FORM_SIZED: u8 = 0x04;

/// Every kernel of an ELF file with the most threads that its blocks have; 0 if it does not say.
pub(super) fn kernels(elf: &[u8]) -> Result<Vec<(String, u32)>, String> {
    sections(elf).ok_or("the image is not an ELF file of 64 bits")?.into_iter().map(attributes).collect()
}

fn attributes((kernel, bytes): (String, &[u8])) -> Result<(String, u32), String> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let &[form, attribute, low, high, ref tail @ ..] = rest else {
            return Err(format!("{kernel}: its attributes are cut off"));
        };
        let size = if form == FORM_SIZED { usize::from(u16::from_le_bytes([low, high])) } else { 0 };
        let value = tail.get(..size).ok_or(format!("{kernel}: an attribute is cut off"))?;
        if attribute == MAX_THREADS {
            let sizes: Vec<u32> = value.as_chunks::<4>().0.iter().map(|four| u32::from_le_bytes(*four)).collect();
            return Ok((kernel, sizes.iter().product()));
        }
        rest = &tail[size..];
    }
    Ok((kernel, 0))
}

/// The attributes of every kernel.
fn sections(elf: &[u8]) -> Option<Vec<(String, &[u8])>> {
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, each) = (number(elf, 0x28, 8)?, number(elf, 0x3a, 2)?);
    let (count, names) = (number(elf, 0x3c, 2)?, number(elf, 0x3e, 2)?);
    let section = |index: usize| elf.get(table + index * each..)?.get(..each);
    let content = |header: &[u8]| elf.get(number(header, 0x18, 8)?..)?.get(..number(header, 0x20, 8)?);
    let names = content(section(names)?)?;
    let mut found = Vec::new();
    for index in 0..count {
        let header = section(index)?;
        let name = names.get(number(header, 0, 4)?..)?.split(|&byte| byte == 0).next()?;
        if let Some(kernel) = std::str::from_utf8(name).ok()?.strip_prefix(ATTRIBUTES) {
            found.push((kernel.to_owned(), content(header)?));
        }
    }
    Some(found)
}

/// A little-endian number of some bytes.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + size)?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of a header, a table of names, one section of attributes, and their headers.
    fn elf(attributes: &[u8]) -> Vec<u8> {
        let names = b"\0.nv.info.product\0";
        let mut file = b"\x7fELF\x02\x01".to_vec();
        file.resize(0x40, 0);
        let section = |name: u32, offset: usize, size: usize| {
            let mut header = name.to_le_bytes().to_vec();
            header.resize(0x18, 0);
            header.extend([offset as u64, size as u64].iter().flat_map(|number| number.to_le_bytes()));
            header.resize(0x40, 0);
            header
        };
        let headers = [section(0, 0x40, names.len()), section(1, 0x40 + names.len(), attributes.len())].concat();
        file.extend([names, attributes].concat());
        let table = file.len() as u64;
        file.extend(headers);
        file[0x28..0x30].copy_from_slice(&table.to_le_bytes());
        file[0x3a..0x40].copy_from_slice(&[0x40, 0, 2, 0, 0, 0]);
        file
    }

    #[test]
    fn threads_are_found_among_other_attributes() {
        let others = [0x03, 0x1b, 0xff, 0x00, 0x04, 0x37, 0x04, 0x00, 1, 2, 3, 4];
        let threads = [0x04, MAX_THREADS, 12, 0, 0, 1, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0];
        let found = |attributes: &[u8]| kernels(&elf(attributes));
        assert_eq!(found(&[&others[..], &threads].concat()).unwrap(), [("product".to_owned(), 512)]);
        assert_eq!(found(&others).unwrap(), [("product".to_owned(), 0)]);
        assert!(found(&threads[..9]).unwrap_err().contains("cut off"));
        assert!(kernels(b"//\n// PTX").is_err() && kernels(&elf(&others)[..0x60]).is_err());
    }
}
