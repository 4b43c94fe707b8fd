//! Failures of commands and their exit codes.

use std::fmt;
use std::process::ExitCode;

use crate::settings::SettingsError;

/// Why a command did not do what it should.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It failed or was refused; without an error the reason was printed already.
    Failed(Option<anyhow::Error>),
    /// The command line or the configuration is wrong.
    Usage(anyhow::Error),
    /// It may have happened; without an error the reason was printed already.
    Unknown(Option<anyhow::Error>),
}

impl Failure {
    /// A failure with this reason.
    pub(crate) fn because(reason: impl fmt::Display) -> Self {
        Self::Failed(Some(anyhow::anyhow!("{reason}")))
    }

    /// The reason, in one line.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Failed(error) | Self::Unknown(error) => error.as_ref().map(in_one_line).unwrap_or_default(),
            Self::Usage(error) => in_one_line(error),
        }
    }

    /// Prints the reason on stderr and returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        let (code, error) = match self {
            Self::Failed(error) => (1, error),
            Self::Usage(error) => (2, Some(error)),
            Self::Unknown(error) => (3, error),
        };
        if let Some(error) = error {
            crate::streams::say(format_args!("error: {}", in_one_line(&error)));
        }
        ExitCode::from(code)
    }
}

/// The chain of causes, without those that an earlier one contains.
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
    fn each_cause_is_named_once() {
        let cause = anyhow::anyhow!("no such file");
        assert_eq!(
            in_one_line(&cause.context("cannot read a: no such file").context("no")),
            "no: cannot read a: no such file"
        );
        assert_eq!(in_one_line(&anyhow::anyhow!("deep").context("high")), "high: deep");
    }
}
