//! A server that speaks GitHub's exchange of what an app signs for a token, beside the repositories that the token opens.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::git_http;

/// The number of the app.
pub const APP: u64 = 4711;
/// The number of its installation.
pub const INSTALLATION: u64 = 815;
/// The key of the app; it opens nothing but this server.
pub const KEY_PKCS1: &str = include_str!("github/app.pkcs1.pem");
/// The same key in the other form.
pub const KEY_PKCS8: &str = include_str!("github/app.pkcs8.pem");
const PUBLIC_KEY: &[u8] = include_bytes!("github/app.public.der");

/// An answer of the API to every request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Header fields.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

/// The API of a [`git_http::Server`], as an enterprise server has it: below `/api/v3` of the same host.
#[derive(Clone)]
pub struct Api {
    state: Arc<State>,
}

struct State {
    /// Whom the repositories are opened to: the newest token.
    account: git_http::Account,
    answer: Mutex<Option<Answer>>,
    lifetime: Mutex<Duration>,
    requests: AtomicUsize,
    tokens: Mutex<Vec<String>>,
}

impl Api {
    /// Adds the API to `server`, which from now on lets in only who has the newest token.
    pub fn serve(server: &git_http::Server) -> Self {
        let state = Arc::new(State {
            account: server.account(),
            answer: Mutex::default(),
            lifetime: Mutex::new(Duration::from_secs(60 * 60)),
            requests: AtomicUsize::default(),
            tokens: Mutex::default(),
        });
        let api = Self { state };
        api.revoke();
        let state = api.state.clone();
        server.handle("/api/v3/", Arc::new(move |request| state.respond(request)));
        api
    }

    /// Answers everything like this from now on, `None`: as it should.
    pub fn answer(&self, answer: Option<Answer>) {
        *self.state.answer.lock() = answer;
    }

    /// Tokens that are given out from now on end after this time.
    pub fn set_lifetime(&self, lifetime: Duration) {
        *self.state.lifetime.lock() = lifetime;
    }

    /// Makes all tokens worthless.
    pub fn revoke(&self) {
        self.state.admit("nobody has this token");
    }

    /// Returns how many requests came in.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// Returns all tokens that were given out.
    pub fn tokens(&self) -> Vec<String> {
        self.state.tokens.lock().clone()
    }
}

impl State {
    fn admit(&self, token: &str) {
        *self.account.lock() = Some(("x-access-token".to_owned(), token.to_owned()));
    }

    fn respond(&self, request: &Parts) -> Response<Full<Bytes>> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(answer) = self.answer.lock().clone() {
            return respond(answer.status, &answer.headers, answer.body);
        }
        let refuse = |status, message: &str| respond(status, &[], json!({ "message": message }).to_string());
        if let Err(message) = authorized(&request.headers) {
            return refuse(401, &message);
        }
        if request.method != http::Method::POST
            || request.uri.path() != format!("/api/v3/app/installations/{INSTALLATION}/access_tokens")
        {
            return refuse(404, "Not Found");
        }
        let token = format!("ghs_t0ken{number}");
        self.tokens.lock().push(token.clone());
        self.admit(&token);
        let expires = jiff::Timestamp::try_from(SystemTime::now() + *self.lifetime.lock()).expect("a time");
        respond(201, &[], json!({ "token": token, "expires_at": format!("{expires:.0}") }).to_string())
    }
}

/// Checks what GitHub checks: the signature, whose it is, and when.
fn authorized(headers: &HeaderMap) -> Result<(), String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if text("user-agent").is_empty() {
        return Err("Request forbidden by administrative rules. Please make sure your request has a User-Agent".into());
    }
    let jwt = text("authorization").strip_prefix("Bearer ").ok_or("Requires authentication")?;
    let undecodable = "A JSON web token could not be decoded";
    let (signed, signature) = jwt.rsplit_once('.').ok_or(undecodable)?;
    let (header, claims) = signed.split_once('.').ok_or(undecodable)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| undecodable.to_owned());
    let (header, claims, signature) = (decode(header)?, decode(claims)?, decode(signature)?);
    let value = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).map_err(|_| undecodable.to_owned());
    let (header, claims) = (value(&header)?, value(&claims)?);
    if header["alg"] != "RS256" || claims["iss"].as_str() != Some(APP.to_string().as_str()) {
        return Err("Integration not found".into());
    }
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::RSA_PKCS1_2048_8192_SHA256, PUBLIC_KEY);
    key.verify(signed.as_bytes(), &signature).map_err(|_| undecodable)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let (issued, expires) = (claims["iat"].as_u64().unwrap_or(u64::MAX), claims["exp"].as_u64().unwrap_or_default());
    if issued > now || expires <= now {
        return Err("'Issued at' claim ('iat') must be an Integer representing the time in the past".into());
    }
    if expires > now + 10 * 60 {
        return Err("'Expiration time' claim ('exp') is too far in the future".into());
    }
    Ok(())
}

fn respond(status: u16, headers: &[(&'static str, String)], body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    for (name, value) in headers {
        response.headers_mut().insert(*name, value.parse().expect("a value"));
    }
    response
}
