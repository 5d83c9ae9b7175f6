//! What a server said when it refused, as [`Trouble`].

use std::cell::RefCell;
use std::time::Duration;

use http::StatusCode;

use crate::error::Trouble;
use crate::retry_after;

/// The longest text of a server that is passed on.
const MESSAGE_CHARS_MAX: usize = 300;

tokio::task_local! {
    /// How the last exchange of the present call went: the library that makes the exchanges keeps it as text only.
    static LAST: RefCell<Option<Last>>;
}

/// How an exchange went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// The server did as it was asked.
    Well {
        /// Whom was asked.
        host: String,
    },
    /// The server answered.
    Answer(Answer),
    /// There was no answer.
    Silence {
        /// Whom was asked.
        host: String,
        /// What was the matter.
        trouble: Trouble,
    },
}

/// A refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) host: String,
    pub(super) status: u16,
    /// The server's word for it; may be empty.
    pub(super) code: String,
    message: String,
    /// The region that the bucket is in, if it is not the one that was asked.
    pub(super) region: Option<String>,
    /// For how long the server asks to be left alone.
    pub(super) retry_after: Option<Duration>,
}

/// Runs a call, and returns how its last exchange went, if there was one.
pub(super) async fn listen<T>(call: impl Future<Output = T>) -> (T, Option<Last>) {
    let scope = LAST.scope(RefCell::new(None), async {
        let result = call.await;
        (result, LAST.with(RefCell::take))
    });
    scope.await
}

/// Remembers how an exchange went.
pub(super) fn note(last: Last) {
    // Without a listener nobody wants to know.
    let _ = LAST.try_with(|slot| slot.replace(Some(last)));
}

impl Answer {
    /// Reads a refusal: XML as S3 and Azure send it, or JSON as Google does.
    pub(super) fn read(host: &str, status: StatusCode, headers: &http::HeaderMap, body: &[u8]) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = String::from_utf8_lossy(body);
        let code = element(&body, "Code").or_else(|| header("x-amz-error-code")).or_else(|| header("x-ms-error-code"));
        let message = element(&body, "Message").or_else(|| json_text(&body, "message")).or_else(|| plain(&body));
        let region = header("x-amz-bucket-region").or_else(|| element(&body, "Region"));
        Self {
            host: host.to_owned(),
            status: status.as_u16(),
            code: code.unwrap_or_default(),
            message: one_line(lasting(&message.unwrap_or_default())),
            region: region.filter(|region| is_region(region)),
            retry_after: header("retry-after").and_then(|text| retry_after::parse(&text, header("date").as_deref())),
        }
    }

    /// Returns code and message, or whatever there is of them.
    fn text(&self) -> String {
        match (self.code.as_str(), self.message.as_str()) {
            ("", "") => match StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason()) {
                Some(reason) => format!("{} {reason}", self.status),
                None => self.status.to_string(),
            },
            ("", message) => format!("{}: {message}", self.status),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code}: {message}"),
        }
    }

    pub(super) fn trouble(&self, bucket: &str) -> Trouble {
        match (self.status, self.code.as_str()) {
            (_, "NoSuchBucket" | "ContainerNotFound") => Trouble::BucketMissing(bucket.to_owned()),
            (404, "" | "NotFound") if self.message.contains("bucket does not exist") => {
                Trouble::BucketMissing(bucket.to_owned())
            }
            (
                _,
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "InvalidToken"
                | "ExpiredToken"
                | "AuthFailure"
                | "AuthenticationFailed"
                | "InvalidAuthenticationInfo"
                | "InvalidSecurity"
                | "RequestTimeTooSkewed"
                | "XAdminUserNotFound",
            )
            | (401, _) => Trouble::AccessKeyRefused(self.text()),
            (403, _) => Trouble::Forbidden(self.text()),
            (408 | 429, _) | (500.., _) | (_, "SlowDown") => match (self.text(), self.retry_after) {
                (reason, Some(retry_after)) => Trouble::Busy { reason, retry_after },
                (reason, None) => Trouble::ServerFailed(reason),
            },
            (300..=399, _) => Trouble::Redirected,
            _ => Trouble::Answer(self.text()),
        }
    }
}

impl Last {
    /// Returns the trouble of a store whose own server is `own`; what any other host says is about credentials.
    pub(super) fn trouble(&self, bucket: &str, own: impl Fn(&str) -> bool) -> Trouble {
        match self {
            Self::Well { host } if own(host) => Trouble::NotUnderstood(host.clone()),
            Self::Well { host } => Trouble::NoCredentials(format!("the answer of {host} is not understood")),
            Self::Answer(answer) if own(&answer.host) => answer.trouble(bucket),
            Self::Silence { host, trouble } if own(host) => trouble.clone(),
            Self::Answer(answer) => Trouble::NoCredentials(format!("{} answers: {}", answer.host, answer.text())),
            Self::Silence { host, trouble } => Trouble::NoCredentials(format!("{host} {trouble}")),
        }
    }
}

/// Returns the text of the first element of this name.
fn element(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once('<')?;
    let plain = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    Some(plain.replace("&#34;", "\"").replace("&#39;", "'").replace("&amp;", "&"))
}

/// Returns the first text of this name in a JSON document that is not worth parsing.
fn json_text(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("\"{name}\""))?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    rest.split_once('"').map(|(text, _)| text.to_owned())
}

/// Returns a text that is no document, as servers of something else send it.
fn plain(body: &str) -> Option<String> {
    let text = body.trim();
    (!text.starts_with(['<', '{', '['])).then(|| text.to_owned())
}

/// Leaves out what differs from answer to answer, with which the messages of Azure end, and the full stop: the text goes on
/// with a hint.
fn lasting(message: &str) -> &str {
    message.split("RequestId:").next().unwrap_or_default().trim_end().trim_end_matches('.')
}

fn one_line(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(MESSAGE_CHARS_MAX).collect()
}

fn is_region(text: &str) -> bool {
    !text.is_empty() && text.len() < 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).expect("a status");
        Answer::read("h", status, &http::HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn a_sentence_of_the_server_ends_without_its_full_stop() {
        let answer = read(403, "<Error><Code>InvalidAccessKeyId</Code><Message>No such key.</Message></Error>");
        assert_eq!(answer.text(), "InvalidAccessKeyId: No such key");
    }

    #[test]
    fn refusals_become_troubles_with_the_servers_own_words() {
        let xml = |code: &str, message: &str| {
            format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>")
        };
        let bucket = || "b".to_owned();
        for (status, body, trouble) in [
            (404, xml("NoSuchBucket", "x"), Trouble::BucketMissing(bucket())),
            (404, "<Error><Code>ContainerNotFound</Code></Error>".to_owned(), Trouble::BucketMissing(bucket())),
            (
                404,
                r#"{"error": {"code": 404, "message": "The specified bucket does not exist."}}"#.to_owned(),
                Trouble::BucketMissing(bucket()),
            ),
            (
                403,
                xml("InvalidAccessKeyId", "No such key."),
                Trouble::AccessKeyRefused("InvalidAccessKeyId: No such key".into()),
            ),
            (403, xml("SignatureDoesNotMatch", ""), Trouble::AccessKeyRefused("SignatureDoesNotMatch".into())),
            (400, xml("ExpiredToken", "Late."), Trouble::AccessKeyRefused("ExpiredToken: Late".into())),
            (401, String::new(), Trouble::AccessKeyRefused("401 Unauthorized".into())),
            (
                403,
                xml("AccessDenied", "Access &lt;b&gt;\n Denied &amp;lt;"),
                Trouble::Forbidden("AccessDenied: Access <b> Denied &lt;".into()),
            ),
            (
                403,
                xml("RequestTimeTooSkewed", "Skewed."),
                Trouble::AccessKeyRefused("RequestTimeTooSkewed: Skewed".into()),
            ),
            (403, String::new(), Trouble::Forbidden("403 Forbidden".into())),
            (503, xml("SlowDown", "Reduce."), Trouble::ServerFailed("SlowDown: Reduce".into())),
            (429, String::new(), Trouble::ServerFailed("429 Too Many Requests".into())),
            (500, String::new(), Trouble::ServerFailed("500 Internal Server Error".into())),
            (301, String::new(), Trouble::Redirected),
            (
                403,
                xml("AuthorizationFailure", "Not allowed.\nRequestId:f8d2\nTime:2026-01-01T00:00:00Z"),
                Trouble::Forbidden("AuthorizationFailure: Not allowed".into()),
            ),
            (
                400,
                "Client sent an HTTP request to an HTTPS server.\n".to_owned(),
                Trouble::Answer("400: Client sent an HTTP request to an HTTPS server".into()),
            ),
            (400, "<html><p>Bad</p></html>".to_owned(), Trouble::Answer("400 Bad Request".into())),
            (400, xml("KeyTooLongError", "Long."), Trouble::Answer("KeyTooLongError: Long".into())),
        ] {
            assert_eq!(read(status, &body).trouble("b"), trouble, "{status} {body}");
        }
    }

    #[test]
    fn a_server_that_asks_to_be_left_alone_is() {
        let headers: http::HeaderMap =
            [(http::header::RETRY_AFTER, http::HeaderValue::from_static("7"))].into_iter().collect();
        let answer =
            Answer::read("h", StatusCode::SERVICE_UNAVAILABLE, &headers, b"<Error><Code>SlowDown</Code></Error>");
        let busy = Trouble::Busy { reason: "SlowDown".into(), retry_after: Duration::from_secs(7) };
        assert_eq!(answer.trouble("b"), busy);
    }

    #[test]
    fn a_region_is_learnt_from_a_refusal() {
        let body = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region></Error>";
        assert_eq!(read(400, body).region.as_deref(), Some("eu-west-3"));
        assert_eq!(read(400, "<Error><Region>../x</Region></Error>").region, None);
    }

    #[test]
    fn what_another_host_says_is_about_credentials() {
        let own = |host: &str| host == "own";
        let silence = |host: &str| Last::Silence { host: host.into(), trouble: Trouble::Unreachable("refused".into()) };
        assert_eq!(silence("own").trouble("b", own), Trouble::Unreachable("refused".into()));
        let text = "169.254.169.254 cannot be reached: refused";
        assert_eq!(silence("169.254.169.254").trouble("b", own), Trouble::NoCredentials(text.into()));
        let denied = Last::Answer(read(403, "<Error><Code>AccessDenied</Code></Error>"));
        assert_eq!(denied.trouble("b", own), Trouble::NoCredentials("h answers: AccessDenied".into()));
    }

    #[tokio::test]
    async fn calls_that_run_at_the_same_time_hear_only_of_their_own() {
        let silent = listen(async { tokio::task::yield_now().await });
        let loud = listen(async {
            note(Last::Answer(Answer::default()));
            tokio::task::yield_now().await;
        });
        let (silent, loud) = tokio::join!(silent, loud);
        assert_eq!(silent.1, None);
        assert_eq!(loud.1, Some(Last::Answer(Answer::default())));
    }
}
