//! Child processes that never outlive the task, however it ends: by returning, panicking, Ctrl-C, SIGTERM or SIGKILL.
//!
//! Each child leads a process group of its own. The group is ended when its [`Group`] is dropped and when a signal ends
//! the task; should the task be killed outright, Linux kills the child (PR_SET_PDEATHSIG).

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Lines of a child's output that an error shows.
const TAIL_LINES: usize = 20;
/// How long a group may take to end after SIGTERM.
const END_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
const GROUPS_MAX: usize = 16;

/// The groups that are alive; 0 is none.
static GROUPS: [AtomicI32; GROUPS_MAX] = [const { AtomicI32::new(0) }; GROUPS_MAX];

/// A child and its process group, ended when dropped. Its output is read all the time.
pub(crate) struct Group {
    child: Child,
    status: Option<ExitStatus>,
    tail: Arc<Mutex<VecDeque<String>>>,
    lines: Receiver<String>,
    readers: Vec<JoinHandle<()>>,
}

impl Group {
    /// Starts a child; its output goes to `log`, and its last lines are kept.
    pub(crate) fn spawn(mut command: Command, log: impl Write + Send + 'static) -> io::Result<Group> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Group::spawn_as_is(command, log)
    }

    /// Starts a child; what of its output the command sends to a pipe goes to `log`, the rest where it sends it.
    pub(crate) fn spawn_as_is(mut command: Command, log: impl Write + Send + 'static) -> io::Result<Group> {
        let parent = std::process::id();
        command.stdin(Stdio::null()).process_group(0);
        // SAFETY: between fork and exec the closure calls prctl, getppid and _exit only, which are async-signal-safe.
        unsafe { command.pre_exec(move || die_with(parent)) };
        let mut child = command.spawn()?;
        register(child.id() as i32);
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let log: Arc<Mutex<dyn Write + Send>> = Arc::new(Mutex::new(log));
        let (sender, lines) = channel();
        let out = child.stdout.take().map(|out| read(out, &tail, &log, &sender));
        let err = child.stderr.take().map(|err| read(err, &tail, &log, &sender));
        Ok(Group { child, status: None, tail, lines, readers: out.into_iter().chain(err).collect() })
    }

    /// The child, as the operating system numbers it.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that `wanted` accepts, calling `waiting` every second; `None` if the child ended its output
    /// without one, or the time is over.
    pub(crate) fn line<T>(
        &mut self,
        timeout: Duration,
        wanted: impl Fn(&str) -> Option<T>,
        mut waiting: impl FnMut(Duration),
    ) -> Option<T> {
        let start = Instant::now();
        while start.elapsed() < timeout {
            match self.lines.recv_timeout(Duration::from_secs(1)) {
                Ok(line) => match wanted(&line) {
                    Some(found) => return Some(found),
                    None => continue,
                },
                Err(RecvTimeoutError::Timeout) => waiting(start.elapsed()),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        None
    }

    /// The exit status, if the child has ended.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    /// Waits until the child has ended, at most so long: then `None`.
    pub(crate) fn wait_within(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let start = Instant::now();
        while self.ended()?.is_none() && start.elapsed() < timeout {
            thread::sleep(POLL);
        }
        self.ended()
    }

    /// Sends a signal to the child and what it started.
    pub(crate) fn signal(&self, signal: i32) {
        send(self.child.id() as i32, signal);
    }

    /// Waits until the child has ended and its output is read.
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.ended()? {
                self.readers.drain(..).for_each(|reader| drop(reader.join()));
                return Ok(status);
            }
            thread::sleep(POLL);
        }
    }

    /// Asks the child to end; after [`END_TIMEOUT`], and for what is left of its group, SIGKILL.
    pub(crate) fn end(&mut self) -> io::Result<ExitStatus> {
        if self.ended()?.is_none() {
            send(self.child.id() as i32, libc::SIGTERM);
        }
        self.wait_within(END_TIMEOUT)?;
        send(self.child.id() as i32, libc::SIGKILL);
        self.wait()
    }

    /// The last lines of the output.
    pub(crate) fn tail(&self) -> String {
        let tail = self.tail.lock().expect("no holder of this lock panics");
        tail.iter().map(|line| format!("  {line}\n")).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("could not end process {}: {error}", self.child.id());
        }
        unregister(self.child.id() as i32);
    }
}

/// Runs a command to its end. An error shows the last lines of its output.
pub(crate) fn run(what: &str, command: Command, log: impl Write + Send + 'static) -> Result<(), String> {
    let mut group = Group::spawn(command, log).map_err(|error| format!("{what}: could not start: {error}"))?;
    let status = group.wait().map_err(|error| format!("{what}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{what} failed ({status}):\n{}", group.tail())) }
}

/// Runs a command and returns its standard output. An error shows what it wrote on standard error.
pub(crate) fn output(what: &str, command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{what}: could not start: {error}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{what} failed ({}):\n{}", output.status, words.trim_end()));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("{what}: its output is not UTF-8"))
}

type Log = Arc<Mutex<dyn Write + Send>>;

fn read(
    from: impl Read + Send + 'static,
    tail: &Arc<Mutex<VecDeque<String>>>,
    log: &Log,
    lines: &Sender<String>,
) -> JoinHandle<()> {
    let (tail, log, lines) = (Arc::clone(tail), Arc::clone(log), lines.clone());
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut bytes = Vec::new();
        while from.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            // A log that cannot be written must not stop the child: its lines are still in the tail.
            writeln!(log.lock().expect("no holder of this lock panics"), "{line}").ok();
            let mut tail = tail.lock().expect("no holder of this lock panics");
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line.clone());
            drop(tail);
            lines.send(line).ok(); // nobody waits for lines any more
            bytes.clear();
        }
    })
}

/// In the child: be killed when the parent's thread ends, and leave at once if it already has.
fn die_with(parent: u32) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    // SAFETY: prctl with PR_SET_PDEATHSIG takes a signal number; getppid takes nothing; _exit does not return.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::getppid() as u32 != parent {
            libc::_exit(1);
        }
    }
    let _ = parent;
    Ok(())
}

/// Sends a signal to every process of a group. A group that is gone is no error.
fn send(group: i32, signal: i32) {
    // SAFETY: kill only takes numbers; `group` is above 1, so it names one group and not every process.
    unsafe {
        if group > 1 {
            libc::kill(-group, signal);
        }
    }
}

fn register(group: i32) {
    let free = |slot: &AtomicI32| slot.compare_exchange(0, group, Ordering::SeqCst, Ordering::SeqCst).is_ok();
    assert!(GROUPS.iter().any(free), "more than {GROUPS_MAX} children at once");
}

fn unregister(group: i32) {
    for slot in &GROUPS {
        slot.compare_exchange(group, 0, Ordering::SeqCst, Ordering::SeqCst).ok();
    }
}

/// Has SIGINT, SIGTERM and SIGHUP end every group before they end this process.
pub(crate) fn end_children_on_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: `on_signal` is an extern "C" fn(i32) that lives as long as the program and is async-signal-safe.
        unsafe { libc::signal(signal, on_signal as *const () as libc::sighandler_t) };
    }
}

extern "C" fn on_signal(signal: i32) {
    for slot in &GROUPS {
        send(slot.load(Ordering::SeqCst), libc::SIGKILL);
    }
    // SAFETY: signal and raise are async-signal-safe; the default action of these signals ends the process.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Lets this process open as many files as its hard limit says, and returns that number.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls take a pointer to a whole rlimit that lives through them.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            return Err(io::Error::last_os_error());
        }
        limit.rlim_cur = limit.rlim_max;
        if libc::setrlimit(libc::RLIMIT_NOFILE, &limit) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// Has this thread, and the threads that it starts, give way to every other that wants a core.
pub(crate) fn give_way() {
    const NICEST: i32 = 19;
    // SAFETY: setpriority takes numbers; 0 is the calling thread on Linux.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICEST) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn is_alive(pid: &str) -> bool {
        // A zombie has ended: its parent, which may be far away, has not looked yet.
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !state.is_empty() && !state.contains(") Z")
    }

    #[test]
    fn dropping_ends_the_whole_group() {
        let server = "trap '' TERM; sleep 60 & echo pid $!; echo listening on http://127.0.0.1:1; wait";
        let mut group = Group::spawn(shell(server), io::sink()).unwrap();
        let pid = group.line(END_TIMEOUT, |line| Some(line.strip_prefix("pid ")?.to_owned()), |_| {}).unwrap();
        let url = group.line(END_TIMEOUT, |line| Some(line.strip_prefix("listening on ")?.to_owned()), |_| {});
        assert_eq!(url.as_deref(), Some("http://127.0.0.1:1"));
        assert!(is_alive(&pid));
        drop(group);
        // A process closes its files a moment before it is gone.
        let start = Instant::now();
        while is_alive(&pid) {
            assert!(start.elapsed() < END_TIMEOUT, "the grandchild {pid} is alive");
            thread::sleep(POLL);
        }
        assert!(GROUPS.iter().all(|slot| slot.load(Ordering::SeqCst) != pid.parse::<i32>().unwrap()));
    }

    #[test]
    fn a_child_that_ends_early_is_noticed_and_its_last_lines_kept() {
        let mut group = Group::spawn(shell("seq 30 >&2; echo broken >&2; exit 3"), io::sink()).unwrap();
        assert_eq!(group.line(END_TIMEOUT, |line| line.strip_prefix("listening").map(str::len), |_| {}), None);
        assert_eq!(group.wait().unwrap().code(), Some(3));
        let tail = group.tail();
        assert!(tail.lines().count() == TAIL_LINES && tail.contains("broken"), "{tail}");
    }

    #[test]
    fn a_failed_command_shows_its_words() {
        let error = run("the part", shell("echo why; false"), io::sink()).unwrap_err();
        assert!(error.starts_with("the part failed") && error.contains("why"), "{error}");
        assert_eq!(output("x", &mut shell("echo out; echo err >&2")).unwrap(), "out\n");
        assert!(output("x", &mut shell("echo err >&2; false")).unwrap_err().contains("err"));
    }
}
