//! The key of an image.

use std::sync::Arc;

/// A tenant's image, as its path `/tenant/image` names it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ImageKey {
    path: Arc<str>,
    slash: usize,
}

impl ImageKey {
    /// The longest name of a tenant or an image: a key weighs in the cache no more than is reckoned for it.
    const LONGEST: usize = 32;

    /// Reads a path; `None` if it names no image.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let (tenant, image) = path.strip_prefix('/')?.split_once('/')?;
        let is_name = |name: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            (1..=Self::LONGEST).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.')
        };
        (is_name(tenant) && is_name(image)).then(|| Self { slash: tenant.len() + 1, path: path.into() })
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn tenant(&self) -> &str {
        &self.path[1..self.slash]
    }

    /// A name for a file: one level, and no two keys share it.
    pub(crate) fn file(&self) -> String {
        format!("{}+{}", self.tenant(), &self.path[self.slash + 1..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_plain_names_are_a_key() {
        let key = ImageKey::parse("/acme/cat-1.png").unwrap();
        assert_eq!((key.tenant(), key.path(), key.file().as_str()), ("acme", "/acme/cat-1.png", "acme+cat-1.png"));
        for path in ["/acme", "acme/cat", "//cat", "/acme/", "/acme/../etc", "/acme/a/b", "/a+b/c", "/acme/.."] {
            assert_eq!(ImageKey::parse(path), None, "{path}");
        }
        assert_eq!(ImageKey::parse(&format!("/acme/{}", "x".repeat(33))), None);
    }
}
