//! `workflow-control.yaml`: a pipeline asks to be suspended, or to be run again later.
//!
//! # Source
//! `02-workflows.md` §14.4, §18, §19.39

use std::path::Path;

use kratix_api::Duration;
use serde_json::Value;

use crate::metadata::{self, Content};
use crate::{Error, yaml};

/// What a pipeline asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Control {
    /// To go on.
    #[default]
    Continue,
    /// To stop until somebody says otherwise.
    Suspend {
        /// Why.
        message: String,
    },
    /// To be run again.
    Retry {
        /// After how long; never negative.
        after: Duration,
        /// Why.
        message: String,
    },
}

/// Reads the file; a missing or empty one asks for nothing.
///
/// # Errors
/// [`Error::Control`] naming the file, and the field if it is known.
pub fn read(path: &Path) -> Result<Control, Error> {
    let unmarshal = |cause: String| {
        Error::Control(format!("failed to unmarshal the workflow control file: {path:?} with error: {cause}"))
    };
    let content = metadata::read(path).map_err(|error| {
        Error::Control(format!("failed to read the workflow control file: {path:?} with error: {error}"))
    })?;
    match content {
        Content::Missing => Ok(Control::Continue),
        Content::Parsed(document) => parse(&document.map_err(unmarshal)?).map_err(|fault| match fault {
            Fault::Field(cause) => unmarshal(cause),
            Fault::Duration(text, cause) => {
                Error::Control(format!("failed to parse retry duration: {text:?} with error: {cause}"))
            }
        }),
    }
}

enum Fault {
    Field(String),
    Duration(String, String),
}

fn parse(document: &Value) -> Result<Control, Fault> {
    let map = match document {
        Value::Null => return Ok(Control::Continue),
        Value::Object(map) => map,
        _ => return Err(Fault::Field("a map is wanted".to_owned())),
    };
    let text = |name: &str| match yaml::field(map, name) {
        None => Ok(String::new()),
        Some(value) => yaml::as_text(value).ok_or_else(|| Fault::Field(format!("field {name} must be a text"))),
    };
    let suspend = match yaml::field(map, "suspend") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(suspend)) => *suspend,
        Some(other) => return Err(Fault::Field(format!("field suspend must be true or false, found {other}"))),
    };
    let (message, after) = (text("message")?, text("retryAfter")?);
    if after.is_empty() {
        return Ok(if suspend { Control::Suspend { message } } else { Control::Continue });
    }
    let duration = duration(&after).map_err(|cause| Fault::Duration(after, cause))?;
    Ok(Control::Retry { after: duration.max(Duration::default()), message })
}

/// Reads a duration; days count as well, because users write them.
fn duration(text: &str) -> Result<Duration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u16>().ok());
    match days {
        Some(days) => Ok(Duration::from_seconds(i64::from(days) * 24 * 60 * 60)),
        None => text.parse().map_err(|error: kratix_api::duration::ParseError| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(text: &str) -> Result<Control, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("workflow-control.yaml");
        std::fs::write(&path, text).unwrap();
        read(&path).map_err(|error| error.to_string().replace(&dir.path().display().to_string(), ""))
    }

    fn retry(seconds: i64) -> Control {
        Control::Retry { after: Duration::from_seconds(seconds), message: String::new() }
    }

    #[test]
    fn nothing_asked_is_nothing_done() {
        assert_eq!(read(Path::new("/nonexistent/file")).unwrap(), Control::Continue);
        for text in ["", "# nothing\n", "{}", "suspend: false", "suspend: no", "message: hello", "other: [1]"] {
            assert_eq!(control(text), Ok(Control::Continue), "{text}");
        }
    }

    #[test]
    fn suspend_and_retry_are_understood_and_retry_wins() {
        assert_eq!(control("suspend: yes\nmessage: 5"), Ok(Control::Suspend { message: "5".into() }));
        assert_eq!(control("SUSPEND: true"), Ok(Control::Suspend { message: String::new() }));
        assert_eq!(control("retryAfter: 10m\nsuspend: true"), Ok(retry(600)));
        assert_eq!(control("retryafter: 2d"), Ok(retry(172_800)));
        assert_eq!(control("retryAfter: 0"), Ok(retry(0)));
        assert_eq!(control("retryAfter: -5m"), Ok(retry(0)));
    }

    #[test]
    fn a_malformed_file_is_named_with_its_field() {
        let prefix = r#"failed to unmarshal the workflow control file: "/workflow-control.yaml" with error: "#;
        for text in ["suspend: maybe", "suspend: 1", "- a", "message: [a]", "a: [", "retryAfter: {a: 1}"] {
            let error = control(text).unwrap_err();
            assert!(error.starts_with(prefix), "{error}");
        }
        assert!(control("suspend: 1").unwrap_err().ends_with("field suspend must be true or false, found 1"));
        assert_eq!(
            control("retryAfter: soon").unwrap_err(),
            r#"failed to parse retry duration: "soon" with error: time: invalid duration "soon""#
        );
    }
}
