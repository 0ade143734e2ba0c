//! libcupti, loaded at run time: the functions that are called, and errors that name the call.
//!
//! The types are cudarc's. As with the driver, its own wrappers panic where the library or a symbol is missing, so the
//! table below is looked up here, and a status is a number.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;

use cudarc::cupti::sys;
use cudarc::driver::sys as driver;
use thiserror::Error;

/// Names under which the loader may know the library.
const NAMES: [&str; 3] = ["libcupti.so.13", "libcupti.so.12", "libcupti.so"];

/// Where it lies in a CUDA toolkit, and in NVIDIA's Python packages.
const FOLDERS: [&str; 3] = ["extras/CUPTI/lib64", "lib64", "lib"];

/// CUPTI's own number for CUDA 12.6, the oldest that is taken: older ones crash when they end beside graphs.
const VERSION_MIN: u32 = 24;

/// From here on a version is 10,000 · major + 100 · minor + update of CUDA.
const VERSION_BY_CUDA: u32 = 130_000;

/// The first whose records of kernels (`CUpti_ActivityKernel13`) name the node that a node was instantiated from.
const VERSION_SOURCE_NODES: u32 = 130_400;

/// Why CUPTI cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum CuptiError {
    #[error("there is no CUPTI: no libcupti.so.13, .12 or libcupti.so on the loader's path or below CUDA_HOME{tried}")]
    NoLibrary { tried: String },
    #[error("{path} has no {symbol}: {reason}")]
    NoSymbol { path: String, symbol: &'static str, reason: String },
    #[error("{name} is older than CUPTI 12.6")]
    Old { name: String },
    #[error("{library}{call}: {text} ({status})")]
    Call {
        /// Its name and a colon, or nothing.
        library: String,
        call: &'static str,
        status: c_int,
        text: String,
    },
    #[error("another tool holds CUPTI, as profilers do that started this process ({call}: {status})")]
    Taken { call: &'static str, status: c_int },
}

impl CuptiError {
    /// The same error, saying of which library.
    pub(super) fn of(self, name: &str) -> CuptiError {
        match self {
            CuptiError::Call { call, status, text, .. } => {
                CuptiError::Call { library: format!("{name}: "), call, status, text }
            }
            other => other,
        }
    }
}

macro_rules! functions {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        #[derive(Clone, Copy)]
        #[allow(non_snake_case)]
        struct Functions {
            $($name: unsafe extern "C" fn($($type),*) -> c_int,)*
        }

        impl Functions {
            fn load(library: &libloading::Library, path: &str) -> Result<Functions, CuptiError> {
                Ok(Functions {
                    $($name: {
                        let symbol = concat!(stringify!($name), "\0").as_bytes();
                        // SAFETY: the type is the function's, as the comparison below holds; the status is an int in C.
                        let found = unsafe { library.get::<unsafe extern "C" fn($($type),*) -> c_int>(symbol) };
                        *found.map_err(|reason| CuptiError::NoSymbol {
                            path: path.to_owned(),
                            symbol: stringify!($name),
                            reason: reason.to_string(),
                        })?
                    },)*
                })
            }
        }

        $(const _: unsafe fn($($type),*) -> sys::CUptiResult = sys::$name;)*

        // Records are walked by `next_record`, without a look at each status.
        #[allow(non_snake_case, dead_code)]
        impl Cupti {
            $(
                /// # Safety
                /// The arguments are what CUPTI's function of this name asks for.
                pub(super) unsafe fn $name(&self, $($argument: $type),*) -> Result<(), CuptiError> {
                    // SAFETY: by this function's contract.
                    self.checked(stringify!($name), unsafe { (self.functions.$name)($($argument),*) })
                }
            )*
        }
    };
}

functions! {
    cuptiGetVersion(version: *mut u32);
    cuptiActivitySetAttribute(attribute: sys::CUpti_ActivityAttribute, bytes: *mut usize, value: *mut c_void);
    cuptiSetThreadIdType(kind: sys::CUpti_ActivityThreadIdType);
    cuptiActivityRegisterTimestampCallback(clock: sys::CUpti_TimestampCallbackFunc);
    cuptiActivityRegisterCallbacks(
        requested: sys::CUpti_BuffersCallbackRequestFunc,
        completed: sys::CUpti_BuffersCallbackCompleteFunc
    );
    cuptiActivityEnable(kind: sys::CUpti_ActivityKind);
    cuptiActivityDisable(kind: sys::CUpti_ActivityKind);
    cuptiActivityFlushAll(flag: u32);
    cuptiActivityGetNextRecord(buffer: *mut u8, bytes: usize, record: *mut *mut sys::CUpti_Activity);
    cuptiActivityGetNumDroppedRecords(context: driver::CUcontext, stream: u32, dropped: *mut usize);
    cuptiGetGraphNodeId(node: driver::CUgraphNode, id: *mut u64);
    cuptiGetGraphExecId(exec: driver::CUgraphExec, id: *mut u32);
}

/// cuptiActivityGetNextRecord, alone: it is called for every record.
pub(super) type NextRecord = unsafe extern "C" fn(*mut u8, usize, *mut *mut sys::CUpti_Activity) -> c_int;

type ResultString = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;

/// CUPTI: its functions. It stays loaded until the process ends.
#[derive(Clone, Copy)]
pub(super) struct Cupti {
    functions: Functions,
    result_string: Option<ResultString>,
    version: u32,
}

impl Cupti {
    /// Looks on the loader's path, then in the folders of toolkits.
    pub(super) fn load(toolkits: &[PathBuf]) -> Result<Cupti, CuptiError> {
        let folders = || toolkits.iter().flat_map(|toolkit| FOLDERS.map(|folder| toolkit.join(folder)));
        let in_folders = folders().flat_map(|folder| NAMES.map(|name| folder.join(name)));
        let on_path = NAMES.iter().map(PathBuf::from);
        let mut unusable = None;
        for path in on_path.chain(in_folders) {
            // SAFETY: loading libcupti runs its initialisers, which is what they are for.
            let Ok(library) = (unsafe { libloading::Library::new(&path) }) else { continue };
            // It has threads of its own, and the driver calls into it: it stays.
            match Cupti::of(Box::leak(Box::new(library)), &path.display().to_string()) {
                Ok(cupti) => return Ok(cupti),
                Err(error) => unusable = unusable.or(Some(error)),
            }
        }
        if let Some(error) = unusable {
            return Err(error);
        }
        let tried: String = toolkits.iter().map(|toolkit| format!(", {}", toolkit.display())).collect();
        Err(CuptiError::NoLibrary { tried })
    }

    fn of(library: &libloading::Library, path: &str) -> Result<Cupti, CuptiError> {
        let functions = Functions::load(library, path)?;
        // SAFETY: it takes a status, an int in C, and a place for a string of the library's own.
        let result_string = unsafe { library.get::<ResultString>(b"cuptiGetResultString\0") }.ok().map(|found| *found);
        let mut cupti = Cupti { functions, result_string, version: 0 };
        cupti.version = cupti.ask_version()?;
        Ok(cupti)
    }

    fn ask_version(&self) -> Result<u32, CuptiError> {
        let mut version = 0;
        // SAFETY: CUPTI writes one number.
        unsafe { self.cuptiGetVersion(&mut version)? };
        Ok(version)
    }

    /// Fails if it is too old, or does not answer.
    pub(super) fn check_version(&self) -> Result<(), CuptiError> {
        if self.ask_version()? < VERSION_MIN { Err(CuptiError::Old { name: self.name() }) } else { Ok(()) }
    }

    fn checked(&self, call: &'static str, status: c_int) -> Result<(), CuptiError> {
        const TAKEN: c_int = sys::CUptiResult::CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED as c_int;
        match status {
            0 => Ok(()),
            TAKEN => Err(CuptiError::Taken { call, status }),
            _ => Err(CuptiError::Call { library: String::new(), call, status, text: self.word(status) }),
        }
    }

    fn word(&self, status: c_int) -> String {
        let mut text = std::ptr::null();
        // SAFETY: CUPTI writes the address of a string that lives as long as the library, or null.
        unsafe {
            if let Some(result_string) = self.result_string {
                result_string(status, &mut text);
            }
            if text.is_null() { "an error".to_owned() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        }
    }

    /// Name and version, as `CUPTI 13.0 (130001)`.
    pub(super) fn name(&self) -> String {
        let version = self.version;
        let cuda = match version {
            VERSION_BY_CUDA.. => format!("{}.{}", version / 10_000, version / 100 % 100),
            28 => "12.9".to_owned(),
            24..28 => format!("12.{}", version - 18),
            _ => "before 12.6".to_owned(),
        };
        format!("CUPTI {cuda} ({version})")
    }

    /// CUPTI's own number for its version.
    pub(super) fn version(&self) -> u32 {
        self.version
    }

    /// Whether records of kernels name the node that a node was instantiated from.
    pub(super) fn has_source_nodes(&self) -> bool {
        self.version >= VERSION_SOURCE_NODES
    }

    /// The call that walks a buffer.
    pub(super) fn next_record(&self) -> NextRecord {
        self.functions.cuptiActivityGetNextRecord
    }

    /// The error of a status of that call.
    pub(super) fn next_record_error(&self, status: c_int) -> Option<CuptiError> {
        self.checked("cuptiActivityGetNextRecord", status).err()
    }
}
