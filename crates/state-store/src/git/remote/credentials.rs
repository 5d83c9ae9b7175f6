//! What is sent to prove who we are, as it is needed: a password that is known, or a token that is asked for.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use super::super::github_app::{self, Tokens};
use super::Url;
use crate::config::{Auth, GitConfig, Secret};
use crate::error::Trouble;

/// Where user name and password come from.
pub(super) enum Credentials {
    /// None are sent.
    None,
    /// They are known.
    Fixed(Basic),
    /// The password is a token with an end.
    App(Box<Tokens>),
}

/// User name and password, as HTTP carries them. There is always a password.
#[derive(Clone, Debug)]
pub(super) struct Basic {
    password: Secret,
    /// Both together, in Base64.
    pair: Secret,
}

impl Basic {
    fn new(username: &str, password: &Secret) -> Self {
        let pair = STANDARD.encode(format!("{username}:{}", password.expose()));
        Self { password: password.clone(), pair: Secret::new(pair) }
    }

    /// Returns the value of the header `Authorization`.
    pub(super) fn header(&self) -> HeaderValue {
        let mut value = HeaderValue::try_from(self.text()).expect("Base64 is of ASCII characters");
        value.set_sensitive(true);
        value
    }

    /// Returns the same as a text.
    pub(super) fn text(&self) -> String {
        format!("Basic {}", self.pair.expose())
    }

    /// Returns a text of others without what is secret.
    pub(super) fn redact(&self, text: &str) -> String {
        text.replace(self.password.expose(), "…").replace(self.pair.expose(), "…")
    }
}

impl Credentials {
    pub(super) fn new(config: &GitConfig, url: &Url) -> Result<Self, Trouble> {
        let fixed = |username: &str, password: &Secret| Self::Fixed(Basic::new(username, password));
        Ok(match &config.auth {
            Auth::Basic { username, password } if !password.is_empty() => fixed(username, password),
            Auth::None => url.credentials().map_or(Self::None, |(username, password)| fixed(username, password)),
            Auth::GithubApp(app) if url.local().is_none() => {
                Self::App(Box::new(Tokens::new(app.clone(), &url.shown(), config.tls.clone())?))
            }
            _ => Self::None,
        })
    }

    /// Returns user name and password for the next exchange.
    pub(super) async fn get(&mut self) -> Result<Option<Basic>, Trouble> {
        if let Self::App(tokens) = self {
            tokens.get().await?;
        }
        Ok(self.present())
    }

    /// Returns what was sent last.
    pub(super) fn present(&self) -> Option<Basic> {
        match self {
            Self::None => None,
            Self::Fixed(basic) => Some(basic.clone()),
            Self::App(tokens) => tokens.present().map(|token| Basic::new(github_app::USER, token)),
        }
    }

    /// Forgets what was refused. Returns whether another attempt is made with something else.
    pub(super) fn drop_refused(&mut self) -> bool {
        match self {
            Self::None | Self::Fixed(_) => false,
            Self::App(tokens) => tokens.drop_refused(),
        }
    }
}
