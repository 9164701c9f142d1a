//! The key of a Service, and its text form `namespace/name`, which is also how it is stored and printed.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Namespace and name of a Service. Text form: `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ServiceKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// A text is not the text form of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError {
    /// The text.
    pub text: String,
    /// What it should look like.
    pub expected: &'static str,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not of the form {}", self.text, self.expected)
    }
}

impl std::error::Error for KeyError {}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for ServiceKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (namespace, name) = text.split_once('/').ok_or(KeyError {
            text: text.into(),
            expected: "`namespace/name`",
        })?;
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
        })
    }
}

impl From<ServiceKey> for String {
    fn from(key: ServiceKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for ServiceKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}
