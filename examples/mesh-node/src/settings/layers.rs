//! The sources of settings as text, by precedence.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{ENVIRONMENT_PREFIX, KEYS, Key};

/// The largest settings file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Environment(String),
    Flag(String),
}

/// A setting that is not valid.
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
    #[error("the system does not report its memory; set memory.budget in bytes")]
    MemoryUnknown,
}

/// The values of one setting as they were written: one, or the entries of a TOML array.
type Texts = Vec<OsString>;

/// Values as text, by setting, each from the last source that names it.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    values: BTreeMap<&'static str, (Texts, Origin)>,
}

impl Layers {
    /// Adds a TOML file, which takes precedence.
    ///
    /// # Errors
    /// A file that cannot be read or is no TOML, a key that is no setting, a table or float where text belongs.
    pub(crate) fn file(mut self, path: &Path) -> Result<Self, SettingsError> {
        let text = read(path).map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })?;
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

    /// Adds environment variables, which take precedence; those without our prefix are ignored, whatever their bytes.
    ///
    /// # Errors
    /// A variable with our prefix that is no setting.
    pub(crate) fn environment(
        mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsError> {
        let ours = |name: &OsStr| name.as_encoded_bytes().starts_with(ENVIRONMENT_PREFIX.as_bytes());
        for (variable, value) in variables.into_iter().filter(|(name, _)| ours(name)) {
            let variable = variable.to_string_lossy().into_owned();
            let origin = Origin::Environment(variable.clone());
            match KEYS.iter().find(|key| key.variable() == variable) {
                Some(key) => self.values.insert(key.name, (vec![value], origin)),
                None if variable == format!("{ENVIRONMENT_PREFIX}CONFIG") => None,
                None => return Err(SettingsError::Unknown { name: variable, origin }),
            };
        }
        Ok(self)
    }

    /// Adds one flag, which takes precedence.
    pub(crate) fn flag(mut self, key: &'static Key, value: &OsStr) -> Self {
        self.values.insert(key.name, (vec![value.to_owned()], Origin::Flag(format!("--{}", key.flag()))));
        self
    }

    /// The data folder: as set, else the user's own.
    ///
    /// # Errors
    /// An empty path, or none set and no home folder.
    pub(crate) fn data(&self) -> Result<PathBuf, SettingsError> {
        if self.values.contains_key("data") {
            return self.path("data");
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
    /// What `read` expected, with the origin; a list, or text that is not UTF-8.
    pub(crate) fn value<T>(
        &self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, SettingsError> {
        let (text, origin) = self.one(name)?;
        let read = |text: &OsStr| read(text.to_str().ok_or("it is not UTF-8")?.trim());
        read(&text).map_err(|wanted| bad(name, &text, &origin, wanted))
    }

    /// A path as it was written; its bytes need not be UTF-8.
    ///
    /// # Errors
    /// A list or an empty path, with the origin.
    pub(crate) fn path(&self, name: &'static str) -> Result<PathBuf, SettingsError> {
        let (text, origin) = self.one(name)?;
        if text.is_empty() { Err(bad(name, &text, &origin, "a path is needed".into())) } else { Ok(text.into()) }
    }

    fn one(&self, name: &'static str) -> Result<(OsString, Origin), SettingsError> {
        let (mut texts, origin) = self.texts(name);
        match texts.len() {
            0 => Ok((OsString::new(), origin)),
            1 => Ok((texts.remove(0), origin)),
            _ => {
                let all = texts.join(OsStr::new(","));
                Err(bad(name, &all, &origin, "one value is needed, not a list".into()))
            }
        }
    }

    /// A list, each entry read by `read`.
    ///
    /// # Errors
    /// What `read` expected of the first bad entry, with the origin.
    pub(crate) fn list<T>(
        &self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, SettingsError> {
        let (entries, origin) = self.entries(name)?;
        let entry = |text: &String| read(text).map_err(|wanted| bad(name, OsStr::new(text), &origin, wanted));
        entries.iter().map(entry).collect()
    }

    fn entries(&self, name: &'static str) -> Result<(Vec<String>, Origin), SettingsError> {
        let (texts, origin) = self.texts(name);
        let mut entries = Vec::new();
        for text in &texts {
            let text = text.to_str().ok_or_else(|| bad(name, text, &origin, "it is not UTF-8".into()))?;
            entries.extend(text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned));
        }
        Ok((entries, origin))
    }

    /// A list without duplicates.
    ///
    /// # Errors
    /// As [`Layers::list`], and the first duplicate.
    pub(crate) fn distinct<T: PartialEq>(
        &self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, SettingsError> {
        let list = self.list(name, read)?;
        let twice = (1..list.len()).find(|&at| list[..at].contains(&list[at]));
        let Some(at) = twice else { return Ok(list) };
        let (entries, origin) = self.entries(name)?;
        Err(bad(name, OsStr::new(&entries[at]), &origin, "it is listed twice".into()))
    }

    fn texts(&self, name: &'static str) -> (Texts, Origin) {
        let default = || Key::named(name).map(|key| vec![key.default.into()]).unwrap_or_default();
        self.values.get(name).cloned().unwrap_or_else(|| (default(), Origin::Default))
    }

    /// Names of the settings whose values differ from those of `other`.
    pub(crate) fn changed(&self, other: &Self) -> Vec<&'static str> {
        KEYS.iter().map(|key| key.name).filter(|name| self.texts(name).0 != other.texts(name).0).collect()
    }
}

/// Reads a regular file of bounded size. Anything else could block, or never end.
fn read(path: &Path) -> io::Result<String> {
    let file = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("more than {} KiB", MAX_FILE >> 10)));
    }
    Ok(text)
}

fn bad(name: &'static str, value: &OsStr, origin: &Origin, wanted: String) -> SettingsError {
    SettingsError::Bad { name, value: value.to_string_lossy().into_owned(), origin: origin.clone(), wanted }
}

fn texts(value: &DeValue<'_>) -> Option<Texts> {
    match value {
        DeValue::Array(entries) => {
            entries.iter().map(|entry| texts(entry.get_ref())).collect::<Option<Vec<_>>>().map(|all| all.concat())
        }
        DeValue::String(text) => Some(vec![text.as_ref().into()]),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| vec![number.to_string().into()])
        }
        DeValue::Boolean(flag) => Some(vec![flag.to_string().into()]),
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
