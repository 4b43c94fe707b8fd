//! One snapshot shows the whole tree with its counters. Reading it takes no turn of any actor.
use plimsoll::inspect::{Snapshot, TreeNode};
use plimsoll::server::{self, Context, Server, ServerRef};
use plimsoll::supervisor::{BoxError, CancellationToken, ChildSpec, Supervisor, SupervisorBuilder};

struct Counter(u64);

impl Server for Counter {
    type Call = u64;
    type Reply = u64;
    async fn call(&mut self, add: u64, _: &mut Context<Self>) -> Result<u64, BoxError> {
        self.0 += add;
        Ok(self.0)
    }
}

async fn sweep(stop: CancellationToken) -> Result<(), BoxError> {
    stop.cancelled().await;
    Ok(())
}

fn servers() -> SupervisorBuilder {
    Supervisor::builder("servers")
        .child(ChildSpec::new("counter", |parent| server::builder(Counter(0)).start_linked(parent)))
}

fn print(node: &TreeNode, depth: usize) {
    let settled = node.details.counters.get("settled");
    let calls = settled.map(|calls| format!(", {calls} calls settled")).unwrap_or_default();
    println!("{:1$}{2} ({3:?}){calls}", "", 2 * depth, node.id, node.status);
    node.details.children.iter().for_each(|child| print(child, depth + 1));
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let tree = Supervisor::builder("app")
        .child(ChildSpec::supervisor("servers", servers))
        .child(ChildSpec::task("sweeper", sweep))
        .start()
        .await?;
    let nested = tree.child("servers")?.value::<plimsoll::supervisor::SupervisorRef>().ok_or("no reference")?;
    let counter = nested.child("counter")?.value::<ServerRef<Counter>>().ok_or("no client")?;
    counter.call(1).await?;
    print(&Snapshot::of(tree.inspect()).tree, 0);
    tree.stop().await?;
    Ok(())
}
