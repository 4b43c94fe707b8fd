//! The command line: what can be asked for, and with which settings.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand};

use crate::command;
use crate::demo;
use crate::failure::Failure;
use crate::output::{Color, Paint};
use crate::settings::{KEYS, Key, Layers, SettingsError};

/// A mesh node: HTTP/3 gateway, peers and supervised services in one process, and the commands to look into it.
#[derive(Debug, Parser)]
#[command(name = "mesh-node", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
    /// When to use colours.
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
    color: Color,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Three nodes on this machine: a tour with faults, then a playground
    Demo(demo::DemoArgs),
    /// Run a node until SIGTERM or Ctrl-C
    Serve(ServeArgs),
    /// Call a service, through a node
    Call(command::call::CallArgs),
    /// List the services that a running node knows
    Services(ReadArgs),
    /// List the nodes that a running node knows
    Nodes(ReadArgs),
    /// List what happened on a running node lately
    Events(ReadArgs),
    /// Show the supervision tree of a running node
    Tree(TreeArgs),
    /// Show this node's id, making its key at first use
    Identity(ReadArgs),
}

/// A command that reads from a node on this machine.
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Answer as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `tree`.
#[derive(Debug, Args)]
pub(crate) struct TreeArgs {
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// Show every counter that is not zero.
    #[arg(long)]
    pub(crate) all: bool,
}

/// Which node on this machine is meant.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The node's data folder [default: ~/.local/state/mesh-node; environment: MESH_NODE_DATA]
    #[arg(long, value_name = "FOLDER")]
    data: Option<String>,
    /// The node's settings, for its data folder.
    #[arg(long, value_name = "FILE", env = "MESH_NODE_CONFIG")]
    config: Option<PathBuf>,
}

/// `serve`: every setting is a flag.
#[derive(Debug)]
pub(crate) struct ServeArgs {
    config: Option<PathBuf>,
    flags: Vec<(&'static Key, String)>,
    /// Say what is ready and how it ended as JSON lines.
    pub(crate) json: bool,
    /// End at once when stdin ends, and take the data folder along: for children of the demonstration.
    pub(crate) tied: bool,
}

impl Place {
    /// The data folder.
    ///
    /// # Errors
    /// A settings file or variable that is not good.
    pub(crate) fn data(&self) -> Result<PathBuf, SettingsError> {
        let layers = layers(self.config.as_deref())?;
        let layers = match (&self.data, Key::named("data")) {
            (Some(folder), Some(key)) => layers.flag(key, folder),
            _ => layers,
        };
        layers.data()
    }
}

impl ServeArgs {
    /// All sources of settings, laid over each other.
    ///
    /// # Errors
    /// A settings file or variable that is not good.
    pub(crate) fn layers(&self) -> Result<Layers, SettingsError> {
        let layers = layers(self.config.as_deref())?;
        Ok(self.flags.iter().fold(layers, |layers, (key, value)| layers.flag(key, value)))
    }
}

fn layers(config: Option<&std::path::Path>) -> Result<Layers, SettingsError> {
    let layers = match config {
        Some(path) => Layers::default().file(path)?,
        None => Layers::default(),
    };
    layers.environment(std::env::vars())
}

impl Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        let command = command
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .env("MESH_NODE_CONFIG")
                    .value_parser(clap::value_parser!(PathBuf))
                    .help("settings as TOML; the environment (MESH_NODE_...) and flags win over it"),
            )
            .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("say what is ready as JSON lines"))
            .arg(Arg::new("tied").long("tied").action(ArgAction::SetTrue).hide(true));
        KEYS.iter().fold(command, |command, key| {
            let help = if key.default.is_empty() {
                key.help.to_owned()
            } else {
                format!("{} [default: {}]", key.help, key.default)
            };
            command.arg(Arg::new(key.name).long(key.flag()).value_name(key.value).allow_hyphen_values(true).help(help))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |key: &'static Key| Some((key, matches.get_one::<String>(key.name)?.clone()));
        Ok(Self {
            config: matches.get_one::<PathBuf>("config").cloned(),
            flags: KEYS.iter().filter_map(given).collect(),
            json: matches.get_flag("json"),
            tied: matches.get_flag("tied"),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Runs what the command line asks for.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let paint = Paint::new(cli.color);
    match run(cli.command, paint) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(verb: Verb, paint: Paint) -> Result<(), Failure> {
    // A node uses all cores; a command that waits for one answer does not.
    let mut runtime = match verb {
        Verb::Serve(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = runtime.enable_all().build().map_err(|error| Failure::because(format!("no runtime: {error}")))?;
    let done = runtime.block_on(async {
        match verb {
            Verb::Demo(args) => demo::run(args, paint).await,
            Verb::Serve(args) => command::serve::run(args).await,
            Verb::Call(args) => command::call::run(args).await,
            Verb::Services(args) => command::read::services(args, paint).await,
            Verb::Nodes(args) => command::read::nodes(args, paint).await,
            Verb::Events(args) => command::read::events(args, paint).await,
            Verb::Tree(args) => command::read::tree(args, paint).await,
            Verb::Identity(args) => command::identity::run(args),
        }
    });
    // Who did not stop in time is not waited for.
    runtime.shutdown_background();
    done
}
