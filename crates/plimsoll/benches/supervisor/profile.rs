//! One path, so many times, on one thread: for a profiler.
//!
//! `valgrind --tool=callgrind target/release/deps/supervisor-… --profile ours-start-stop 2000`. The difference between two
//! counts is the path without what surrounds it.

use plimsoll::supervisor::Strategy;
use ractor::Actor;
use tokio::sync::oneshot;

use super::peers::{Do, Started, Victim, bare_parent, bare_start_stop};
use crate::{dynamic, our_start_stop, tree};

/// Runs the path `which` `count` times.
pub async fn run(which: &str, count: usize) {
    let (dynamic, parent) = (dynamic(u32::MAX).await, bare_parent().await);
    let mut kept = Vec::with_capacity(count);
    match which {
        "ours-start-stop" => {
            for _ in 0..count {
                our_start_stop(&dynamic).await;
            }
        }
        "bare-start-stop" => {
            for _ in 0..count {
                bare_start_stop(&parent).await;
            }
        }
        "ours-start" => {
            for _ in 0..count {
                dynamic.start_child(()).await.expect("it starts");
            }
        }
        "bare-start" => {
            for _ in 0..count {
                kept.push(Victim::spawn_linked(None, Victim(None), (), parent.clone()).await.expect("it starts"));
            }
        }
        "ours-one-for-all" => {
            let started = Started::default();
            let tree = tree(Strategy::OneForAll, 1_000, &started, 999).await;
            for _ in 0..count {
                let victim = tree.child("child 0").expect("it runs");
                let (noted, when) = oneshot::channel();
                *started.lock().unwrap() = Some(noted);
                victim.actor().send_message(Do::Panic).expect("it lives");
                when.await.expect("it starts again");
                while tree.child("child 999").is_err() || tree.child("child 0").is_err() {
                    tokio::task::yield_now().await;
                }
            }
        }
        "bare-one-for-all" => {
            let mut bare = Vec::new();
            for _ in 0..1_000 {
                bare.push(Victim::spawn_linked(None, Victim(None), (), parent.clone()).await.expect("it starts"));
            }
            for _ in 0..count {
                while let Some((actor, ended)) = bare.pop() {
                    actor.stop(None);
                    ended.await.expect("it ends");
                }
                for _ in 0..1_000 {
                    bare.push(Victim::spawn_linked(None, Victim(None), (), parent.clone()).await.expect("it starts"));
                }
            }
        }
        other => panic!("no path called {other}"),
    }
}
