//! Who is connected, and which connection a message goes to.

use std::collections::HashMap;

use axum::response::sse::Event;
use tokio::sync::mpsc;
use wire::{Address, address::Cast};

/// The open message streams by group.
pub(crate) struct Connections {
    groups: HashMap<String, Vec<Connection>>,
    open: usize,
    most: usize,
    queue: usize,
    next_key: u64,
}

struct Connection {
    key: u64,
    id: String,
    sender: mpsc::Sender<Event>,
}

impl Connections {
    /// At most `most` connections, each with room for `queue` messages that its client has not read.
    pub(crate) fn new(most: usize, queue: usize) -> Self {
        Self { groups: HashMap::new(), open: 0, most, queue: queue.max(1), next_key: 0 }
    }

    /// Adds a connection; `None` if there are too many.
    pub(crate) fn add(&mut self, group: &str, id: &str) -> Option<(u64, mpsc::Receiver<Event>)> {
        if self.open >= self.most {
            return None;
        }
        self.open += 1;
        self.next_key += 1;
        let (sender, receiver) = mpsc::channel(self.queue);
        self.groups.entry(group.to_owned()).or_default().push(Connection {
            key: self.next_key,
            id: id.to_owned(),
            sender,
        });
        Some((self.next_key, receiver))
    }

    pub(crate) fn remove(&mut self, group: &str, key: u64) {
        let Some(connections) = self.groups.get_mut(group) else { return };
        let before = connections.len();
        connections.retain(|connection| connection.key != key);
        self.open -= before - connections.len();
        if connections.is_empty() {
            self.groups.remove(group);
        }
    }

    /// Ends all streams.
    pub(crate) fn clear(&mut self) {
        self.groups.clear();
        self.open = 0;
    }

    /// Queues an event for a connection that `address` allows, and returns its key. `None`: there is
    /// no connection with room for it.
    pub(crate) fn send(&self, address: &Address, event: &Event) -> Option<u64> {
        let connections = self.groups.get(&address.group)?;
        // The official server, too, takes the first one with the id.
        let named = address.id.as_ref().and_then(|id| connections.iter().find(|one| one.id == *id));
        if let Some(key) = named.and_then(|connection| connection.take(event)) {
            return Some(key);
        }
        match address.cast {
            Cast::Uni => None,
            Cast::Any => {
                let start = rand::random_range(..connections.len());
                let (before, after) = connections.split_at(start);
                after.iter().chain(before).find_map(|connection| connection.take(event))
            }
        }
    }
}

impl Connection {
    fn take(&self, event: &Event) -> Option<u64> {
        self.sender.try_send(event.clone()).ok().map(|()| self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn the_preferred_connection_is_taken_and_any_other_if_it_cannot() {
        let mut connections = Connections::new(10, 1);
        let event = Event::default().data("event");
        let (first, _first_rx) = connections.add("g", "first").unwrap();
        let (second, second_rx) = connections.add("g", "second").unwrap();
        let preferred = address("poll://any@g/second");
        assert_eq!(connections.send(&preferred, &event), Some(second));
        assert_eq!(connections.send(&preferred, &event), Some(first), "its queue is full");
        drop(second_rx);
        assert_eq!(connections.send(&preferred, &event), None, "one is gone, one is full");
    }

    #[test]
    fn unicast_goes_to_its_connection_or_to_none() {
        let mut connections = Connections::new(10, 8);
        let event = Event::default().data("event");
        let (_, _other) = connections.add("g", "other").unwrap();
        assert_eq!(connections.send(&address("poll://uni@g/me"), &event), None);
        assert_eq!(connections.send(&address("poll://uni@g"), &event), None);
        let (me, _mine) = connections.add("g", "me").unwrap();
        assert_eq!(connections.send(&address("poll://uni@g/me"), &event), Some(me));
    }

    #[test]
    fn connections_are_counted() {
        let mut connections = Connections::new(1, 8);
        let (key, _rx) = connections.add("g", "a").unwrap();
        assert!(connections.add("h", "b").is_none());
        connections.remove("g", key);
        connections.remove("g", key);
        assert!(connections.add("h", "b").is_some());
    }
}
