//! A key resolves to its own entry or to nothing, and the table never holds more than it may.

use loom::sync::Arc;
use loom::thread;
use plimsoll_sync::slots::SlotTable;

pub(crate) fn insert_look_remove() {
    let table = Arc::new(SlotTable::with_limit(2));
    let key = table.insert(1).unwrap();
    let remover = {
        let table = Arc::clone(&table);
        thread::spawn(move || table.remove(key))
    };
    let looker = {
        let table = Arc::clone(&table);
        thread::spawn(move || table.with(key, |value| *value))
    };
    let other = table.insert(2).unwrap();
    assert!(matches!(looker.join().unwrap(), None | Some(1)));
    assert_eq!(remover.join().unwrap(), Some(1));
    assert_eq!(table.with(other, |value| *value), Some(2));
    assert_eq!(table.len(), 1);
}

/// A slot is freed and taken again while someone holds the old key: no ABA.
pub(crate) fn reuse_never_resolves() {
    let table = Arc::new(SlotTable::with_limit(1));
    let old = table.insert(1).unwrap();
    let reuser = {
        let table = Arc::clone(&table);
        thread::spawn(move || {
            table.remove(old);
            table.insert(2)
        })
    };
    assert!(matches!(table.with(old, |value| *value), None | Some(1)));
    assert_ne!(table.remove(old), Some(2));
    let new = reuser.join().unwrap();
    assert!(new.is_ok_and(|new| table.remove(new) == Some(2)));
}

pub(crate) fn full_and_freed() {
    let table = Arc::new(SlotTable::with_limit(1));
    let threads = [1, 2].map(|value| {
        let table = Arc::clone(&table);
        thread::spawn(move || match table.insert(value) {
            Ok(key) => {
                assert!(table.len() <= 1, "never over its limit");
                assert_eq!(table.remove(key), Some(value));
                true
            }
            Err(full) => {
                assert_eq!(full.0, value);
                false
            }
        })
    });
    assert!(table.len() <= 1);
    assert!(threads.into_iter().map(|thread| thread.join().unwrap()).fold(false, |any, inserted| any | inserted));
    assert!(table.is_empty());
}
