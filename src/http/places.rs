//! How many connections there may be, and of one peer. One that is too many is not left waiting: it gets a spare place,
//! in which probes, metrics and profile routes are answered, and nothing else.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlaceLimits {
    /// In all.
    pub(super) all: usize,
    /// Of one peer; `None` behind a proxy, which is everybody's peer.
    pub(super) per_peer: Option<usize>,
}

/// The places of a server.
#[derive(Debug)]
pub(super) struct Places {
    limits: PlaceLimits,
    held: Mutex<Held>,
    warnings: Throttle,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    peer: IpAddr,
    /// It is too many: see the top of this file.
    pub(super) is_spare: bool,
}

impl Places {
    pub(super) fn new(limits: PlaceLimits) -> Places {
        Places { limits, held: Mutex::default(), warnings: Throttle::new() }
    }

    /// A place for a connection from this address.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Place {
        let peer = peer_of(address);
        let mut held = self.held();
        let of_peer = held.by_peer.get(&peer).copied().unwrap_or(0);
        let is_spare = held.all >= self.limits.all || self.limits.per_peer.is_some_and(|limit| of_peer >= limit);
        if is_spare {
            self.warn(&held);
        } else {
            held.all += 1;
            *held.by_peer.entry(peer).or_default() += 1;
        }
        drop(held);
        Place { places: self.clone(), peer, is_spare }
    }

    fn warn(&self, held: &Held) {
        let Some(unsaid) = self.warnings.pass() else { return };
        let Some((peer, most)) = held.by_peer.iter().max_by_key(|(_, count)| **count) else { return };
        let per_peer = self.limits.per_peer.map_or("no limit".into(), |limit| limit.to_string());
        tracing::warn!(
            unsaid,
            "too many connections: there are {} of {} (--max-connections), and {peer} has {most} of them \
             (--max-connections-per-peer: {per_peer}); further ones get 503, but for probes, metrics and \
             profile routes",
            held.all,
            self.limits.all
        );
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner) // counts are right after every change
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_spare {
            return;
        }
        let mut held = self.places.held();
        held.all -= 1;
        if let Some(count) = held.by_peer.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                held.by_peer.remove(&self.peer);
            }
        }
    }
}

/// Who counts as one: an IPv4 address, or the 64 bits of an IPv6 address that a site is given.
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

/// Lets one line of a kind into the log in a minute, and counts the others: strangers do not fill a disk.
#[derive(Debug)]
pub(super) struct Throttle {
    last: Mutex<Option<Instant>>,
    unsaid: AtomicU64,
}

impl Throttle {
    pub(super) const fn new() -> Throttle {
        Throttle { last: Mutex::new(None), unsaid: AtomicU64::new(0) }
    }

    /// How many did not pass before this one; `None` if this one does not.
    pub(super) fn pass(&self) -> Option<u64> {
        const PAUSE: Duration = Duration::from_secs(60);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < PAUSE) {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        *last = Some(Instant::now());
        Some(self.unsaid.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_its_share_and_all_have_theirs() {
        let places = Arc::new(Places::new(PlaceLimits { all: 3, per_peer: Some(2) }));
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = places.take(address("10.0.0.1"));
        let second = places.take(address("::ffff:10.0.0.1"));
        assert!(!first.is_spare && !second.is_spare);
        assert!(places.take(address("10.0.0.1")).is_spare, "the peer has its two");
        let other = places.take(address("2001:db8::1"));
        assert!(!other.is_spare);
        assert!(places.take(address("10.0.0.2")).is_spare, "there are three");
        drop(first);
        let third = places.take(address("2001:db8::2"));
        assert!(!third.is_spare);
        drop(second);
        assert!(places.take(address("2001:db8::ffff")).is_spare, "one site of IPv6 is one peer");
        drop((other, third));
        assert!(places.held().by_peer.is_empty() && places.held().all == 0);
    }

    #[test]
    fn one_line_passes_in_a_minute() {
        let throttle = Throttle::new();
        assert_eq!([throttle.pass(), throttle.pass(), throttle.pass()], [Some(0), None, None]);
        *throttle.last.lock().unwrap() = None;
        assert_eq!(throttle.pass(), Some(2));
    }
}
