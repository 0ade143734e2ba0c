//! CUPTI: the second source of node times, NVIDIA's own profiling library.
//!
//! It is prepared before the driver is initialised ([`ActivityLibrary::prepare`]): its clock is the one of the stamps,
//! its buffers come from a pool of this process ([`buffers`]). Nothing is recorded, and no kind of record enabled,
//! before a session begins ([`Session`]); there is no subscription, so a tool that subscribes may do so. The device
//! names the nodes of each graph that it captures ([`identity`]); a thread decodes the records of a session
//! ([`decoder`], [`records`]). Kinds that serialise kernels or hide nodes (`KERNEL`, `GRAPH_TRACE`) are never enabled.
//!
//! Whatever fails here costs the profile, never the serving: a recording then has stamps alone, from the start or from
//! where it was noticed, and says why.

mod buffers;
mod decoder;
mod identity;
mod library;
mod records;
mod session;
pub mod synthetic;
mod watch;

use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, RwLock};

use cudarc::cupti::sys;

pub(super) use self::decoder::Decoded;
use self::identity::Identity;
use self::library::{Cupti, CuptiError};
pub(super) use self::session::Session;
pub use self::watch::Watch;
use crate::trace::session::TraceSource;

/// What it is called where its version is not known.
pub const ACTIVITY_NAME: &str = "CUPTI";

/// What `--trace-source` says of itself.
pub const SOURCE_HELP: &str = "What times the nodes of recordings: `stamps` of the graphs themselves, `cupti`, \
     NVIDIA's profiling library, or `both`, compared with each other [default: for a server on a GPU `both`, else \
     `stamps`]";

/// The source that a word names.
pub fn parse_source(word: &str) -> Result<TraceSource, String> {
    match word {
        "stamps" => Ok(TraceSource::Stamps),
        "cupti" => Ok(TraceSource::Activity),
        "both" => Ok(TraceSource::Both),
        _ => Err("the sources are stamps, cupti, both".into()),
    }
}

/// The library, as it was found when it was first looked for.
static CUPTI: OnceLock<Result<Cupti, CuptiError>> = OnceLock::new();
/// Whether it can be used: the last word of [`ActivityLibrary::prepare`].
static READY: Mutex<Option<Result<(), String>>> = Mutex::new(None);
/// Why the nodes of some graph could not be named.
static TROUBLE: Mutex<Option<String>> = Mutex::new(None);
/// Whether there is one: looked at before every step of a recording.
static IS_TROUBLED: AtomicBool = AtomicBool::new(false);
static IDENTITY: RwLock<Option<Identity>> = RwLock::new(None);
static CLOCK: OnceLock<fn() -> u64> = OnceLock::new();

/// What is in it stays whole when a thread panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn with_identity<T>(change: impl FnOnce(&mut Identity) -> T) -> T {
    let mut identity = IDENTITY.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    change(identity.get_or_insert_default())
}

extern "C" fn clock() -> u64 {
    CLOCK.get().map_or(0, |clock| clock())
}

/// CUPTI, ready to be used.
#[derive(Clone, Copy)]
pub struct ActivityLibrary {
    cupti: Cupti,
}

impl ActivityLibrary {
    /// Finds CUPTI on the loader's path or below a toolkit, and prepares it: before the driver is initialised, so that
    /// it sees everything. `clock` is what its records are to be told by, in nanoseconds. The error is a sentence.
    pub fn prepare(toolkits: &[PathBuf], clock: fn() -> u64) -> Result<ActivityLibrary, String> {
        let prepared = CUPTI.get_or_init(|| Cupti::load(toolkits)).clone().and_then(|cupti| {
            CLOCK.get_or_init(|| clock);
            // Not beside a session of another device of this process: the library is ready then.
            if !buffers::is_open() {
                cupti.check_version()?;
                prepare(&cupti).map_err(|error| error.of(&cupti.name()))?;
            }
            Ok(ActivityLibrary { cupti })
        });
        let prepared = prepared.map_err(|error| error.to_string());
        *lock(&READY) = Some(prepared.as_ref().map(|_| ()).map_err(String::clone));
        *lock(&TROUBLE) = None;
        IS_TROUBLED.store(false, Ordering::Relaxed);
        prepared
    }

    /// The library, if it was prepared; else why it cannot be used.
    pub fn get() -> Result<ActivityLibrary, String> {
        let ready = lock(&READY).clone();
        ready.unwrap_or_else(|| Err("CUPTI was not prepared when the device was opened".into()))?;
        let Some(Ok(cupti)) = CUPTI.get() else { return Err("CUPTI is not there".into()) };
        Ok(ActivityLibrary { cupti: *cupti })
    }

    /// Its name and version.
    pub fn library(&self) -> String {
        self.cupti.name()
    }

    /// The id of a node of a graph that is being captured. If CUPTI does not tell, recordings cannot have it as a
    /// source, and say so.
    ///
    /// # Safety
    /// The driver gave the node, and its graph exists.
    pub unsafe fn node_id(&self, node: *mut c_void) -> u64 {
        let mut id = 0;
        // SAFETY: CUPTI writes one number; the node exists by this function's contract.
        let asked = unsafe { self.cupti.cuptiGetGraphNodeId(node.cast(), &mut id) };
        note_trouble("the nodes of a graph have no ids", asked);
        id
    }

    /// What a node has for an id that nobody can ask for: as above.
    pub fn unnamed(&self, why: &str) -> u64 {
        note_trouble("the nodes of a graph have no ids", Err(why));
        0
    }

    /// Makes the nodes of a captured graph known: their ids at capture, in order. They are as long as the answer is.
    ///
    /// # Safety
    /// The driver gave the executable graph, and it exists.
    pub unsafe fn know(&self, exec: *mut c_void, graph: u32, captured: Vec<u64>) -> KnownGraph {
        let mut id = 0;
        // SAFETY: as above.
        let asked = unsafe { self.cupti.cuptiGetGraphExecId(exec.cast(), &mut id) };
        note_trouble("an executable graph has no id", asked);
        with_identity(|identity| identity.add(graph, id, &captured));
        KnownGraph { exec: id, captured }
    }
}

impl std::fmt::Debug for ActivityLibrary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ActivityLibrary").field(&self.library()).finish()
    }
}

/// The nodes of a graph, known by their ids until this is dropped.
#[derive(Debug)]
pub struct KnownGraph {
    exec: u32,
    captured: Vec<u64>,
}

impl KnownGraph {
    /// The ordinal of the node that has this id in the executable graph.
    pub fn in_executable(&self, id: u64) -> Option<u32> {
        self.find(|captured| identity::in_executable(self.exec, captured) == id)
    }

    /// The ordinal of the node that had this id when it was captured.
    pub fn at_capture(&self, id: u64) -> Option<u32> {
        self.find(|captured| captured == id)
    }

    fn find(&self, is_it: impl Fn(u64) -> bool) -> Option<u32> {
        let at = self.captured.iter().position(|captured| *captured != 0 && is_it(*captured))?;
        Some(at as u32)
    }
}

impl Drop for KnownGraph {
    fn drop(&mut self) {
        with_identity(|identity| identity.remove(self.exec, &self.captured));
    }
}

fn note_trouble(what: &str, asked: Result<(), impl std::fmt::Display>) {
    if let Err(error) = asked {
        lock(&TROUBLE).get_or_insert_with(|| format!("{what}: {error}"));
        IS_TROUBLED.store(true, Ordering::Relaxed);
    }
}

/// What has to be said before the driver is initialised.
fn prepare(cupti: &Cupti) -> Result<(), CuptiError> {
    let (mut is_zeroed, mut bytes) = (1u8, size_of::<u8>());
    let attribute = sys::CUpti_ActivityAttribute::CUPTI_ACTIVITY_ATTR_ZEROED_OUT_ACTIVITY_BUFFER;
    // Not pthread_self's, which nothing else here knows.
    let thread_ids = sys::CUpti_ActivityThreadIdType::CUPTI_ACTIVITY_THREAD_ID_TYPE_SYSTEM;
    // SAFETY: the attribute is a u8, and CUPTI reads it; the callbacks are functions of this process, and what they are
    // given is as their contracts say.
    unsafe {
        cupti.cuptiActivitySetAttribute(attribute, &mut bytes, std::ptr::from_mut(&mut is_zeroed).cast())?;
        cupti.cuptiSetThreadIdType(thread_ids)?;
        cupti.cuptiActivityRegisterTimestampCallback(Some(clock))?;
        cupti.cuptiActivityRegisterCallbacks(Some(buffers::requested), Some(buffers::completed))
    }
}
