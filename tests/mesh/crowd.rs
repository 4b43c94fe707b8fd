//! More clients than a gateway takes.

use plimsoll_testkit::law;

use crate::harness::{GATEWAY, Plan, counter, folder, place, record};

/// M-6, M-7: with a cap of 100, of 300 clients exactly 100 are served and 200 refused, by both sides' books.
#[tokio::test(flavor = "multi_thread")]
async fn of_300_clients_on_a_cap_of_100_exactly_100_are_served_on_both_ledgers() {
    let folder = folder();
    let node = Plan::new(&folder, "a").flag("gateway-max-clients", 100).flag("gateway-max-per-prefix", 100).start();
    let (good, theirs) = node.aioquic(&["crowd", "--clients", "300", "--expect-served", "100"]);
    let count = |name: &str| theirs[name].as_u64().unwrap();
    let snapshot = node.until("all have left", |now| counter(now, &GATEWAY, "clients") == 0).await;
    let gateway = |name| counter(&snapshot, &GATEWAY, name);
    law::ADMISSION.assert(&place(&snapshot, &GATEWAY).unwrap().details.counters);
    let refused = count("refused_with_reason") + count("refused_without_reason");
    let ours = gateway("refused_with_reason") + gateway("refused_without_reason");
    record(
        "crowd-at-the-cap",
        &[
            (
                format!(
                    "clients' ledger: {} served, {} told, {} turned away, {} failed",
                    count("served"),
                    count("refused_with_reason"),
                    count("refused_without_reason"),
                    count("failed")
                ),
                "100 served, 200 refused, 0 failed",
                good && count("served") == 100 && refused == 200,
                None,
            ),
            (
                format!(
                    "node's ledger: {} served, {} told, {} turned away",
                    gateway("served"),
                    gateway("refused_with_reason"),
                    gateway("refused_without_reason")
                ),
                "100 served, 200 refused",
                gateway("served") == 100 && ours == 200 && gateway("failed_handshakes") == 0,
                None,
            ),
            (
                format!("told by name: {} and {}", count("refused_with_reason"), gateway("refused_with_reason")),
                "the same on both ledgers",
                count("refused_with_reason") == gateway("refused_with_reason"),
                None,
            ),
        ],
    );
}
