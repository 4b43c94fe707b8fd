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
            crate::output::say(format_args!("error: {}", in_one_line(&error)));
        }
        ExitCode::from(code)
    }
}

/// The chain of causes, without those that an earlier one has told already.
fn in_one_line(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |mut line, cause| {
        if !line.contains(&cause) {
            line += if line.is_empty() { "" } else { ": " };
            line += &cause;
        }
        line
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_once() {
        let told = anyhow::anyhow!("no such file");
        assert_eq!(
            in_one_line(&told.context("cannot read a: no such file").context("no")),
            "no: cannot read a: no such file"
        );
        assert_eq!(in_one_line(&anyhow::anyhow!("deep").context("high")), "high: deep");
    }
}
