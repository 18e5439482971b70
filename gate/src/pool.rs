//! Connections, counted by sender. If there is no room, the sender with the most connections gives way to one with fewer, so that nobody who
//! takes much can keep out those who take little.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// A bounded number of places.
#[derive(Debug)]
pub struct Pool<K> {
    total: usize,
    each: usize,
    /// The age from which a place may be taken by a sender that has no fewer.
    yields_after: Option<Duration>,
    places: Mutex<Places<K>>,
}

#[derive(Debug)]
struct Places<K> {
    count: usize,
    next: u64,
    /// The places of each sender, the oldest first. No sender has an empty list.
    senders: HashMap<K, VecDeque<Entry>>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    since: Instant,
    taken: Arc<Notify>,
}

/// A place, free again when dropped.
#[derive(Debug)]
pub struct Place<K: Hash + Eq + Clone> {
    pool: Arc<Pool<K>>,
    sender: K,
    number: u64,
    taken: Arc<Notify>,
}

impl<K: Hash + Eq + Clone> Pool<K> {
    /// A pool with `total` places, of which one sender has at most `each`. With `yields_after`, a place that is older is given to any
    /// newcomer when the pool is full: for what an honest sender completes sooner.
    pub fn new(total: usize, each: usize, yields_after: Option<Duration>) -> Arc<Self> {
        let places = Mutex::new(Places { count: 0, next: 0, senders: HashMap::new() });
        Arc::new(Self { total, each, yields_after, places })
    }

    /// A place for this sender. `None` if it has too many, or if there is no room and nobody has to give way.
    pub fn enter(self: &Arc<Self>, sender: K) -> Option<Place<K>> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let own = places.senders.get(&sender).map_or(0, VecDeque::len);
        if own >= self.each {
            return None;
        }
        if places.count >= self.total {
            places.make_room(own, self.yields_after)?;
        }
        let (number, taken) = (places.next, Arc::new(Notify::new()));
        places.next += 1;
        places.count += 1;
        let entry = Entry { number, since: Instant::now(), taken: Arc::clone(&taken) };
        places.senders.entry(sender.clone()).or_default().push_back(entry);
        Some(Place { pool: Arc::clone(self), sender, number, taken })
    }
}

impl<K: Hash + Eq + Clone> Places<K> {
    /// Takes a place from the sender with the most; of several, from the one with the oldest.
    fn make_room(&mut self, own: usize, yields_after: Option<Duration>) -> Option<()> {
        let oldest = |all: &VecDeque<Entry>| std::cmp::Reverse(all.front().map(|entry| entry.number));
        let (sender, all) = self.senders.iter().max_by_key(|(_, all)| (all.len(), oldest(all)))?;
        let is_old = |entry: &Entry| yields_after.is_some_and(|age| entry.since.elapsed() >= age);
        if all.len() <= own + 1 && !all.front().is_some_and(is_old) {
            return None;
        }
        let (sender, number) = (sender.clone(), all.front()?.number);
        let entry = self.remove(&sender, number)?;
        entry.taken.notify_one();
        Some(())
    }

    fn remove(&mut self, sender: &K, number: u64) -> Option<Entry> {
        let all = self.senders.get_mut(sender)?;
        let entry = all.remove(all.iter().position(|entry| entry.number == number)?)?;
        if all.is_empty() {
            self.senders.remove(sender);
        }
        self.count -= 1;
        Some(entry)
    }
}

impl<K: Hash + Eq + Clone> Place<K> {
    /// Completes when the place has been given to another sender.
    pub async fn taken(&self) {
        self.taken.notified().await;
    }
}

impl<K: Hash + Eq + Clone> Drop for Place<K> {
    fn drop(&mut self) {
        self.pool.places.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.sender, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_taken(place: &Place<u8>) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::pin!(place.taken()).as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn a_sender_has_a_share_and_the_largest_gives_way() {
        let pool = Pool::new(4, 3, None);
        let greedy: Vec<_> = (0..3).map(|_| pool.enter(1).unwrap()).collect();
        assert!(pool.enter(1).is_none(), "its share is used up");
        let second = pool.enter(2).unwrap();
        let third = pool.enter(3).unwrap();
        assert!(is_taken(&greedy[0]) && !is_taken(&greedy[1]) && !is_taken(&second));
        // Now 2, 1 and 1: with one more the newcomer would have as many as the largest.
        assert!(pool.enter(2).is_none());
        let fourth = pool.enter(4).unwrap();
        assert!(is_taken(&greedy[1]));
        assert!(pool.enter(5).is_none(), "each has one");
        drop(third);
        drop(greedy);
        assert!(pool.enter(5).is_some());
        drop((second, fourth));
        assert_eq!(pool.places.lock().unwrap().count, 0);
    }

    #[test]
    fn what_takes_too_long_gives_way() {
        let pool = Pool::new(2, 1, Some(Duration::ZERO));
        let (first, second) = (pool.enter(1).unwrap(), pool.enter(2).unwrap());
        let third = pool.enter(3).unwrap();
        assert!(is_taken(&first) && !is_taken(&second) && !is_taken(&third));
    }
}
