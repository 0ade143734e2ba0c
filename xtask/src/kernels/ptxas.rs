//! What `ptxas -v` says about every kernel of a file.

/// What one kernel takes.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Usage {
    pub(super) kernel: String,
    pub(super) registers: u32,
    /// Bytes of static shared memory.
    pub(super) shared: u32,
    /// Bytes of stack, which is memory: arrays that registers cannot hold, and calls.
    pub(super) stack: u32,
    /// Bytes of registers written to memory, and read from there, with those of the functions it calls.
    pub(super) spilled: u32,
}

/// The kernels in the order of the log, or the line that could not be read.
pub(super) fn parse(log: &str) -> Result<Vec<Usage>, String> {
    let mut kernels: Vec<Usage> = Vec::new();
    for line in log.lines() {
        let unreadable = || format!("ptxas: not understood: {line}");
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            kernels.push(Usage { kernel, ..Usage::default() });
        } else if line.contains("bytes stack frame") {
            let kernel = kernels.last_mut().ok_or_else(unreadable)?;
            let bytes = |what| before(line, what).ok_or_else(unreadable);
            kernel.stack += bytes(" bytes stack frame")?;
            kernel.spilled += bytes(" bytes spill stores")? + bytes(" bytes spill loads")?;
        } else if line.contains(": Used ") {
            let kernel = kernels.last_mut().ok_or_else(unreadable)?;
            kernel.registers = before(line, " registers").ok_or_else(unreadable)?;
            kernel.shared = before(line, " bytes smem").unwrap_or(0);
        }
    }
    match kernels.iter().find(|kernel| kernel.registers == 0) {
        Some(kernel) => Err(format!("ptxas: nothing is said of the registers of {}", kernel.kernel)),
        None => Ok(kernels),
    }
}

/// The number that stands before a word.
fn before(line: &str, word: &str) -> Option<u32> {
    let (text, _) = line.split_once(word)?;
    text.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of CUDA 13.0, with a function that was not inlined.
    const LOG: &str = "ptxas info    : 0 bytes gmem\n\
        ptxas info    : Compiling entry function 'calls' for 'sm_80'\n\
        ptxas info    : Function properties for calls\n    \
            40 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
        ptxas info    : Used 18 registers, used 0 barriers, 40 bytes cumulative stack size, 384 bytes cmem[0]\n\
        ptxas info    : Compile time = 10.800 ms\n\
        ptxas info    : Function properties for _Z4slowILi9EEfPKfi\n    \
            0 bytes stack frame, 4 bytes spill stores, 0 bytes spill loads\n\
        ptxas info    : Compiling entry function 'spilling' for 'sm_80'\n\
        ptxas info    : Function properties for spilling\n    \
            424 bytes stack frame, 836 bytes spill stores, 832 bytes spill loads\n\
        ptxas info    : Used 32 registers, used 1 barriers, 424 bytes cumulative stack size\n\
        ptxas info    : Compiling entry function 'product' for 'sm_80'\n\
        ptxas info    : Function properties for product\n    \
            0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
        ptxas info    : Used 14 registers, used 1 barriers, 1024 bytes smem, 384 bytes cmem[0]\n";

    #[test]
    fn every_kernel_is_read() {
        let usage = |kernel: &str, registers, shared, stack, spilled| Usage {
            kernel: kernel.to_owned(),
            registers,
            shared,
            stack,
            spilled,
        };
        let expected =
            [usage("calls", 18, 0, 40, 4), usage("spilling", 32, 0, 424, 1668), usage("product", 14, 1024, 0, 0)];
        assert_eq!(parse(LOG).unwrap(), expected);
    }

    #[test]
    fn a_log_of_another_form_is_an_error() {
        assert!(parse(&LOG.replace(" bytes spill loads", " words lost")).unwrap_err().contains("not understood"));
        assert!(parse(&LOG.replace(": Used 14", ": Has 14")).unwrap_err().contains("product"));
        assert_eq!(parse("ptxas info    : 0 bytes gmem\n").unwrap(), []);
    }
}
