//! `identity`: who this node is.

use plimsoll_mesh::identity::Identity;
use serde_json::json;

use crate::cli::ReadArgs;
use crate::failure::Failure;
use crate::output;

pub(crate) fn run(args: ReadArgs) -> Result<(), Failure> {
    let data = args.place.data()?;
    let id = Identity::load_or_create(&data).map_err(anyhow::Error::from)?.node_id();
    if args.json {
        output::print_read(&format!("{}\n", json!({ "schema": 1, "node": id, "data": data })));
    } else {
        output::say(format_args!(
            "the node of {}; name it in another node's allow-list, or as a pin in `call --pin`:",
            data.display()
        ));
        output::print_read(&format!("{id}\n"));
    }
    Ok(())
}
