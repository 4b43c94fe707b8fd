//! The sources of settings, laid over each other as text.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{ENVIRONMENT_PREFIX, KEYS, Key};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Environment(String),
    Flag(String),
}

/// A setting that is not good.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("cannot read {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}: {message}", path.display())]
    NotToml { path: PathBuf, message: String },
    #[error("there is no setting {name:?} ({origin}){}", did_you_mean(name))]
    Unknown { name: String, origin: Origin },
    #[error("{name} = {value:?} ({origin}): {wanted}")]
    Bad { name: &'static str, value: String, origin: Origin, wanted: String },
}

/// Values as text, by setting, each from the last source that names it.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    values: BTreeMap<&'static str, (Vec<String>, Origin)>,
}

impl Layers {
    /// Lays a TOML file on top.
    ///
    /// # Errors
    /// A file that cannot be read or is no TOML, a key that is no setting, a table or float where text belongs.
    pub(crate) fn file(mut self, path: &Path) -> Result<Self, SettingsError> {
        let text =
            fs::read_to_string(path).map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })?;
        let table = DeTable::parse(&text)
            .map_err(|error| SettingsError::NotToml { path: path.to_owned(), message: error.to_string() })?;
        self.table(path, &text, "", table.get_ref())?;
        Ok(self)
    }

    fn table(&mut self, path: &Path, text: &str, prefix: &str, table: &DeTable<'_>) -> Result<(), SettingsError> {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            let origin = Origin::File { path: path.to_owned(), line: line(text, key) };
            let group = KEYS.iter().any(|key| key.name.starts_with(&format!("{name}.")));
            match (value.get_ref(), Key::named(&name)) {
                (DeValue::Table(inner), _) if group => self.table(path, text, &format!("{name}."), inner)?,
                (_, None) => return Err(SettingsError::Unknown { name, origin }),
                (value, Some(key)) => {
                    let texts = texts(value).ok_or_else(|| SettingsError::Bad {
                        name: key.name,
                        value: format!("a {}", value.type_str()),
                        origin: origin.clone(),
                        wanted: "text, a whole number, true, false or a list of text is needed".into(),
                    })?;
                    self.values.insert(key.name, (texts, origin));
                }
            }
        }
        Ok(())
    }

    /// Lays environment variables on top; those of other programs are passed over.
    ///
    /// # Errors
    /// A variable with our prefix that is no setting.
    pub(crate) fn environment(
        mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        for (variable, value) in variables.into_iter().filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX)) {
            let origin = Origin::Environment(variable.clone());
            match KEYS.iter().find(|key| key.variable() == variable) {
                Some(key) => self.values.insert(key.name, (listed(&value), origin)),
                None if variable == format!("{ENVIRONMENT_PREFIX}CONFIG") => None,
                None => return Err(SettingsError::Unknown { name: variable, origin }),
            };
        }
        Ok(self)
    }

    /// Lays one flag on top.
    pub(crate) fn flag(mut self, key: &'static Key, value: &str) -> Self {
        self.values.insert(key.name, (listed(value), Origin::Flag(format!("--{}", key.flag()))));
        self
    }

    /// The data folder: as set, else the user's own.
    ///
    /// # Errors
    /// An empty path, or none set and no home folder.
    pub(crate) fn data(&self) -> Result<PathBuf, SettingsError> {
        if self.values.contains_key("data") {
            return self.value("data", super::values::path);
        }
        let state = std::env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
        let state = state.or_else(|| Some(std::env::home_dir()?.join(".local/state")));
        state.map(|folder| folder.join("mesh-node")).ok_or_else(|| SettingsError::Bad {
            name: "data",
            value: String::new(),
            origin: Origin::Default,
            wanted: "there is no home folder; name the data folder".into(),
        })
    }

    /// One value, read by `read`.
    ///
    /// # Errors
    /// What `read` wanted, with the origin.
    pub(crate) fn value<T>(
        &self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, SettingsError> {
        let (texts, origin) = self.texts(name);
        let value = texts.join(",");
        read(&value).map_err(|wanted| SettingsError::Bad { name, value, origin, wanted })
    }

    /// A list, each entry read by `read`.
    ///
    /// # Errors
    /// What `read` wanted of the first bad entry, with the origin.
    pub(crate) fn list<T>(
        &self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, SettingsError> {
        let (texts, origin) = self.texts(name);
        let entry = |value: String| {
            read(&value).map_err(|wanted| SettingsError::Bad { name, value, origin: origin.clone(), wanted })
        };
        texts.into_iter().map(entry).collect()
    }

    /// A list in which nothing stands twice.
    ///
    /// # Errors
    /// As [`Layers::list`], and the first entry that stands there once more.
    pub(crate) fn distinct<T: PartialEq>(
        &self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, SettingsError> {
        let list = self.list(name, read)?;
        let twice = (1..list.len()).find(|&at| list[..at].contains(&list[at]));
        let Some(at) = twice else { return Ok(list) };
        let (mut texts, origin) = self.texts(name);
        Err(SettingsError::Bad { name, value: texts.swap_remove(at), origin, wanted: "it is listed twice".into() })
    }

    fn texts(&self, name: &'static str) -> (Vec<String>, Origin) {
        self.values
            .get(name)
            .cloned()
            .unwrap_or_else(|| (Key::named(name).map(|key| listed(key.default)).unwrap_or_default(), Origin::Default))
    }
}

fn listed(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}

fn texts(value: &DeValue<'_>) -> Option<Vec<String>> {
    match value {
        DeValue::Array(entries) => {
            entries.iter().map(|entry| texts(entry.get_ref())).collect::<Option<Vec<_>>>().map(|all| all.concat())
        }
        DeValue::String(text) => Some(vec![text.to_string()]),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| vec![number.to_string()])
        }
        DeValue::Boolean(flag) => Some(vec![flag.to_string()]),
        _ => None,
    }
}

fn line<T>(text: &str, spanned: &Spanned<T>) -> usize {
    text[..spanned.span().start].matches('\n').count() + 1
}

fn did_you_mean(name: &str) -> String {
    fn last(name: &str) -> &str {
        name.rsplit('.').next().unwrap_or_default()
    }
    let wanted = name.to_lowercase();
    let asked = last(&wanted);
    let is_near = |key: &&str| asked.ends_with(last(key)) || last(key).ends_with(asked);
    let near: Vec<_> = KEYS.iter().map(|key| key.name).filter(is_near).collect();
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}
