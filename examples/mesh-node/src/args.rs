//! Arguments that commands share: which node is meant, and every setting of a node.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::settings::{KEYS, Key, Layers, SettingsError};

/// A command that reads from a node on this machine.
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Print JSON.
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
    data: Option<OsString>,
    /// The node's settings, for its data folder.
    #[arg(long, value_name = "FILE", env = "MESH_NODE_CONFIG")]
    config: Option<PathBuf>,
}

/// `serve`: every setting is a flag.
#[derive(Debug)]
pub(crate) struct ServeArgs {
    config: Option<PathBuf>,
    flags: Vec<(&'static Key, OsString)>,
    /// Print when it is ready and how it stopped as JSON lines.
    pub(crate) json: bool,
    /// End at once when stdin ends, and remove the data folder: for children of the demonstration.
    pub(crate) tied: bool,
}

impl Place {
    /// The data folder.
    ///
    /// # Errors
    /// A settings file or variable that is not valid.
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
    /// The settings of all sources.
    ///
    /// # Errors
    /// A settings file or variable that is not valid.
    pub(crate) fn layers(&self) -> Result<Layers, SettingsError> {
        let layers = layers(self.config.as_deref())?;
        Ok(self.flags.iter().fold(layers, |layers, (key, value)| layers.flag(key, value)))
    }
}

fn layers(config: Option<&Path>) -> Result<Layers, SettingsError> {
    let layers = match config {
        Some(path) => Layers::default().file(path)?,
        None => Layers::default(),
    };
    layers.environment(std::env::vars_os())
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
                    .help("settings as TOML; the environment (MESH_NODE_...) and flags take precedence"),
            )
            .arg(
                Arg::new("json")
                    .long("json")
                    .action(ArgAction::SetTrue)
                    .help("print when it is ready and how it stopped as JSON lines"),
            )
            .arg(Arg::new("tied").long("tied").action(ArgAction::SetTrue).hide(true));
        KEYS.iter().fold(command, |command, key| {
            let help = if key.default.is_empty() {
                key.help.to_owned()
            } else {
                format!("{} [default: {}]", key.help, key.default)
            };
            let flag = Arg::new(key.name).long(key.flag()).value_name(key.value).help(help);
            command.arg(flag.allow_hyphen_values(true).value_parser(clap::value_parser!(OsString)))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |key: &'static Key| Some((key, matches.get_one::<OsString>(key.name)?.clone()));
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
