//! One file: its documents, and the objects in each.
//!
//! Documents are split before anything is parsed, so that a broken one costs only itself.

use super::{
    file,
    kinds::{Kind, Reader},
    merge::{FileObjects, Found},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use serde_saphyr::{MessageFormatter, UserMessageFormatter};
use tracing::debug;
use weir_core::model::{Condition, reason};
use weir_crds::convert::{V1ALPHA1, V1ALPHA2, convert};

/// Reads every object of a file; `path` says by its ending whether it is JSON or YAML.
pub(super) fn parse_file(path: &str, text: &str) -> FileObjects {
    let json = path.ends_with(".json");
    let documents = if json {
        vec![Document {
            text: text.into(),
            lines_before: 0,
        }]
    } else {
        split(text)
    };
    let mut file = FileObjects::default();
    for (index, document) in documents
        .iter()
        .enumerate()
        .filter(|(_, document)| !document.is_empty())
    {
        let place = format!("{path} (document {})", index + 1);
        let source = Source { document, json };
        if let Err(fault) = source.objects(&place, &mut file) {
            file.faults.push(fault.condition(&place, document));
        }
    }
    file
}

/// One document of a file.
struct Document {
    text: String,
    /// Lines of the file above it.
    lines_before: usize,
}

impl Document {
    /// Whether it has nothing but comments and directives.
    fn is_empty(&self) -> bool {
        self.text
            .lines()
            .map(str::trim)
            .all(|line| line.is_empty() || line.starts_with(['#', '%']) || line == "...")
    }
}

/// Splits YAML at its `---` lines.
fn split(text: &str) -> Vec<Document> {
    let mut documents = vec![Document {
        text: String::new(),
        lines_before: 0,
    }];
    for (number, line) in text.lines().enumerate() {
        // What stands behind the marker on its line belongs to the document it opens.
        let opened = line
            .strip_prefix("---")
            .filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r']));
        if let Some(rest) = opened {
            documents.push(Document {
                text: format!("{rest}\n"),
                lines_before: number,
            });
        } else if let Some(document) = documents.last_mut() {
            document.text.push_str(line);
            document.text.push('\n');
        }
    }
    // A file that begins with a marker has no document before it.
    if documents.len() > 1 && documents[0].is_empty() {
        documents.remove(0);
    }
    documents
}

/// A document that can be read as any type.
struct Source<'a> {
    document: &'a Document,
    json: bool,
}

/// What makes an object what it is, before its kind is known.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Metadata {
    name: Option<String>,
}

/// A list of objects, of one kind or of many.
#[derive(Deserialize)]
struct Items {
    #[serde(default)]
    items: Vec<Value>,
}

/// Why something could not be read.
pub(super) struct Fault {
    /// In the document, from 1.
    line: Option<usize>,
    field: String,
    message: String,
}

impl Source<'_> {
    fn objects(&self, place: &str, file: &mut FileObjects) -> Result<(), Fault> {
        let head: Head = self.read()?;
        let (api_version, kind) = head.kind()?;
        if let Some(item_kind) = kind.strip_suffix("List") {
            let list: Items = self.read()?;
            for (index, mut value) in list.items.into_iter().enumerate() {
                if let Value::Object(fields) = &mut value {
                    // Items of a list of one kind do not say their kind.
                    if !item_kind.is_empty() {
                        fields.entry("kind").or_insert_with(|| item_kind.into());
                        fields.entry("apiVersion").or_insert_with(|| api_version.into());
                    }
                }
                let place = format!("{place}, items[{index}]");
                if let Err(fault) = item(&value, &place, file) {
                    file.faults.push(fault.condition(&place, self.document));
                }
            }
            return Ok(());
        }
        object(self, &head, place, file)
    }
}

/// Reads one item of a list.
fn item(value: &Value, place: &str, file: &mut FileObjects) -> Result<(), Fault> {
    let head: Head = value.read()?;
    object(value, &head, place, file)
}

/// An object of the older version as the newer one; what is wrong in it is told by its newer name. In a list it may leave to
/// the list what it is.
fn older(reader: &impl Reader<Error = Fault>, kind: &str) -> Result<Value, Fault> {
    let mut object: serde_json::Map<String, Value> = reader.read()?;
    object.insert("apiVersion".into(), V1ALPHA1.into());
    object.insert("kind".into(), kind.into());
    convert(object.into(), V1ALPHA2).map_err(|error| Fault {
        line: None,
        field: "kind".into(),
        message: error.to_string(),
    })
}

/// Reads one object and adds it to the file, if its kind is one that is read.
fn object(reader: &impl Reader<Error = Fault>, head: &Head, place: &str, file: &mut FileObjects) -> Result<(), Fault> {
    let (api_version, kind) = head.kind()?;
    let Some(known) = Kind::of(api_version, kind) else {
        debug!("{place}: {kind} of {api_version} is not read");
        return Ok(());
    };
    let name = head
        .metadata
        .as_ref()
        .and_then(|metadata| metadata.name.as_deref())
        .unwrap_or_default();
    if name.is_empty() {
        let message = format!("the {kind} has no name");
        return Err(Fault {
            line: None,
            field: "metadata.name".into(),
            message,
        });
    }
    let read = if api_version == V1ALPHA1 {
        older(reader, kind).and_then(|object| known.read(&object))
    } else {
        known.read(reader)
    };
    let (identity, object, faults) = read.map_err(|fault| Fault {
        message: format!("{kind} {name}: {}", fault.message),
        ..fault
    })?;
    file.objects.push(Found {
        place: place.into(),
        identity,
        object,
        faults,
    });
    Ok(())
}

impl Head {
    fn kind(&self) -> Result<(&str, &str), Fault> {
        let missing = |field: &str| Fault {
            line: None,
            field: field.into(),
            message: "it is not a Kubernetes object, which has apiVersion and kind".into(),
        };
        let kind = self.kind.as_deref().ok_or_else(|| missing("kind"))?;
        Ok((self.api_version.as_deref().ok_or_else(|| missing("apiVersion"))?, kind))
    }
}

impl Fault {
    fn condition(self, place: &str, document: &Document) -> Condition {
        let line = self
            .line
            .map(|line| format!("line {}: ", document.lines_before + line))
            .unwrap_or_default();
        let message = format!(
            "{line}{}. Correct it; all other documents are used.",
            self.message.trim_end_matches('.')
        );
        Condition::new(file(place), &self.field, reason::UNPARSABLE, message)
    }
}

impl Reader for Source<'_> {
    type Error = Fault;

    fn read<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        if self.json {
            let mut deserializer = serde_json::Deserializer::from_str(&self.document.text);
            let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| Fault {
                line: Some(error.inner().line()),
                field: field(error.path()),
                message: without_position(error.inner()),
            })?;
            return deserializer.end().map(|()| value).map_err(|error| Fault {
                line: Some(error.line()),
                field: String::new(),
                message: without_position(&error),
            });
        }
        let mut at = String::new();
        serde_saphyr::with_deserializer_from_str(&self.document.text, |deserializer| {
            serde_path_to_error::deserialize(deserializer).map_err(|error| {
                at = field(error.path());
                error.into_inner()
            })
        })
        .map_err(|error| {
            let error = error.without_snippet();
            let line = error
                .location()
                .and_then(|location| usize::try_from(location.line()).ok());
            Fault {
                line,
                field: at,
                message: in_words(error),
            }
        })
    }
}

impl Reader for Value {
    type Error = Fault;

    fn read<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        serde_path_to_error::deserialize(self).map_err(|error| Fault {
            line: None,
            field: field(error.path()),
            message: error.inner().to_string(),
        })
    }
}

/// The path of an error; empty for the document as a whole, or where the text is no YAML to begin with.
fn field(path: &serde_path_to_error::Path) -> String {
    let path = path.to_string();
    if path == "." || path == "?" {
        String::new()
    } else {
        path
    }
}

/// The message of serde_json without the position at its end, which counts from the wrong line.
fn without_position(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message
        .rsplit_once(" at line ")
        .map_or(message.clone(), |(text, _)| text.into())
}

/// The message of serde-saphyr, in one line and in words for people who do not know Rust's types.
fn in_words(error: &serde_saphyr::Error) -> String {
    let message = UserMessageFormatter.format_message(error).replace('\n', " ");
    match message.strip_prefix("invalid ") {
        Some("i8" | "i16" | "i32" | "i64") => "a whole number is expected".into(),
        Some("u8" | "u16" | "u32" | "u64") => "a whole number that is not negative is expected".into(),
        _ => message,
    }
}
