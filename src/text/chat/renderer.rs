//! Conversations to prompts, each by a process that may die of it: a few processes, kept from one to the next.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::process::{Patience, TemplateProcess};
use super::{ChatMessage, TemplateSource};
use crate::text::{TemplateError, TextError};

/// What rendering may take.
#[derive(Clone, Copy, Debug)]
pub struct ChatLimits {
    /// From the call to the prompt, a process started on the way included.
    pub deadline: Duration,
    /// Of a prompt.
    pub prompt_bytes: usize,
    /// Of one process, for all that it can write to.
    pub memory_bytes: u64,
    /// At a time; more wait.
    pub processes: usize,
}

impl Default for ChatLimits {
    fn default() -> ChatLimits {
        ChatLimits {
            // A conversation of 8 MiB takes 0.1 s as one message, and 0.9 s as a third of a million empty ones.
            deadline: Duration::from_secs(3),
            // Twice the largest body that the server takes unless it is told otherwise.
            prompt_bytes: 16 << 20,
            // Those of 8 MiB take 60 to 130 MiB.
            memory_bytes: 512 << 20,
            processes: 4,
        }
    }
}

impl ChatLimits {
    /// For conversations in bodies of at most so many bytes, which may be more than what is usual: the output and the
    /// memory grow with them.
    pub fn of_bodies(bytes: usize) -> ChatLimits {
        let default = ChatLimits::default();
        let prompt_bytes = default.prompt_bytes.max(bytes.saturating_mul(2));
        let memory_bytes = default.memory_bytes.max((prompt_bytes as u64).saturating_mul(32));
        ChatLimits { prompt_bytes, memory_bytes, ..default }
    }

    /// More than the deadline, so that of a process whose server lives only the deadline is ever seen.
    pub(super) fn cpu_seconds(&self) -> u64 {
        self.deadline.as_secs() + 1
    }
}

/// Renders a model's chat template outside of this process: within its limits, whatever the template does.
#[derive(Debug)]
pub struct ChatRenderer {
    program: PathBuf,
    source: TemplateSource,
    limits: ChatLimits,
    pool: Mutex<Pool>,
    /// A place became free.
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<TemplateProcess>,
    /// Renderings under way.
    busy: usize,
    /// The template cannot be loaded, as it turned out: nothing need be started again to say so.
    fault: Option<TemplateError>,
}

impl ChatRenderer {
    /// Of a template, by processes of this program, `vitrum`. Nothing is started yet.
    pub fn new(program: PathBuf, source: TemplateSource, limits: ChatLimits) -> ChatRenderer {
        ChatRenderer { program, source, limits, pool: Mutex::default(), freed: Condvar::new() }
    }

    /// Starts a process, so that the first conversation need not wait for one, and says whether the template compiles.
    pub fn prepare(&self) -> Result<(), TextError> {
        let patience = self.patience(&|| true);
        let mut place = self.place(patience)?;
        let process = place.process(patience)?;
        place.give_back(process);
        Ok(())
    }

    /// Writes messages as a prompt. `add_generation_prompt` begins the assistant's answer. Waits, at most as long as
    /// the deadline.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String, TextError> {
        self.render_while(messages, add_generation_prompt, &|| true)
    }

    /// The same, and gives up soon after nobody wants the prompt any more: with [`TextError::Abandoned`].
    pub fn render_while(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<String, TextError> {
        let patience = self.patience(is_wanted);
        let mut place = self.place(patience)?;
        let mut process = place.process(patience)?;
        let prompt = process.render(messages, add_generation_prompt, patience);
        place.give_back(process);
        Ok(prompt?)
    }

    fn patience<'a>(&self, is_wanted: &'a dyn Fn() -> bool) -> Patience<'a> {
        Patience { deadline: Instant::now() + self.limits.deadline, is_wanted }
    }

    /// Waits until fewer conversations are rendered than may be.
    fn place(&self, patience: Patience<'_>) -> Result<Place<'_>, TemplateError> {
        let mut pool = self.pool();
        while pool.busy >= self.limits.processes {
            let wait = patience.next_wait().map_err(|error| match error.kind() {
                ErrorKind::TimedOut => TemplateError::Busy { limit: self.limits.deadline },
                _ => TemplateError::Abandoned,
            })?;
            (pool, _) = self.freed.wait_timeout(pool, wait).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(fault) = &pool.fault {
            return Err(fault.clone());
        }
        pool.busy += 1;
        Ok(Place { renderer: self })
    }

    fn idle(&self) -> Option<TemplateProcess> {
        self.pool().idle.pop()
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner) // a pool is whole after every change
    }
}

/// The right to have one process; given back when dropped.
struct Place<'a> {
    renderer: &'a ChatRenderer,
}

impl Place<'_> {
    /// One that waits for work, or a new one.
    fn process(&mut self, patience: Patience<'_>) -> Result<TemplateProcess, TemplateError> {
        let ChatRenderer { program, source, limits, .. } = self.renderer;
        while let Some(mut process) = self.renderer.idle() {
            // Something else may have ended it while it waited.
            if process.is_usable() {
                return Ok(process);
            }
        }
        let started = TemplateProcess::start(program, source, *limits, patience);
        // What is due to the template alone would be the same every time.
        if let Err(
            fault @ (TemplateError::Compile { .. } | TemplateError::Engine { .. } | TemplateError::Memory { .. }),
        ) = &started
        {
            self.renderer.pool().fault = Some(fault.clone());
        }
        started
    }

    /// Keeps a process for the next rendering, if it is fit for one.
    fn give_back(&mut self, mut process: TemplateProcess) {
        if process.is_usable() {
            self.renderer.pool().idle.push(process);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.renderer.pool().busy -= 1;
        self.renderer.freed.notify_one();
    }
}
