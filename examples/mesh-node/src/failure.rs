//! How a command fails, and with which exit code.

use std::fmt;
use std::process::ExitCode;

use crate::settings::SettingsError;

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It failed, or what was asked for was refused; the talk about it may have been printed already.
    Failed(Option<anyhow::Error>),
    /// The command or the configuration is wrong.
    Usage(anyhow::Error),
    /// It may or may not have happened.
    CannotTell(anyhow::Error),
}

impl Failure {
    /// A failure in words.
    pub(crate) fn because(reason: impl fmt::Display) -> Self {
        Self::Failed(Some(anyhow::anyhow!("{reason}")))
    }

    /// Says why on stderr and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        let (code, error) = match self {
            Self::Failed(error) => (1, error),
            Self::Usage(error) => (2, Some(error)),
            Self::CannotTell(error) => (3, Some(error)),
        };
        if let Some(error) = error {
            // With `#` the whole chain of causes stands in one line.
            crate::output::say(format_args!("error: {error:#}"));
        }
        ExitCode::from(code)
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::Usage(error.into())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(Some(error))
    }
}
