//! mesh-node
fn main() {}
