//! `identity`: the id of a node.

use plimsoll_mesh::identity::Identity;
use serde_json::json;

use crate::args::ReadArgs;
use crate::failure::Failure;
use crate::output;
use crate::streams::say;

pub(crate) fn run(args: ReadArgs) -> Result<(), Failure> {
    let data = args.place.data()?;
    let id = Identity::load_or_create(&data).map_err(anyhow::Error::from)?.node_id();
    if args.json {
        output::print_read(&format!("{}\n", json!({ "schema": 1, "node": id, "data": data.to_string_lossy() })));
    } else {
        say(format_args!(
            "the node of {}; name it in another node's allow-list, or as a pin in `call --pin`:",
            data.display()
        ));
        output::print_read(&format!("{id}\n"));
    }
    Ok(())
}
